"""Traces of the Copernicus Traceability Service: read and judged, and every weak point of the field's client refused.

The vectors were made by that client; `real-cdse-trace.json` is an answer of the production service.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from authority import DAY, HASH, NOW, OTHER, Authority, file, made, name, signed_raw
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_der_x509_certificate

from rucio_trace import faults
from rucio_trace.checking import Refused, check_trace
from rucio_trace.envelope import Signer, Trace, dumps, parse_traces
from rucio_trace.identity import Trust
from rucio_trace.trace import Event, parse_time, serialise
from rucio_trace.verify import Candidate, Evidence, Verdict, judge

CDSE = Path(__file__).parent.parent / "vectors" / "cdse"
VECTORS = sorted(CDSE.glob("*.json"))
SIGNED = [path for path in VECTORS if "unsigned" not in path.name and "corrupt" not in path.name]
[REAL] = parse_traces((CDSE / "real-cdse-trace.json").read_bytes())
REAL_FILE = Candidate(
    file="product.zip",
    base_name=REAL.statement.name,
    size=REAL.statement.size,
    hashes={"BLAKE3": REAL.statement.hash},
)
DURING = parse_time("2023-10-01T12:00:00.000000Z")
AFTER = parse_time("2026-06-01T12:00:00.000000Z")

ROOT = Authority.root("Archive CA")
SIGNER = ROOT.issue(subject=name("trace.archive.example", "Archive")).signer
TRUST = Trust.from_anchors([ROOT.pem])


def text(**changes: Any) -> str:
    """A signed text as the field's client writes it."""
    members = {"hash": HASH, "name": "a.zip", "size": 5, "event": "CREATE", **changes}
    return json.dumps(members, separators=(",", ":"))


def cdse(changes: dict[str, Any] | None = None, signer: Signer = SIGNER, **outer: Any) -> Trace:
    [trace] = parse_traces(json.dumps([signed_raw(text(**(changes or {})), signer, **outer)]).encode())
    return trace


def pinned(trace: Trace) -> Trust:
    """Trust in the very certificate that signed."""
    return Trust.from_anchors([load_der_x509_certificate(trace.certificate).public_bytes(Encoding.PEM)])


def kinds(trace: Trace, trust: Trust) -> set[type]:
    with pytest.raises(Refused) as refused:
        check_trace(trace, trust, NOW)
    return {type(fault) for fault in refused.value.faults}


A_ZIP = {"name": "a.zip", "size": 5}


@pytest.mark.parametrize("path", VECTORS, ids=lambda p: p.stem)
def test_the_fields_traces_are_read_without_a_fault(path: Path) -> None:
    for trace in parse_traces(path.read_bytes()):
        assert trace.faults == ()
        assert trace.statement.schema is None
        assert trace.statement.product is None


@pytest.mark.parametrize("path", SIGNED, ids=lambda p: p.stem)
def test_we_write_the_signed_text_byte_for_byte_as_the_field_does(path: Path) -> None:
    for trace in parse_traces(path.read_bytes()):
        assert serialise(trace.statement) == trace.message
        assert parse_traces(dumps([trace]).encode()) == [trace]


