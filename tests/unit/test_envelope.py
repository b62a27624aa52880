"""Envelopes: what is beside the signed text must repeat it; no change goes unseen."""

import contextlib
import json
import random
from dataclasses import replace

import pytest
from authority import HASH, NOW, PRODUCT, Authority, declared, file, made, pem_of, statement
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rucio_trace.checking import Refused, check_trace
from rucio_trace.envelope import Signer, Trace, dumps, parse_traces, sign, to_json
from rucio_trace.errors import ConfigurationError, Malformed, Refuted, TraceabilityError
from rucio_trace.identity import Trust
from rucio_trace.keys import generate_key
from rucio_trace.trace import Content, Event, Input, Source, format_time
from rucio_trace.verify import Evidence, Verdict, judge

ROOT = Authority.root()
ISSUING = ROOT.below()
SIGNER = ISSUING.issue(uri="https://site-a.example/recorder").signer
RSA = ISSUING.issue(key=rsa.generate_private_key(65537, 2048)).signer
TRUST = Trust.from_anchors([ROOT.pem])
FULL = made(
    SIGNER,
    contents=(Content("a/b.jp2", HASH),),
    inputs=(Input("in", HASH),),
    hashes={"MD5": "0" * 32},
    attributes={"a": [1, None, "x"]},
)


@pytest.mark.parametrize("trace", [FULL, declared(RSA), made(SIGNER, Event.COPY, source=Source(None, None))])
def test_a_trace_reads_back_as_itself(trace: Trace) -> None:
    [again] = parse_traces(dumps([trace]).encode())
    assert (again.statement, again.message, again.signature, again.certificate, again.chain, again.algorithm) == (
        trace.statement,
        trace.message,
        trace.signature,
        trace.certificate,
        trace.chain,
        trace.algorithm,
    )
    assert again.faults == ()
    assert dumps([again]) == dumps([trace])
    check_trace(again, TRUST, NOW)


def test_a_single_object_is_read_as_well_as_an_array() -> None:
    assert len(parse_traces(json.dumps(to_json(FULL)).encode())) == 1
    assert len(parse_traces(dumps([FULL, FULL]).encode())) == 2
    assert parse_traces(b"[]") == []


def test_a_trace_is_restored_from_its_stored_parts() -> None:
    restored = Trace.restore(FULL.message, FULL.signature, FULL.certificate, FULL.chain)
    assert restored == FULL
    with pytest.raises(Malformed):
        Trace.restore("{}", FULL.signature, FULL.certificate)


def verdict(data: bytes) -> Verdict | None:
    """The verdict on the very file; None when no trace can be read."""
    try:
        traces = parse_traces(data)
    except Malformed:
        return None
    return judge(file(), [Evidence(trace) for trace in traces], TRUST, NOW).verdict


def test_the_unchanged_trace_is_genuine() -> None:
    assert verdict(dumps([FULL]).encode()) is Verdict.GENUINE


def test_no_flipped_byte_is_genuine() -> None:
    """Every byte of the text, each with one bit and one random value."""
    data = bytearray(dumps([FULL]).encode())
    chance = random.Random(1)  # noqa: S311 - damage, not a secret
    for position, byte in enumerate(bytes(data)):
        for changed in (byte ^ 1 << chance.randrange(8), chance.randrange(256)):
            if changed == byte:
                continue
            data[position] = changed
            assert verdict(bytes(data)) is not Verdict.GENUINE, (position, chr(byte), chr(changed))
        data[position] = byte


def test_no_bit_of_an_intermediate_can_be_changed() -> None:
    """The count of unused bits of its signature is under no signature; half of all signatures end in an even byte."""
    issuing = next(i for i in (ROOT.below() for _ in range(1_000)) if i.certificate.signature[-1] % 2 == 0)
    trace = made(issuing.issue().signer)
    assert verdict(dumps([trace]).encode()) is Verdict.GENUINE
    (der,) = trace.chain
    for position in range(len(der)):
        for bit in range(8):
            changed = bytearray(der)
            changed[position] ^= 1 << bit
            assert verdict(dumps([replace(trace, chain=(bytes(changed),))]).encode()) is not Verdict.GENUINE, position


def test_no_dropped_and_no_doubled_byte_is_genuine() -> None:
    data = dumps([FULL]).encode()
    for position in range(len(data)):
        assert verdict(data[:position] + data[position + 1 :]) is not Verdict.GENUINE, position
        if data[position : position + 1] not in b"[]{}":
            doubled = data[:position] + data[position : position + 1] + data[position:]
            assert verdict(doubled) is not Verdict.GENUINE, position


@settings(max_examples=200)
@given(st.data())
def test_no_random_damage_is_genuine(data: st.DataObject) -> None:
    whole = dumps([FULL]).encode()
    text = bytearray(whole)
    start = data.draw(st.integers(0, len(text) - 1))
    junk = data.draw(st.binary(min_size=0, max_size=20).filter(lambda b: b.strip()))
    text[start : start + data.draw(st.integers(1, 200))] = junk
    assume(text != whole)
    assert verdict(bytes(text)) is not Verdict.GENUINE


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda t: t.encode("utf-8", "surrogatepass")))
def test_only_our_errors_escape_from_any_bytes(data: bytes) -> None:
    with contextlib.suppress(TraceabilityError):
        parse_traces(data)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


