"""Traces in the words of others: of the Traceability Service, of W3C PROV, of STAC."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
from commands import lines, run
from jsonschema import Draft7Validator
from prov.model import ProvActivity, ProvAgent, ProvDocument, ProvEntity
from samples import HOUR, authority, batch, digest, line, product, signer, trace

from rucio_trace.cli.terminal import printable
from rucio_trace.digest import digest_file
from rucio_trace.envelope import Trace, dumps, parse_traces, to_json
from rucio_trace.exchange import cdse, prov
from rucio_trace.exchange.stac import MULTIHASH_CODES, multihash
from rucio_trace.store import Store
from rucio_trace.trace import HEX_DIGITS, Content, Event, Found, Input, Source

CDSE = Path(__file__).parent.parent / "vectors" / "cdse"

# What the service's API description says of a trace that is registered; `Trace` adds id, timestamp and origin.
_PART = {"type": "object", "required": ["hash"], "properties": {"hash": {"type": "string"}}}
_TEXT = {"type": "string"}
SERVICE = {
    "type": "object",
    "required": ["product", "event", "hash_algorithm", "signature"],
    "properties": {
        "event": {"enum": ["CREATE", "COPY", "DELETE", "OBSOLETE"]},
        "hash_algorithm": {"enum": ["BLAKE3", "SHA256", "SHA3"]},
        "obsolescence": _TEXT,
        "id": _TEXT,
        "timestamp": _TEXT,
        "origin": _TEXT,
        "product": {
            "type": "object",
            "required": ["name", "size", "hash"],
            "properties": {
                "name": _TEXT,
                "size": {"type": "integer"},
                "hash": _TEXT,
                "contents": {"type": "array", "items": {**_PART, "required": ["path", "hash"]}},
                "inputs": {"type": "array", "items": {**_PART, "required": ["name", "hash"]}},
            },
        },
        "signature": {
            "type": "object",
            "required": ["signature", "algorithm", "certificate", "message"],
            "properties": dict.fromkeys(("signature", "algorithm", "certificate", "message"), _TEXT),
        },
    },
}


def life() -> list[Trace]:
    """A product from its creation to its end, as every event tells it."""
    create = trace(
        Event.CREATE,
        inputs=(Input("l0", digest("l0")),),
        contents=(Content("a", digest("a")),),
        hashes={"MD5": "0" * 32},
    )
    copy = trace(Event.COPY, rse="RSE-B", source=Source("RSE-A", create.id), after=2 * HOUR)
    obsolete = trace(Event.OBSOLETE, replaced_by="file2", after=7 * HOUR)
    return [
        create,
        copy,
        trace(Event.VERIFY, after=3 * HOUR),
        trace(Event.CORRUPT, rse="RSE-B", found=Found(9, {"SHA256": digest("x")}), after=4 * HOUR),
        trace(Event.LOST, rse="RSE-C", after=5 * HOUR),
        trace(Event.DELETE, after=6 * HOUR),
        obsolete,
        trace(Event.REVOKE, revokes=obsolete.id, obsolescence="a mistake", after=8 * HOUR),
    ]


REAL = parse_traces((CDSE / "real-cdse-trace.json").read_bytes())


class TestService:
    def test_what_is_written_is_what_the_services_description_asks_for(self) -> None:
        validator = Draft7Validator(SERVICE)
        written = [cdse.for_service(t) for t in [*life(), *REAL] if cdse.unfit(t) is None]
        assert [w["event"] for w in written] == ["CREATE", "COPY", "DELETE", "OBSOLETE", "CREATE"]
        for one in written:
            validator.validate(one)

    @pytest.mark.skipif("RUCIO_TRACE_CDSE_OPENAPI" not in os.environ, reason="no description of the service at hand")
    def test_it_is_so_by_the_services_own_description(self) -> None:
        description = json.loads(Path(os.environ["RUCIO_TRACE_CDSE_OPENAPI"]).read_text())
        for name in ("RegisterTrace", "Trace"):
            validator = Draft7Validator({**description, "$ref": f"#/components/schemas/{name}"})
            for one in [*life(), *REAL]:
                if cdse.unfit(one) is None:
                    validator.validate(cdse.for_service(one))

    def test_what_the_service_has_no_words_for_is_told(self) -> None:
        told = {str(t.statement.event): cdse.unfit(t) for t in life()}
        assert {event for event, reason in told.items() if reason} == {"VERIFY", "CORRUPT", "LOST", "REVOKE"}
        of_sha512 = trace(Event.CREATE, hash="0" * 128, hash_algorithm="SHA512")
        assert "SHA512" in (cdse.unfit(of_sha512) or "")
        nameless = to_json(REAL[0])
        del nameless["hash_algorithm"]
        [unnamed] = parse_traces(json.dumps(nameless).encode())
        assert "not told" in (cdse.unfit(unnamed) or "")

    def test_reading_it_again_gives_the_same_traces(self) -> None:
        fit = [t for t in parse_traces(dumps([*life(), *REAL]).encode()) if cdse.unfit(t) is None]
        assert parse_traces(json.dumps([cdse.for_service(t) for t in fit]).encode()) == fit


class TestProv:
    def written(self, *traces: Trace) -> ProvDocument:
        text = json.dumps(prov.document(traces))
        read = ProvDocument.deserialize(content=text, format="json")
        again = ProvDocument.deserialize(content=read.serialize(format="json"), format="json")
        assert again == read
        return read

    def test_every_event_is_an_activity_of_its_signer(self) -> None:
        traces = life()
        read = self.written(*traces, *REAL)
        activities = {str(a.identifier): a for a in read.get_records(ProvActivity)}
        assert activities.keys() >= {f"rt:event-{t.id}" for t in [*traces, *REAL]}
        kinds = {str(t) for a in activities.values() for t in a.get_asserted_types()}
        assert kinds == {f"rt:{event}" for event in Event}
        [ours, theirs] = read.get_records(ProvAgent)
        assert {str(ours.identifier), str(theirs.identifier)} >= {f"rt:signer-{signer().fingerprint}"}

    def test_bytes_come_from_their_inputs_and_replicas_from_bytes(self) -> None:
        create, copy, *_ = life()
        read = self.written(create, copy)
        entities = {str(e.identifier) for e in read.get_records(ProvEntity)}
        made, source = f"rt:bytes-{create.statement.hash}", f"rt:bytes-{digest('l0')}"
        first, second = f"rt:replica-{create.id}", f"rt:replica-{copy.id}"
        assert entities == {made, source, first, second}
        written = prov.document([create, copy])
        derived = {(r["prov:generatedEntity"], r["prov:usedEntity"]) for r in written["wasDerivedFrom"].values()}
        assert derived == {(made, source), (second, first)}
        general = {(r["prov:specificEntity"], r["prov:generalEntity"]) for r in written["specializationOf"].values()}
        assert general == {(first, made), (second, made)}

    def test_what_ends_a_replica_is_told_and_nothing_is_generated_twice(self) -> None:
        traces = life()
        written = prov.document(traces)
        ended = {r["prov:activity"] for r in written["wasInvalidatedBy"].values()}
        assert ended == {f"rt:event-{t.id}" for t in traces if t.statement.event in ("CORRUPT", "LOST", "DELETE")}
        generated = [r["prov:entity"] for r in written["wasGeneratedBy"].values()]
        assert len(set(generated)) == len(generated)
        again = trace(Event.COPY, after=9 * HOUR)
        generated = [r["prov:entity"] for r in prov.document([*traces, again])["wasGeneratedBy"].values()]
        assert len(set(generated)) == len(generated)
        [withdrawn] = written["wasInformedBy"].values()
        assert withdrawn["prov:informant"] == f"rt:event-{traces[6].id}"

    def test_what_nobody_signed_is_not_told_as_true(self) -> None:
        [activity] = prov.document(REAL)["activity"].values()
        assert "prov:startTime" not in activity
        assert any(note.startswith("timestamp: 2024-06-19") for note in activity["rt:notSigned"])

    def test_nothing_is_a_document_too(self) -> None:
        assert list(self.written().get_records()) == []


class TestMultihash:
    def test_the_examples_of_the_specification(self) -> None:
        sha = hashlib.sha256(b"multihash").hexdigest()
        assert multihash("SHA256", sha) == "1220" + sha
        sha = hashlib.sha512(b"multihash").hexdigest()
        assert multihash("SHA512", sha) == "1340" + sha

    @pytest.mark.parametrize(
        ("algorithm", "prefix"),
        [("BLAKE3", "1e20"), ("SHA256", "1220"), ("SHA3", "1620"), ("SHA512", "1340"), ("MD5", "d50110")],
    )
    def test_code_and_length_stand_before_the_digest(self, algorithm: str, prefix: str) -> None:
        hexadecimal = "ab" * (HEX_DIGITS[algorithm] // 2)
        assert multihash(algorithm, hexadecimal) == prefix + hexadecimal
        assert algorithm in MULTIHASH_CODES


# ------------------------------------------------------------------------------------ command line


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "config.toml"
    file.write_text(f'[store]\nurl = "sqlite:///{tmp_path / "traces.db"}"\n')
    return file


def register(config: Path, *traces: Trace) -> None:
    with Store.open(f"sqlite:///{config.parent / 'traces.db'}") as store:
        assert {answer.outcome for answer in store.register(traces, trust=None)} == {"stored"}


def test_the_services_array_says_what_it_leaves_out(config: Path) -> None:
    traces = life()
    register(config, *traces)
    result = run("export", "test:file1", config=config, code=0)
    [written] = lines(result)
    assert [t["event"] for t in written] == ["CREATE", "COPY", "DELETE", "OBSOLETE"]
    assert result.stderr.count("left out") == 4


def test_an_export_imported_elsewhere_is_the_same(config: Path, tmp_path: Path) -> None:
    register(config, *life())
    (tmp_path / "export.json").write_text(run("export", "test:file1", config=config, code=0).stdout)
    (tmp_path / "ca.pem").write_bytes(authority().pem)
    other = tmp_path / "other.toml"
    other.write_text(f'[store]\nurl = "sqlite:///{tmp_path / "other.db"}"\n[trust]\nanchors = ["ca.pem"]\n')
    run("store", "migrate", config=other, code=0)
    told = lines(run("import", tmp_path / "export.json", "--json", config=other, code=0))
    assert [t["answer"] for t in told] == ["stored"] * 4
    again = run("export", "test:file1", config=other, code=0)
    assert again.stdout == (tmp_path / "export.json").read_text()


def test_stac_gets_checksum_size_and_links(config: Path) -> None:
    *until_obsolete, _revoke = life()
    register(config, *until_obsolete)
    service = ("--service", "https://trace.example/api/", "--items", "https://stac.example/items")
    [parts] = lines(run("export", "test:file1", "--format", "stac", *service, config=config, code=0))
    asset = parts["assets"]["product"]
    assert (asset["file:size"], asset["file:checksum"]) == (10, "1220" + digest("file1"))
    assert parts["properties"] == {"deprecated": True}
    assert {link["rel"]: link["href"] for link in parts["links"]} == {
        "version-history": "https://trace.example/api/v1/traces/name/file1",
        "successor-version": "https://stac.example/items/file2",
    }
    assert [e.rpartition("/v")[0].rpartition("/")[2] for e in parts["stac_extensions"]] == ["file", "version"]
    register(config, _revoke)
    [parts] = lines(run("export", "test:file1", "--format", "stac", config=config, code=0))
    assert (parts["properties"], parts["links"], len(parts["stac_extensions"])) == ({}, [], 1)


def test_what_is_said_of_a_product_under_another_digest_is_exported_with_it(config: Path, tmp_path: Path) -> None:
    file = tmp_path / "file1"
    file.write_bytes(b"x")
    digests = digest_file(file, ["BLAKE3", "SHA256"]).hashes
    create = trace(Event.CREATE, product(1), hash=digests["BLAKE3"], hash_algorithm="BLAKE3", size=1)
    obsolete = trace(Event.OBSOLETE, product(1), hash=digests["SHA256"], hash_algorithm="SHA256", size=1)
    register(config, create, obsolete)
    for asked in (file, create.id, "test:file1"):
        [parts] = lines(run("export", asked, "--format", "stac", config=config, code=0))
        assert parts["properties"] == {"deprecated": True}


def test_a_checksum_that_two_products_share_makes_them_not_one(config: Path) -> None:
    weak = {"hash": "0badcafe", "hash_algorithm": "ADLER32"}
    copies = [
        trace(Event.COPY, product(number), method="none", observed=None, size=number, **weak) for number in (1, 2)
    ]
    entities = prov.document(copies)["entity"]
    assert sorted(entity["rt:did"] for name, entity in entities.items() if "bytes" in name) == [
        "test:file1",
        "test:file2",
    ]


def test_an_algorithm_that_nobody_signed_gives_no_checksum(config: Path) -> None:
    register(config, *REAL)
    result = run("export", REAL[0].id, "--format", "stac", config=config, code=0)
    [parts] = lines(result)
    assert parts["assets"]["product"]["file:size"] == REAL[0].statement.size
    assert "file:checksum" not in parts["assets"]["product"]
    assert "no checksum" in result.stderr
    assert "not signed: id, timestamp, origin, hash_algorithm" in result.stderr


def test_traces_are_found_by_whatever_names_them(config: Path, tmp_path: Path) -> None:
    traces = life()
    register(config, *traces, *REAL)
    file = tmp_path / "file"
    file.write_bytes(b"x")
    [written] = lines(run("export", traces[0].id, config=config, code=0))
    assert {t["id"] for t in written} >= {traces[0].id, traces[1].id}  # of one trace, its product's
    for asked in ((REAL[0].statement.hash,), ("--digest", REAL[0].statement.hash.upper()), (REAL[0].id,)):
        [written] = lines(run("export", *asked, config=config, code=0))
        assert [t["id"] for t in written] == [REAL[0].claimed_id]
    assert lines(run("export", file, config=config, code=3)) == [[]]
    register(config, trace(Event.CREATE, product(5), hash=hashlib.sha256(b"x").hexdigest(), size=1))
    [written] = lines(run("export", file, config=config, code=0))
    assert written[0]["product"]["name"] == "file5"
    assert lines(run("export", "test:unknown", "test:file1", config=config, code=3))[0]
    run("export", config=config, code=2)


def test_hostile_names_are_written_harmlessly(config: Path) -> None:
    hostile = product(1, name="a\x1b[2J\u202e")
    register(config, trace(Event.CREATE, hostile))
    for form in ("cdse", "prov", "stac"):
        result = run("export", hostile.did, "--format", form, config=config, code=0)
        assert result.stdout.isascii()
        assert all(printable(line, limit=None) == line for line in result.stderr.splitlines())


def test_a_batch_is_told_as_a_look_at_its_list_and_at_no_replica() -> None:
    made = batch([line()])
    told = prov.document([made])
    assert [entity for entity in told["entity"] if "replica" in entity] == []
    assert list(told["activity"]) == [f"rt:event-{made.id}"]
    assert cdse.unfit(made) == "it knows no VERIFY"