class TestRealProduction:
    def test_is_genuine_by_its_certificate_in_its_time(self) -> None:
        assert judge(REAL_FILE, [Evidence(REAL)], pinned(REAL), DURING).verdict is Verdict.GENUINE
        registered = judge(REAL_FILE, [Evidence(REAL, DURING)], pinned(REAL), AFTER)
        assert (registered.verdict, registered.time_source) == (Verdict.GENUINE, "registered")
        assert registered.subject == "CN=trace.dataspace.copernicus.eu"

    def test_is_expired_today_although_it_claims_an_earlier_time(self) -> None:
        assert REAL.claimed_timestamp == "2024-06-19T02:19:24.020063Z"
        assert judge(REAL_FILE, [Evidence(REAL)], pinned(REAL), AFTER).verdict is Verdict.EXPIRED

    def test_is_untrusted_without_an_anchor(self) -> None:
        assert judge(REAL_FILE, [Evidence(REAL)], TRUST, DURING).verdict is Verdict.UNTRUSTED

    def test_condemns_another_file_of_its_name_once_all_its_algorithms_are_tried(self) -> None:
        wrong = Candidate(file="x", base_name=REAL_FILE.base_name, size=REAL_FILE.size, hashes={"BLAKE3": OTHER})
        first = judge(wrong, [Evidence(REAL)], pinned(REAL), DURING)
        assert (first.verdict, first.missing) == (Verdict.UNDECIDED, {"SHA256", "SHA3"})
        every = {"BLAKE3": OTHER, "SHA256": OTHER, "SHA3": OTHER}
        complete = Candidate(file="x", base_name=wrong.base_name, size=wrong.size, hashes=every)
        assert judge(complete, [Evidence(REAL)], pinned(REAL), DURING).verdict is Verdict.TAMPERED
        shorter = Candidate(file="x", base_name=wrong.base_name, size=1, hashes={"BLAKE3": OTHER})
        assert judge(shorter, [Evidence(REAL)], pinned(REAL), DURING).verdict is Verdict.TAMPERED

    def test_tells_a_member_of_its_archive(self) -> None:
        content = (REAL.statement.contents or ())[0]
        base = content.path.rpartition("/")[2]
        member = Candidate(file=base, base_name=base, size=1, hashes={"BLAKE3": content.hash})
        assert judge(member, [Evidence(REAL)], pinned(REAL), DURING).member == content.path

    def test_is_of_a_member_of_a_federation_by_its_name(self) -> None:
        member = '[[member]]\nname = "CDSE"\nca = "ca"\nsubject = "DN:{}"\noutside = {}\n'
        pem = load_der_x509_certificate(REAL.certificate).public_bytes(Encoding.PEM)
        for subject, outside, expected in (
            ("CN=trace.dataspace.copernicus.eu", "true", Verdict.GENUINE),
            ("CN=trace.dataspace.copernicus.eu", "false", Verdict.UNTRUSTED),
            ("CN=www.example.org", "true", Verdict.UNTRUSTED),
        ):
            trust = Trust.from_federation(member.format(subject, outside), lambda _location: pem)
            assert judge(REAL_FILE, [Evidence(REAL)], trust, DURING).verdict is expected