@settings(max_examples=300)
@given(st.data())
def test_only_our_errors_escape_from_any_value_in_any_place(data: st.DataObject) -> None:
    outer = to_json(FULL)
    part = data.draw(st.sampled_from([outer, outer["product"], outer["signature"]]))
    part[data.draw(st.sampled_from(sorted(part)))] = data.draw(values)
    text = json.dumps([outer]).encode("utf-8", "surrogatepass")
    if json.loads(text) != [to_json(FULL)]:
        assert verdict(text) is not Verdict.GENUINE


@settings(max_examples=300)
@given(st.integers(0, 10_000), st.integers(0, 255))
def test_only_our_errors_escape_from_a_damaged_certificate(position: int, value: int) -> None:
    certificate = bytearray(FULL.certificate)
    certificate[position % len(certificate)] = value
    if bytes(certificate) == FULL.certificate:
        return
    trace = Trace(
        statement=FULL.statement,
        message=FULL.message,
        signature=FULL.signature,
        certificate=bytes(certificate),
        chain=FULL.chain,
        algorithm=FULL.algorithm,
    )
    with pytest.raises(Refused):
        check_trace(trace, TRUST, NOW)


def test_a_bad_trace_does_not_hide_a_good_one() -> None:
    bad = to_json(FULL)
    bad["signature"]["message"] = "{"
    text = json.dumps([bad, to_json(FULL)]).encode()
    assert verdict(text) is Verdict.GENUINE


def test_the_size_limit_is_the_callers() -> None:
    many = dumps([FULL] * 3).encode()
    with pytest.raises(Malformed, match="at most"):
        parse_traces(many, max_bytes=len(many) - 1)
    assert len(parse_traces(many, max_bytes=len(many))) == 3


def test_array_order_is_kept() -> None:
    paths = [f"{n % 7}/{n}" for n in range(50)]
    trace = made(SIGNER, contents=tuple(Content(path, HASH) for path in paths))
    [again] = parse_traces(dumps([trace]).encode())
    assert [content.path for content in again.statement.contents or ()] == paths
    value = to_json(trace)
    value["product"]["contents"].reverse()
    assert parse_traces(json.dumps(value).encode())[0].faults


class TestSigner:
    def test_signs_only_as_itself(self) -> None:
        with pytest.raises(Refuted, match="signer"):
            sign(statement(RSA), SIGNER)

    def test_signs_only_within_the_life_of_its_certificate(self) -> None:
        for time in ("2025-06-01T12:00:00.000000Z", "2027-06-01T12:00:00.000000Z"):
            with pytest.raises(Refuted, match="time"):
                sign(statement(SIGNER, time=time), SIGNER)

    def test_signs_no_statement_that_breaks_a_rule(self) -> None:
        with pytest.raises(Malformed):
            sign(statement(SIGNER, name="another.zip"), SIGNER)
        with pytest.raises(Malformed):
            sign(statement(SIGNER, schema=None), SIGNER)

    def test_refuses_a_key_that_is_not_the_certificates(self) -> None:
        with pytest.raises(ConfigurationError, match="another key"):
            Signer.load(generate_key(), ISSUING.issue().pem)

    def test_refuses_keys_no_verifier_accepts(self) -> None:
        for key in (ec.generate_private_key(ec.SECP384R1()), ed25519.Ed25519PrivateKey.generate()):
            pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            with pytest.raises(ConfigurationError, match="P-256"):
                Signer.load(pem, ISSUING.issue(key=key).pem)

    def test_refuses_certificates_no_verifier_accepts(self) -> None:
        with pytest.raises(ConfigurationError, match="digitalSignature"):
            Signer.load(pem_of(ISSUING.key), ISSUING.pem)
        mute = ISSUING.issue(key_usage=None)
        with pytest.raises(ConfigurationError, match="digitalSignature"):
            Signer.load(pem_of(mute.key), mute.pem)

    def test_refuses_what_is_no_key_and_no_certificate(self) -> None:
        with pytest.raises(ConfigurationError):
            Signer.load(b"junk", ISSUING.issue().pem)
        with pytest.raises(ConfigurationError):
            Signer.load(generate_key(), b"junk")

    def test_opens_an_encrypted_key_with_its_password(self) -> None:
        key = generate_key(b"secret")
        with pytest.raises(ConfigurationError):
            Signer.load(key, ISSUING.issue().pem)
        with pytest.raises(ConfigurationError, match="another key"):
            Signer.load(key, ISSUING.issue().pem, b"secret")

    def test_tells_its_names_and_life(self) -> None:
        assert SIGNER.uris == ("https://site-a.example/recorder",)
        assert SIGNER.not_before < NOW < SIGNER.not_after
        assert len(SIGNER.fingerprint) == 64


def test_the_id_of_a_trace_is_signed() -> None:
    assert FULL.id == FULL.statement.event_id
    assert FULL.statement.product == PRODUCT
    assert format_time(NOW) > (FULL.statement.time or "")
