"""Batches: one signature for many replicas, and proofs of single ones."""

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from authority import DAY, HASH, NOW, OTHER, PRODUCT, Authority, declared, made
from hypothesis import given
from hypothesis import strategies as st

from rucio_trace.batch import (
    MAX_LIST_BYTES,
    Line,
    LineProof,
    check_line,
    check_list,
    list_fields,
    list_name,
    parse_proof,
    product_of,
    proof_to_json,
    read_lines,
    write_line,
    write_lines,
)
from rucio_trace.checking import check_trace
from rucio_trace.envelope import Signer, Trace, parse_traces
from rucio_trace.errors import Malformed, Refuted
from rucio_trace.history import history_of, standing
from rucio_trace.identity import Trust
from rucio_trace.joining import join
from rucio_trace.merkle import prove_inclusion
from rucio_trace.statement import MAX_LINES, Event, Source, format_time, new_event_id
from rucio_trace.verify import Candidate, Evidence, Verdict, judge

VECTORS = Path(__file__).parent.parent / "vectors"
SITE = Authority.root().issue().signer

times = st.datetimes().map(lambda moment: format_time(moment.replace(tzinfo=NOW.tzinfo)))
names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs", "Cn"]), min_size=1, max_size=30)
line_lists = st.lists(
    st.builds(
        Line,
        did=names.map(lambda name: f"s:{name}"),
        generation=times,
        digest=st.sampled_from([f"BLAKE3:{HASH}", f"SHA512:{HASH}{OTHER}", f"SHA256:{OTHER}"]),
        time=times,
    ),
    min_size=1,
    max_size=20,
    unique_by=lambda line: (line.did, line.generation),
)


def a_line(number: int = 0, **changes: str) -> Line:
    line = Line(f"s2:file{number}.zip", PRODUCT.generation, f"BLAKE3:{HASH}", format_time(NOW - 2 * DAY))
    return replace(line, **changes)


def a_batch(data: bytes, signer: Signer = SITE, event: Event = Event.VERIFY, **changes: Any) -> Trace:
    fields = {"name": list_name("SITE-A_DISK", format_time(NOW - DAY)), **list_fields(data)}
    nothing = {"did": None, "generation": None, "observed": None}
    return made(signer, event, **{**fields, **nothing, **changes})


def proof_of(lines: list[Line], index: int) -> LineProof:
    leaves = [write_line(line) for line in lines]
    return LineProof(a_batch(write_lines(lines)), lines[index], index, prove_inclusion(leaves, index))


# ---------------------------------------------------------------------------------- the list


@given(line_lists)
def test_a_list_reads_back_as_itself(lines: list[Line]) -> None:
    data = write_lines(lines)
    assert read_lines(data) == tuple(lines)
    assert data.count(b"\n") == len(lines)
    assert not any(byte < 32 for byte in data.replace(b"\n", b""))


def test_a_line_is_what_the_document_shows() -> None:
    assert write_line(a_line(did="s:a & \u2028\n\x7f.zip")) == (
        b'{"did":"s:a \\u0026 \\u2028\\n\x7f.zip","generation":"2026-05-22T12:00:00.000000Z",'
        b'"digest":"BLAKE3:' + HASH.encode() + b'","time":"2026-05-30T12:00:00.000000Z"}'
    )


GOOD = write_line(a_line())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        GOOD,
        GOOD + b"\n\n",
        b"\n" + GOOD + b"\n",
        GOOD + b"\r\n",
        b"\xef\xbb\xbf" + GOOD + b"\n",
        GOOD.replace(b":", b": ", 1) + b"\n",
        GOOD.replace(b"s2", b"s\\u0032") + b"\n",
        GOOD.replace(b"file", b"f&le") + b"\n",
        GOOD.replace(b'"did"', b'"DID"') + b"\n",
        GOOD[:-1] + b',"x":1}\n',
        GOOD[:-1] + b',"did":"s2:b"}\n',
        GOOD + b"," + GOOD + b"\n",
        GOOD.replace(b"}", b"},", 1) + b"\n" + GOOD.replace(b"file0", b"file1") + b"\n",
        GOOD + b"\n" + GOOD + b"\n",
        b"[]\n",
        b"1\n",
        b"null\n",
        json.dumps(dict(reversed(json.loads(GOOD).items())), separators=(",", ":")).encode() + b"\n",
        GOOD.replace(b"BLAKE3", b"ADLER32") + b"\n",
        GOOD.replace(b"BLAKE3:", b"") + b"\n",
        GOOD.replace(HASH.encode(), HASH[:-2].encode()) + b"\n",
        GOOD.replace(HASH.encode(), HASH.upper().encode()) + b"\n",
        GOOD.replace(b"s2:", b"") + b"\n",
        GOOD.replace(b"2026-05-30", b"2026-02-30") + b"\n",
        GOOD.replace(b"file0", b"\xff") + b"\n",
        GOOD.replace(b"file0", b"\\ud800") + b"\n",
        GOOD.replace(b"file0", b"\\u0000") + b"\n",
        b"[" * 100_000 + b"\n",
        b"\n" * (MAX_LINES + 1),
        b"x" * (MAX_LIST_BYTES + 1),
    ],
    ids=lambda data: repr(data[:40]),
)
def test_a_list_in_any_other_spelling_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        read_lines(data)