class TestWeakPoints:
    """One test for each thing the field's client lets pass."""

    def test_a_self_signed_signer_is_untrusted(self) -> None:
        for path in SIGNED:
            for trace in parse_traces(path.read_bytes()):
                assert faults.UnknownIssuer in kinds(trace, TRUST)

    def test_an_authority_signs_no_trace_even_when_it_is_an_anchor(self) -> None:
        for vector in ("04-create-rsa", "05-create-ecdsa"):
            [trace] = parse_traces((CDSE / f"{vector}.json").read_bytes())
            assert faults.CaSigned in kinds(trace, pinned(trace))

    def test_an_unsigned_trace_is_never_genuine(self) -> None:
        [trace] = parse_traces((CDSE / "01-create-unsigned-blake3.json").read_bytes())
        candidate = file(trace.statement.hash, name="abc.txt", size=3)
        judgement = judge(candidate, [Evidence(trace)], TRUST, NOW)
        assert judgement.verdict is Verdict.UNTRUSTED
        assert {type(fault) for fault in judgement.faults} == {faults.Unsigned}

    @pytest.mark.parametrize("missing", ["signature", "certificate", "message"])
    def test_a_stripped_signature_is_never_genuine(self, missing: str) -> None:
        value = signed_raw(text(), SIGNER)
        value["signature"][missing] = ""
        [trace] = parse_traces(json.dumps(value).encode())
        assert judge(file(**A_ZIP), [Evidence(trace)], TRUST, NOW).verdict is Verdict.UNTRUSTED
        del value["signature"]
        [trace] = parse_traces(json.dumps(value).encode())
        assert judge(file(**A_ZIP), [Evidence(trace)], TRUST, NOW).verdict is Verdict.UNTRUSTED

    @pytest.mark.parametrize("path", ["09-zip-contents-all", "12-inputs"])
    def test_contents_and_inputs_are_held_to_the_signed_text(self, path: str) -> None:
        original = json.loads((CDSE / f"{path}.json").read_text())[0]
        key = "contents" if "contents" in path else "inputs"
        entries = original["product"][key]
        for changed in (entries[1:], entries[::-1], [*entries, entries[0]], []):
            original["product"][key] = changed
            [trace] = parse_traces(json.dumps(original).encode())
            assert {type(fault) for fault in trace.faults} == {faults.EnvelopeDiffers}

    def test_nothing_unsigned_is_believed(self) -> None:
        """The claimed algorithm, time, origin, id and reason change no verdict."""
        plain = cdse()
        for key, value in (
            ("hash_algorithm", "SHA3"),
            ("timestamp", "2020-01-01T00:00:00.000000Z"),
            ("origin", "somebody"),
            ("id", "7374c9be-84c5-4ea4-8b2b-b1e9b1a539d7"),
            ("obsolescence", "forged"),
        ):
            changed = cdse(**{key: value})
            assert judge(file(**A_ZIP), [Evidence(changed)], TRUST, NOW).verdict is Verdict.GENUINE
            assert changed.id == plain.id == changed.message_digest

    def test_a_withdrawn_trace_is_not_saved_by_another_unsigned_id(self) -> None:
        create = cdse(id="7374c9be-84c5-4ea4-8b2b-b1e9b1a539d7")
        revoke = made(SIGNER, Event.REVOKE, product=None, name="a.zip", size=5, revokes=create.id)
        renamed = cdse(id="00000000-0000-4000-8000-000000000000")
        for trace in (create, renamed):
            evidence = [Evidence(trace), Evidence(revoke)]
            assert judge(file(**A_ZIP), evidence, TRUST, NOW).verdict is Verdict.REVOKED

    def test_only_a_trusted_obsolete_counts(self) -> None:
        value = signed_raw(text(event="OBSOLETE"), SIGNER)
        value["signature"] = dict.fromkeys(("algorithm", "certificate", "message", "signature"), "")
        [unsigned] = parse_traces(json.dumps(value).encode())
        stranger = Authority.root("Stranger").issue().signer
        create, trusted = cdse(), cdse({"event": "OBSOLETE"})
        for trace in (unsigned, cdse({"event": "OBSOLETE"}, stranger)):
            assert judge(file(**A_ZIP), [Evidence(create), Evidence(trace)], TRUST, NOW).verdict is Verdict.GENUINE
        assert judge(file(**A_ZIP), [Evidence(create), Evidence(trusted)], TRUST, NOW).verdict is Verdict.OBSOLETE

    def test_the_algorithm_is_the_keys_not_the_authoritys(self) -> None:
        """An RSA signer below an ECDSA authority is verified as RSA."""
        signer = ROOT.issue(key=rsa.generate_private_key(65537, 2048)).signer
        assert judge(file(**A_ZIP), [Evidence(cdse(signer=signer))], TRUST, NOW).verdict is Verdict.GENUINE
        value = signed_raw(text(), signer)
        value["signature"]["algorithm"] = "ECDSA-SHA256"
        [wrong] = parse_traces(json.dumps(value).encode())
        assert kinds(wrong, TRUST) == {faults.WrongAlgorithm}

    def test_an_expired_certificate_is_expired_and_not_tampered(self) -> None:
        old = ROOT.issue(until=NOW - DAY).signer
        assert judge(file(**A_ZIP), [Evidence(cdse(signer=old))], TRUST, NOW).verdict is Verdict.EXPIRED

    def test_a_digest_of_nothing_verifies_no_file(self) -> None:
        """The field's client hashes a directory as the empty text."""
        value = signed_raw(text(hash=""), SIGNER, product={"name": "a.zip", "size": 5, "hash": HASH})
        [trace] = parse_traces(json.dumps(value).encode())
        assert {type(fault) for fault in trace.faults} == {faults.MessageUnreadable}


def test_unknown_keys_of_the_field_are_tolerated_and_listed() -> None:
    trace = cdse({"colour": "blue", "nested": {"a": [1]}})
    check_trace(trace, TRUST, NOW)
    assert trace.statement.extra == {"colour": "blue", "nested": {"a": [1]}}


def test_an_unsigned_field_that_the_text_does_sign_is_held_to_it() -> None:
    assert cdse({"hash_algorithm": "SHA3"}, hash_algorithm="BLAKE3").faults
    assert not cdse({"hash_algorithm": "BLAKE3"}, hash_algorithm="BLAKE3").faults


@pytest.mark.parametrize("algorithm", ["BLAKE3", "SHA256", "SHA3"])
def test_a_file_is_matched_by_whichever_algorithm_the_digest_is_of(algorithm: str) -> None:
    candidate = file(**A_ZIP, hashes={algorithm: HASH})
    assert judge(candidate, [Evidence(cdse())], TRUST, NOW).verdict is Verdict.GENUINE


def test_events_the_field_does_not_know_are_refused() -> None:
    for event in ("VERIFY", "REVOKE", "create", "MOVE"):
        value = signed_raw(text(event=event), SIGNER, event="CREATE")
        [trace] = parse_traces(json.dumps(value).encode())
        assert {type(fault) for fault in trace.faults} == {faults.MessageUnreadable}
