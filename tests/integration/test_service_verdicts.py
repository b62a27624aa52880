"""Verdicts on many files at once, which are those on one file at a time."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from samples import HOUR, START, digest, product, signer, statement, trace
from service_in_process import TRUST, Asked, add, asked
from unit.authority import Authority

from rucio_trace.envelope import Signer, Trace, sign
from rucio_trace.identity import Trust
from rucio_trace.service.native.verdicts import judge_many
from rucio_trace.statement import Content, Event
from rucio_trace.store import Store
from rucio_trace.verify import Candidate, Evidence, Question, Verdict, check_evidence, judge

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

API = "/api/v2/verdicts"
NOW = datetime.now(UTC)
STRANGERS = Authority.root("Strangers", since=START - 30 * 24 * HOUR, until=START + 365 * 24 * HOUR)


@lru_cache
def stranger() -> Signer:
    return STRANGERS.issue("stranger", since=START - 30 * 24 * HOUR, until=START + 365 * 24 * HOUR).signer


@pytest.fixture
def service(store_url: str) -> Iterator[Asked]:
    with asked(store_url) as service:
        yield service


def verdicts(service: Asked, *items: dict[str, str], **options: Any) -> list[str]:
    return [told["verdict"] for told in service.post(API, {"items": items}, **options)["verdicts"]]


def test_one_verdict_each_by_digest_name_and_did(service: Asked) -> None:
    key = product()
    created = trace(Event.CREATE, key, rse=None)
    add(service.store, created, trace(Event.CREATE, product(2), bytes_of="two"))
    answer = service.post(
        API, {"items": [{"digest": digest("file1").upper(), "name": "/data/file1"}, {"name": "none"}]}
    )
    good, unknown = answer["verdicts"]
    assert (good["verdict"], good["exit_code"], good["trace"]) == ("GENUINE", 0, created.id)
    assert good["product"] == {"rucio": "RUCIO", "vo": "def", "did": key.did, "generation": key.generation}
    assert (good["time_source"], good["missing"], good["faults"]) == ("registered", [], [])
    assert (unknown["verdict"], unknown["exit_code"], unknown["product"]) == ("UNKNOWN", 3, None)
    sha256 = {"digest": f"SHA256:{digest('file1')}"}
    for item, expected in (
        ({"name": "file1"}, "GENUINE"),
        ({"did": key.did}, "GENUINE"),
        ({"digest": digest("file1")}, "GENUINE"),
        (sha256, "GENUINE"),
        ({"digest": digest("file1"), "did": key.did}, "GENUINE"),
        ({"digest": digest("file1"), "name": "renamed"}, "GENUINE"),
        ({"digest": digest("file1"), "name": "file2"}, "TAMPERED"),
        ({"digest": digest("file1"), "did": "test:file2"}, "TAMPERED"),
        ({"digest": digest("x"), "name": "file1"}, "UNDECIDED"),
        ({"digest": f"SHA256:{digest('x')}", "name": "file1"}, "TAMPERED"),
        ({"digest": f"BLAKE3:{digest('file1')}", "name": "file1"}, "UNDECIDED"),
        ({"digest": digest("x")}, "UNKNOWN"),
        ({"did": "test:none"}, "UNKNOWN"),
        ({"digest": "0" * 128, "name": "none"}, "UNKNOWN"),
    ):
        assert verdicts(service, item) == [expected], item


def test_what_is_no_question_is_refused(service: Asked) -> None:
    for item in (
        {},
        {"digest": "xyz"},
        {"digest": "0" * 32},
        {"digest": "SHA512:" + "0" * 64},
        {"did": "x"},
        {"n": "x"},
    ):
        service.post(API, {"items": [item]}, 422)
    service.post(API, {"items": [{"name": "x"}] * 10_001}, 422)
    assert verdicts(service, {"name": "a\udcffb"}) == ["UNKNOWN"]
    assert verdicts(service) == []


def test_several_products_of_one_name_are_listed_and_not_judged(service: Asked) -> None:
    one, other = product(scope="a"), product(scope="b")
    add(service.store, trace(Event.CREATE, one, rse=None), trace(Event.CREATE, other, rse=None, bytes_of="other"))
    (told,) = service.post(API, {"items": [{"name": "file1"}]})["verdicts"]
    assert told["verdict"] == "UNDECIDED"
    assert {fault["found"].split(" of ")[0] for fault in told["faults"]} == {"a:file1", "b:file1"}
    assert verdicts(service, {"did": "a:file1"}, {"did": "b:file1"}) == ["GENUINE", "GENUINE"]
    add(service.store, trace(Event.CREATE, product(2, scope="a")), trace(Event.CREATE, product(2, scope="b")))
    assert verdicts(service, {"name": "file2"}) == ["GENUINE"]  # the same bytes


def test_names_of_products_that_are_no_longer_good(service: Asked) -> None:
    withdrawn, old, gone = (trace(Event.CREATE, product(n), rse=None) for n in (1, 2, 3))
    rivals = [trace(Event.CREATE, product(4), rse=None, bytes_of=name) for name in "ab"]
    add(service.store, withdrawn, old, gone, *rivals)
    add(service.store, trace(Event.REVOKE, product(1), revokes=withdrawn.id), trace(Event.OBSOLETE, product(2)))
    add(service.store, trace(Event.DELETE, product(3)), trace(Event.DELETE, product(5)))
    items = [{"name": f"file{n}"} for n in range(1, 6)]
    assert verdicts(service, *items) == ["REVOKED", "OBSOLETE", "GENUINE", "DISPUTED", "UNKNOWN"]


def test_a_member_is_known_by_its_digest(service: Asked) -> None:
    add(service.store, trace(Event.CREATE, contents=(Content("a/member", digest("member")),)))
    told = service.post(API, {"items": [{"digest": digest("member"), "name": "member"}, {"digest": digest("member")}]})
    assert [(t["verdict"], t["member"]) for t in told["verdicts"]] == [("GENUINE", "a/member")] * 2


def test_the_right_digest_by_another_algorithm_condemns_nothing(service: Asked) -> None:
    add(service.store, trace(Event.CREATE, rse=None), trace(Event.CREATE, product(2), rse=None))
    blake3 = "b" * 64
    (told,) = service.post(API, {"items": [{"digest": blake3, "name": "file1"}]})["verdicts"]
    assert (told["verdict"], told["missing"]) == ("UNDECIDED", ["SHA256"])
    assert verdicts(service, {"digest": f"BLAKE3:{blake3}", "name": "file1"}) == ["UNDECIDED"]
    assert verdicts(service, {"digest": f"SHA256:{blake3}", "name": "file1"}) == ["TAMPERED"]
    assert verdicts(service, {"digest": digest("file2"), "name": "file1"}) == ["TAMPERED"], "its algorithm is known"
    assert verdicts(service, {"digest": blake3, "did": "test:file1"}) == ["UNDECIDED"]


def test_asking_for_all_members_of_an_archive_takes_time_that_grows_with_them() -> None:
    members = tuple(Content(f"dir/{n}", digest(str(n % 2))) for n in range(8_000))
    checked = check_evidence([Evidence(trace(Event.CREATE, contents=members), NOW)], TRUST, NOW)
    begun = time.process_time()
    for content in members:
        for name in (None, "7999"):
            told = checked.ask(Question(digest=content.hash, name=name))
            assert told.verdict is Verdict.GENUINE or name
    assert time.process_time() - begun < 5  # a look at all members for each takes a minute


def test_a_service_that_trusts_nobody_cannot_judge(store_url: str) -> None:
    with asked(store_url, None) as service:
        service.post(API, {"items": [{"name": "x"}]}, 503)


def test_strangers_make_nothing_genuine_and_are_told_with_their_own_file_alone(service: Asked) -> None:
    service.store.register([trace(Event.CREATE, product(1)), trace(Event.CREATE, product(2))], trust=TRUST)
    with asked(service.store.shown.replace("***", ""), Trust.from_anchors([])) as distrusting:
        told = distrusting.post(API, {"items": [{"name": "file1"}, {"digest": digest("file2")}]})["verdicts"]
    assert [t["verdict"] for t in told] == ["UNTRUSTED", "UNTRUSTED"]
    assert [len(t["faults"]) for t in told] == [1, 1]


def test_what_does_not_count_turns_no_verdict_of_the_copernicus_api_either(service: Asked) -> None:
    by = stranger()
    other = sign(statement(Event.CREATE, product(), signer=by.fingerprint, rse=None, size=11), by)
    service.store.register([other], trust=None)
    add(service.store, trace(Event.CREATE, rse=None))
    assert verdicts(service, {"digest": digest("file1"), "name": "file1"}) == ["GENUINE"]
    answer = service.get("/api/v1/traces/file1/validate", filehash=digest("file1"))
    assert answer["success"], answer


def test_private_traces_judge_nothing_for_others(service: Asked) -> None:
    add(service.store, trace(Event.CREATE, rse=None), provider="SECRET")
    assert verdicts(service, {"name": "file1"}) == ["UNKNOWN"]
    assert verdicts(service, {"name": "file1"}, token="secret") == ["GENUINE"]


def test_too_much_evidence_for_one_file_costs_that_one_alone(service: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    """There may be too many traces of it, or too long ones."""
    made = [*(trace(Event.COPY, product(1), rse=f"R{n}") for n in range(6)), trace(Event.CREATE, product(2))]
    add(service.store, *made)
    longest = max(len(each.message) for each in made)
    for bound, most in (("evidence.MAX_TRACES", 4), ("read.WHOLE_CHARACTERS", 4 * longest)):
        with monkeypatch.context() as bounded:
            bounded.setattr(f"rucio_trace.store.{bound}", most)
            told = service.post(API, {"items": [{"name": "file1"}, {"name": "file2"}, {"name": "file3"}]})["verdicts"]
        assert [t["verdict"] for t in told] == ["UNDECIDED", "GENUINE", "UNKNOWN"]
        assert told[0]["faults"][0]["kind"] == "TooMuchEvidence"


def test_of_one_request_no_more_traces_are_read_than_of_one_file(
    service: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(service.store, *(trace(Event.COPY, product(n), rse=f"R{m}") for n in range(1, 5) for m in range(3)))
    monkeypatch.setattr("rucio_trace.store.evidence.MAX_TRACES", 7)
    items = [{"name": f"file{n}"} for n in range(1, 5)]
    assert verdicts(service, *items) == ["GENUINE", "GENUINE", "UNDECIDED", "UNDECIDED"]
    assert verdicts(service, *items[:2], *items[:2], *items[:2]) == ["GENUINE"] * 6, "the same costs once"
    assert verdicts(service, *items[2:]) == ["GENUINE"] * 2


# ------------------------------------------------------------------------------------- one by one, at random

NUMBERS = st.integers(1, 3)


@st.composite
def worlds(draw: st.DrawFn) -> list[Trace]:
    """Traces of a few products, which share names and bytes; some by a stranger, some withdrawn."""
    made: list[Trace] = []
    for _ in range(draw(st.integers(0, 9))):
        key = product(
            draw(NUMBERS), scope=draw(st.sampled_from("ab")), generation=START + draw(st.integers(0, 1)) * HOUR
        )
        event = draw(
            st.sampled_from([Event.CREATE, Event.COPY, Event.VERIFY, Event.CORRUPT, Event.OBSOLETE, Event.DELETE])
        )
        fields: dict[str, Any] = {"bytes_of": draw(st.sampled_from(["x", "y", "z"]))}
        if draw(st.booleans()):
            fields["contents"] = (Content("dir/file2", digest(draw(st.sampled_from("xyz")))),)
        if made and draw(st.integers(0, 4)) == 0:
            withdrawn = draw(st.sampled_from(made))
            key, event, fields = withdrawn.statement.product or key, Event.REVOKE, {"revokes": withdrawn.id}
        by = stranger() if draw(st.integers(0, 3)) == 0 else signer()
        made.append(sign(statement(event, key, signer=by.fingerprint, **fields), by))
    return made


@given(worlds(), st.randoms(use_true_random=False))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_many_are_judged_as_one_at_a_time(tmp_path: Path, world: list[Trace], random: Any) -> None:
    path = tmp_path / f"{random.getrandbits(64)}.db"
    trust = TRUST
    with Store.open(f"sqlite:///{path}") as store:
        store.register(world, trust=None)
        names, by = [None, "file1", "file2", "file3"], [None, "SHA256"]
        questions = [Question(digest=digest(b), algorithm=a, name=name) for b in "xyzw" for a in by for name in names]
        questions += [Question(name=name) for name in names[1:]]
        dids_ = [f"{scope}:file{n}" for scope in "ab" for n in (1, 2)]
        questions += [Question(digest=digest("x"), algorithm=a, did=did) for a in by for did in dids_]
        questions += [Question(did=did) for did in dids_]
        random.shuffle(questions)
        together = judge_many(store, trust, questions, NOW, False)
        # Of each world a third is asked one by one, another third every time.
        for question, told in list(zip(questions, together, strict=True))[::3]:
            assert told == judge_many(store, trust, [question], NOW, False)[0], question
            names_ = [question.name] if question.name and question.did is None else []
            dids = [question.did] if question.did else []
            found = store.candidates_of_many([question.digest] if question.digest else [], names_, dids)
            assert told["verdict"] == check_evidence(found, trust, NOW).ask(question).verdict
            if question.digest is not None and (question.name or question.did):
                file = Candidate(
                    file="",
                    base_name=question.name or "",
                    size=10,
                    hashes={"SHA256": question.digest},
                    did=question.did,
                )
                evidence = store.candidates(file.hashes, file.base_name, file.did)
                expected = judge(file, evidence, trust, NOW).verdict
                if question.algorithm is None and told["missing"]:
                    assert told["verdict"] == Verdict.UNDECIDED, question
                elif expected is not Verdict.UNDECIDED:  # of a file that is not there, no digest can be computed
                    assert told["verdict"] == expected, question