def test_a_list_holds_ten_thousand_lines_and_no_more() -> None:
    lines = [a_line(number) for number in range(MAX_LINES + 1)]
    assert len(read_lines(write_lines(lines[:-1]))) == MAX_LINES
    with pytest.raises(Malformed, match="lines"):
        write_lines(lines)
    with pytest.raises(Malformed):
        write_lines([])


def test_no_mangled_list_agrees_with_its_statement() -> None:
    data = write_lines([a_line(0), a_line(1)])
    s = a_batch(data).statement
    assert check_list(s, data) == (a_line(0), a_line(1))
    for at in range(len(data)):
        for mangled in (data[:at] + data[at + 1 :], data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]):
            with pytest.raises(Refuted):
                check_list(s, mangled)


@pytest.mark.parametrize(
    "wrong", [{"size": 5}, {"hash": OTHER}, {"batch": ("count", 3)}, {"batch": ("root", OTHER)}], ids=repr
)
def test_a_statement_that_says_otherwise_is_refused(wrong: dict[str, Any]) -> None:
    data = write_lines([a_line(0), a_line(1)])
    fields = list_fields(data)
    if "batch" in wrong:
        wrong = {"batch": replace(fields["batch"], **dict([wrong["batch"]]))}
    with pytest.raises(Refuted, match=next(iter(wrong))):
        check_list(a_batch(data, **wrong).statement, data)


def test_a_line_younger_than_its_statement_is_refused() -> None:
    late = a_line(time=format_time(NOW - DAY + timedelta(microseconds=1)))
    data = write_lines([late])
    with pytest.raises(Refuted, match="time"):
        check_list(a_batch(data).statement, data)
    with pytest.raises(Refuted, match="time"):
        check_line(proof_of([late], 0))


def test_a_signer_of_a_list_that_is_none_is_refused() -> None:
    data = GOOD + b"\n" + GOOD + b"\n"
    with pytest.raises(Malformed, match="every product once"):
        check_list(a_batch(data).statement, data)


def test_a_statement_of_one_product_has_no_list() -> None:
    with pytest.raises(Refuted):
        check_list(made(SITE, Event.VERIFY).statement, GOOD + b"\n")


def test_a_line_names_a_product_of_the_statements_rucio() -> None:
    data = write_lines([a_line()])
    assert product_of(a_batch(data).statement, a_line()) == replace(PRODUCT, name="file0.zip")
    assert product_of(a_batch(data, vo="atl").statement, a_line()).vo == "atl"


# ------------------------------------------------------------------------------------- proofs


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_every_line_has_a_proof(count: int) -> None:
    lines = [a_line(number) for number in range(count)]
    for index in range(count):
        proof = proof_of(lines, index)
        assert parse_proof(json.dumps(proof_to_json(proof)).encode()) == replace(
            proof,
            trace=replace(
                proof.trace,
                claimed_id=proof.trace.id,
                claimed_timestamp=proof.trace.statement.time,
                claimed_origin="SITE-A",
                claimed_hash_algorithm="BLAKE3",
            ),
        )
        assert check_line(proof) == lines[index]


def test_a_proof_of_another_line_place_or_path_is_refused() -> None:
    lines = [a_line(number) for number in range(5)]
    proof = proof_of(lines, 2)
    wrong: list[dict[str, Any]] = [
        {"line": lines[3]},
        {"line": replace(lines[2], digest=f"BLAKE3:{OTHER}")},
        {"line": replace(lines[2], time=format_time(NOW - DAY))},
        {"index": 3},
        {"index": 7},
        {"path": proof.path[:-1]},
        {"path": (*proof.path, proof.path[0])},
        {"path": (b"\0" * 32, *proof.path[1:])},
        {"trace": a_batch(write_lines(lines[1:]))},
        {"trace": made(SITE, Event.VERIFY)},
    ]
    for changes in wrong:
        with pytest.raises(Refuted):
            check_line(replace(proof, **changes))


@pytest.mark.parametrize(
    "change",
    [
        {"index": -1},
        {"index": True},
        {"index": 1.0},
        {"index": "1"},
        {"path": "00"},
        {"path": ["00"]},
        {"path": [HASH.upper()]},
        {"path": [HASH] * 65},
        {"line": None},
        {"line": {}},
        {"more": 1},
    ],
    ids=repr,
)
def test_what_is_no_proof_is_not_read(change: dict[str, Any]) -> None:
    value = proof_to_json(proof_of([a_line(0), a_line(1)], 1)) | change
    with pytest.raises(Malformed):
        parse_proof(json.dumps(value).encode())


def test_a_proof_whose_trace_is_none_is_refused() -> None:
    for trace in (None, {}, {"event": "VERIFY"}):
        value = proof_to_json(proof_of([a_line(0)], 0)) | {"trace": trace}
        with pytest.raises(Refuted):
            check_line(parse_proof(json.dumps(value).encode()))


def test_the_proof_among_the_vectors_holds() -> None:
    proof = parse_proof((VECTORS / "batch" / "proof.json").read_bytes())
    [trace] = parse_traces((VECTORS / "valid" / "verify-batch.json").read_bytes())
    [path] = (VECTORS / "batch").glob("*.jsonl")
    assert path.name == trace.statement.name
    assert check_list(trace.statement, path.read_bytes())[1] == check_line(proof)
    assert proof.trace.message == trace.message


# ----------------------------------------------------------- a batch says nothing of any product


@pytest.fixture(scope="module")
def federation() -> tuple[Trust, Signer, Signer]:
    """A site with an RSE and no other right, and another that may speak outside Rucio too."""
    root = Authority.root()
    member = '[[member]]\nname = "{}"\nca = ["ca"]\nsubject = "URI:https://{}/*"\nrses = ["SITE-{}_*"]\noutside = {}\n'
    text = 'name = "F"\n' + member.format("A", "a", "A", "false") + member.format("B", "b", "B", "true")
    trust = Trust.from_federation(text, lambda _: root.pem)
    return trust, root.issue(uri="https://a/x").signer, root.issue(uri="https://b/x").signer


def test_the_list_itself_is_genuine(federation: tuple[Trust, Signer, Signer]) -> None:
    trust, site, _ = federation
    data = write_lines([a_line()])
    trace = a_batch(data, site)
    s = trace.statement
    candidate = Candidate(file=s.name, base_name=s.name, size=len(data), hashes={"BLAKE3": s.hash})
    assert judge(candidate, [Evidence(trace)], trust, NOW).verdict is Verdict.GENUINE
    changed = replace(candidate, hashes={"BLAKE3": OTHER})
    assert judge(changed, [Evidence(trace)], trust, NOW).verdict is Verdict.TAMPERED


def test_a_batch_never_makes_a_file_of_its_lines_genuine_nor_condemns_it(
    federation: tuple[Trust, Signer, Signer],
) -> None:
    trust, site, _ = federation
    trace = a_batch(write_lines([a_line()]), site)
    for digest in (HASH, OTHER):
        candidate = Candidate(file="file0.zip", base_name="file0.zip", size=5, hashes={"BLAKE3": digest})
        assert judge(candidate, [Evidence(trace)], trust, NOW).verdict is Verdict.UNKNOWN


def test_a_batch_joins_no_product() -> None:
    """Somebody keeps lists in Rucio, and a COPY of one names the batch as what it was before."""
    data = write_lines([a_line()])
    trace = a_batch(data)
    s = trace.statement
    product = replace(PRODUCT, name=s.name)
    copy = made(SITE, Event.COPY, product=product, name=s.name, size=s.size, hash=s.hash, source=Source(None, trace.id))
    assert join([copy], [trace]) == []
    assert history_of([copy]).origin is copy


def test_only_who_signed_a_batch_withdraws_it_and_nothing_else_by_that(
    federation: tuple[Trust, Signer, Signer],
) -> None:
    trust, site, other = federation
    data = write_lines([a_line()])
    batch = a_batch(data, site)

    def revoke(signer: Signer, **changes: Any) -> Trace:
        return a_batch(
            data, signer, Event.REVOKE, **{"rse": "SITE-A_DISK", "method": None, "revokes": batch.id, **changes}
        )

    def withdrawn(by: Trace, what: Trace = batch) -> bool:
        return bool(standing([what, by], lambda trace: trace.certificate.hex())[1])

    own = revoke(site)
    assert check_trace(own, trust, NOW).member == "A"
    assert withdrawn(own)
    assert not withdrawn(revoke(other))
    assert not withdrawn(revoke(site, rse="SITE-A_TAPE"))
    assert not withdrawn(revoke(site, batch=replace(batch.statement.batch, root=OTHER)))  # type: ignore[type-var]
    outside = made(other, Event.REVOKE, product=None, revokes=batch.id, name="x", hash=batch.statement.hash)
    assert not withdrawn(outside)
    # By the right to its RSE alone a site reaches no file outside Rucio, and no product.
    for target in (made(site, product=None, hash=batch.statement.hash), declared(site)):
        assert not withdrawn(replace_revoked(own, target), target)


def test_the_revoke_of_a_batch_tells_no_method() -> None:
    """Nobody looked at any byte for it."""
    with pytest.raises(Malformed, match="method"):
        a_batch(write_lines([a_line()]), event=Event.REVOKE, revokes=new_event_id(), method="read", rse="SITE-A_DISK")


def replace_revoked(revoke: Trace, target: Trace) -> Trace:
    return replace(revoke, statement=replace(revoke.statement, revokes=target.id))
