"""The trace store: what it takes, what it answers, on SQLite and on PostgreSQL."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from itertools import product as product_of
from typing import TYPE_CHECKING, Any

import pytest
from samples import HOUR, START, authority, digest, product, signer, statement, trace
from sqlalchemy import select, true
from sqlalchemy.dialects import mysql, postgresql, sqlite

from rucio_trace.envelope import Trace, parse_traces, sign, to_json
from rucio_trace.identity import Trust
from rucio_trace.statement import Content, Event, Found, base_name
from rucio_trace.status import Status
from rucio_trace.store import Item, Outcome, Store, Stored
from rucio_trace.store.read import among
from rucio_trace.store.search import Filters
from rucio_trace.store.tables import traces
from rucio_trace.verify import Candidate, Verdict, judge

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from sqlalchemy import Dialect

TRUST = Trust.from_anchors([authority().pem])
STRANGERS = Trust.from_anchors([])


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    with Store.open(store_url) as store:
        yield store


def add(store: Store, *made: Trace) -> list[Stored]:
    """Register *made*; each must be new."""
    answers = store.register(made, trust=TRUST)
    assert [answer.outcome for answer in answers] == [Outcome.STORED] * len(made), answers
    return [found for trace in made for found in store.by_id(trace.id)]


def ids(found: Iterable[Stored]) -> list[str]:
    return [stored.id for stored in found]


# ------------------------------------------------------------------------------------- registration


@pytest.mark.parametrize("dialect", [sqlite.dialect(), mysql.dialect(), postgresql.dialect()], ids=lambda d: d.name)
def test_a_choice_of_values_is_asked_in_a_way_that_an_index_serves(dialect: Dialect) -> None:
    wanted = among(traces.c.name, ["a", "b"]) & traces.c.did.is_(None)
    text = str(select(traces.c.position).where(wanted).compile(dialect=dialect)).partition("WHERE ")[2]
    array = "= any" in text.lower()
    assert array == (dialect.name == "postgresql")
    assert "= 1" not in text, "of a comparison with 1 SQLite makes a look at every row"


def test_the_plan_of_a_lookup_is_kept_and_that_of_a_search_is_not(postgres_database: str) -> None:
    made = [trace(Event.CREATE, product(number)) for number in range(3)]
    with Store.open(postgres_database) as store:
        add(store, *made)
        for _ in range(20):
            assert ids(store.by_name("file1")) == [made[1].id]
            assert ids(store.by_digest(digest("file2"))) == [made[2].id]
            assert store.by_content(digest("member")) == []
            assert len(store.search(name_prefix="file")) == 3
        with store._database.reading() as connection:
            kept = connection.exec_driver_sql("SELECT statement, generic_plans FROM pg_prepared_statements").all()
    plans = {statement.partition("WHERE ")[2]: generic for statement, generic in kept}
    assert any(generic for condition, generic in plans.items() if condition.startswith("traces.name = $1"))
    assert any(generic for condition, generic in plans.items() if "trace_digests.digest = $1" in condition)
    assert not any("traces.name >= " in condition or "trace_contents" in condition for condition in plans)


def test_a_registered_trace_comes_back_as_it_was(store: Store) -> None:
    made = trace(contents=(Content("b", digest("b")), Content("a", digest("a"))), attributes={"größe": "<&>\u2028"})
    before = datetime.now(UTC) - timedelta(seconds=2)
    (answer,) = store.register([made], trust=TRUST)
    (found,) = store.by_id(made.id)
    assert (answer.id, answer.position, answer.outcome) == (made.id, 1, Outcome.STORED)
    assert found.trace == made
    assert found.trace.message.encode() == made.message.encode()
    assert found.position == answer.position
    assert before < found.registered_at < datetime.now(UTC) + timedelta(seconds=2)


def test_nothing_to_register_is_no_work(store: Store) -> None:
    assert store.register([], trust=TRUST) == []
    assert store.position() == 0


def test_registering_again_is_known_and_changes_nothing(store: Store) -> None:
    made = trace()
    (first,) = add(store, made)
    again = store.register([made, made], trust=TRUST)
    assert [(a.outcome, a.position) for a in again] == [(Outcome.KNOWN, first.position)] * 2
    assert store.position() == 1


def test_a_repeat_succeeds_though_its_certificate_no_longer_counts(store: Store) -> None:
    made = trace()
    add(store, made)
    (again,) = store.register([made], trust=STRANGERS)
    assert again.outcome is Outcome.KNOWN


def test_the_same_text_signed_again_is_known(store: Store) -> None:
    made = statement()
    (first,) = add(store, sign(made, signer()))
    (again,) = store.register([sign(made, signer())], trust=TRUST)  # ECDSA: another signature
    assert (again.outcome, again.position) == (Outcome.KNOWN, first.position)


def test_a_known_id_with_another_message_is_a_conflict_of_that_trace_alone(store: Store) -> None:
    made, other = trace(), trace()
    add(store, made)
    forged = trace(event_id=made.id, size=11)
    answers = store.register([forged, other], trust=TRUST)
    assert [answer.outcome for answer in answers] == [Outcome.CONFLICT, Outcome.STORED]
    assert answers[0].position is None
    assert store.by_id(made.id)[0].trace == made


def test_one_batch_can_contradict_itself(store: Store) -> None:
    made = trace()
    forged = trace(event_id=made.id, size=11)
    answers = store.register([made, made, forged], trust=TRUST)
    assert [answer.outcome for answer in answers] == [Outcome.STORED, Outcome.KNOWN, Outcome.CONFLICT]


@pytest.mark.parametrize("trust", [TRUST, None], ids=["trust", "no trust"])
def test_what_is_not_properly_signed_is_refused_and_the_rest_is_stored(store: Store, trust: Trust | None) -> None:
    good = trace()
    flipped = replace(trace(), signature=trace().signature)
    unsigned = replace(trace(), signature=b"")
    altered = to_json(trace())
    altered["product"]["size"] = 11
    text, another = trace().message, signer("another")  # it names the one and was signed by the other
    of_another = Trace.restore(text, another._sign(text.encode()), another.certificate)
    bad = [flipped, unsigned, *parse_traces(json.dumps(altered).encode()), of_another]
    answers = store.register([*bad, good], trust=trust)
    assert [answer.outcome for answer in answers] == [Outcome.REFUSED] * 4 + [Outcome.STORED]
    assert all(answer.reason for answer in answers[:-1])
    assert store.position() == 1


def test_with_trust_a_stranger_is_refused_and_told_why(store: Store) -> None:
    (answer,) = store.register([trace()], trust=STRANGERS)
    assert answer.outcome is Outcome.REFUSED
    assert "no anchor vouches" in (answer.reason or "")


def test_what_a_newer_version_made_can_be_tried_again_later(store: Store) -> None:
    text = trace().message.replace("rucio-trace/1", "rucio-trace/2")
    newer = Trace.restore(text, signer()._sign(text.encode()), signer().certificate)
    for trust in (TRUST, None):
        (answer,) = store.register([newer], trust=trust)
        assert answer.outcome is Outcome.UNDECIDED
    assert store.position() == 0


def test_certificates_are_stored_once(store: Store) -> None:
    between = authority().below(since=START - timedelta(days=30), until=START + timedelta(days=365))
    issued = between.issue(since=START - timedelta(days=30), until=START + timedelta(days=365)).signer
    made = [sign(statement(signer=issued.fingerprint), issued) for _ in range(3)]
    found = add(store, *made)
    assert [stored.trace.chain for stored in found] == [issued.chain] * 3
    assert len(issued.chain) == 1
    with store._database.reading() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM trace_certificates").scalar() == 2


def test_the_copies_of_a_product_share_their_digests(store: Store) -> None:
    contents = tuple(Content(str(number), digest(str(number))) for number in range(5))
    add(store, *(trace(rse=f"RSE-{number}", contents=contents) for number in range(4)))
    with store._database.reading() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM trace_digests").scalar() == 1
        assert connection.exec_driver_sql("SELECT count(*) FROM trace_contents").scalar() == 5


# ------------------------------------------------------------ traces of the Traceability Service


def cdse(**outer: Any) -> Trace:
    """A trace as the Traceability Service makes them: little is signed, the signer is not named."""
    text = json.dumps({"hash": digest("cdse"), "name": "cdse.zip", "size": 5, "event": "CREATE"}, separators=(",", ":"))
    by = outer.pop("by", signer())
    return Trace.restore(text, by._sign(text.encode()), by.certificate, **outer)


def test_a_trace_without_an_event_id_is_known_by_its_text(store: Store) -> None:
    made = cdse(claimed_id="7", claimed_hash_algorithm="BLAKE3", claimed_timestamp="2026-01-01T00:00:00Z")
    add(store, made)
    assert store.by_id(made.message_digest)[0].trace == made
    (again,) = store.register([cdse()], trust=TRUST)
    assert again.outcome is Outcome.KNOWN
    assert ids(store.by_name("cdse.zip")) == [made.id]


def test_two_members_may_sign_one_text(store: Store) -> None:
    answers = store.register([cdse(), cdse(by=signer("another"))], trust=TRUST)
    assert [answer.outcome for answer in answers] == [Outcome.STORED] * 2
    assert len(store.by_id(cdse().id)) == 2


# ------------------------------------------------------------------------------------------ lookups


def test_a_product_is_found_with_its_whole_history_and_no_other(store: Store) -> None:
    key, later = product(), product(generation=START + HOUR)
    other_rucio, other_vo = replace(key, rucio="OTHER"), replace(key, vo="abc")
    made = [trace(key=k) for k in (key, later, other_rucio, other_vo, key)]
    add(store, *made)
    found = store.product([key, later, product(9)])
    assert ids(found[key]) == [made[0].id, made[4].id]
    assert ids(found[later]) == [made[1].id]
    assert found[product(9)] == []


def test_many_products_are_found_at_once(store: Store) -> None:
    keys = [product(number) for number in range(1_200)]
    store.register([trace(key=key) for key in keys[::100]], trust=None)
    found = store.product(keys)
    assert [len(found[key]) for key in keys[::100]] == [1] * 12
    assert sum(map(len, found.values())) == 12


def test_a_page_ends_after_so_many_traces_or_characters(store: Store) -> None:
    """Characters, not bytes; and the page holds the one with which there are too many."""
    keys = [replace(product(), name="é🛰" * count) for count in (1, 300, 2, 40, 5)]
    found = add(store, *(trace(key=key) for key in keys))
    lengths = [len(stored.trace.message) for stored in found]
    with store._database.reading() as connection:
        for newest, limit, most in product_of((False, True), (1, 3, 5, 6), (1, *accumulate(lengths), sum(lengths) + 1)):
            page, more = store._reader.page(connection, true(), limit=limit, newest=newest, most=most)
            of, expected = found[::-1] if newest else found, []
            while len(expected) < min(limit, len(of)) and sum(len(s.trace.message) for s in expected) < most:
                expected.append(of[len(expected)])
            assert page == expected, (newest, limit, most)
            assert more or page == of, (newest, limit, most)
        assert not more, "all of it was asked for last"
        assert store._reader.bounded().read(connection, true()) == found


def test_traces_are_found_by_name_did_digest_content_and_id(store: Store) -> None:
    key = replace(product(), name="a/folder/file.zip")
    made = trace(key=key, hashes={"ADLER32": "0badcafe", "MD5": "ab" * 16}, contents=(Content("m", digest("member")),))
    add(store, trace(key=product(2)), made)
    answers = [
        store.by_id(made.id),
        store.by_name("file.zip"),
        store.by_name("a/folder/file.zip"),
        store.by_did("test", "a/folder/file.zip"),
        store.by_digest(made.statement.hash),
        store.by_digest("0badcafe"),
        store.by_digest(["ab" * 16, "cd" * 16]),
        store.by_content(digest("member")),
    ]
    assert [ids(answer) for answer in answers] == [[made.id]] * len(answers)


def test_what_is_not_there_is_not_found(store: Store) -> None:
    add(store, trace(contents=(Content("m", digest("member")),)))
    absent = [
        store.by_id("x" * 1_000),
        store.by_name("fil"),
        store.by_name("folder/file1"),
        store.by_did("test", "file"),
        store.by_digest(digest("member")),  # it is a member's
        store.by_digest("no digest"),
        store.by_digest(""),
        store.by_digest([]),
        store.by_content(product().name),
        store.by_content(trace().statement.hash),  # it is the file's
    ]
    assert absent == [[]] * len(absent)


NAMES = [
    "new\nline",
    "tab\tand\x1b[31mred",
    "\u202egnp.exe",
    "%",
    "_",
    "'; DROP TABLE traces; --",
    "\U0001f6f0" * 250,
    "é" * 1_000,
    "\U0001f6f0é" * 300,
    "back\\slash",
    " ",
]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_hostile_names_are_kept_and_found(store: Store, name: str) -> None:
    key = replace(product(), name=name)
    made = trace(key=key, rse=name)
    add(store, trace(), made, trace(key=replace(key, name=name + "a")))
    assert ids(store.by_name(name)) == [made.id]
    assert ids(store.by_did("test", name)) == [made.id]
    assert ids(store.product([key])[key]) == [made.id]
    assert ids(store.search(rse=name, event=Event.COPY, limit=5)) == [made.id]
    assert made.id in ids(store.search(name_prefix=name[:300]))


def test_the_traces_that_follow_a_position_are_read_without_a_gap(store: Store) -> None:
    made = [trace() for _ in range(5)]
    add(store, *made)
    assert ids(store.since(0)) == ids(store.since(0, limit=2) + store.since(2)) == [t.id for t in made]
    assert store.since(5) == []


# ------------------------------------------------------------------------------------------- search


@pytest.fixture
def library(store: Store) -> dict[str, Trace]:
    """One product of each status."""
    made = {
        "genuine": [trace(Event.CREATE, product(1, "genuine"), contents=(Content("m", digest("member")),))],
        "degraded": [
            trace(Event.CREATE, product(1, "degraded")),
            trace(Event.CORRUPT, product(1, "degraded"), rse="RSE-B", found=Found(1, {"SHA256": digest("bad")})),
        ],
        "tampered": [trace(Event.CREATE, product(1, "tampered")), trace(Event.LOST, product(1, "tampered"))],
        "obsolete": [trace(Event.CREATE, product(1, "obsolete")), trace(Event.OBSOLETE, product(1, "obsolete"))],
        "pending": [trace(Event.COPY, product(1, "pending"), method="none", observed=None)],
        "disputed": [
            trace(Event.CREATE, product(1, "disputed"), rse=None),
            trace(Event.CREATE, product(1, "disputed"), rse=None, bytes_of="other"),
        ],
        "revoked": [trace(Event.CREATE, product(1, "revoked"))],
    }
    made["revoked"].append(trace(Event.REVOKE, product(1, "revoked"), revokes=made["revoked"][0].id))
    add(store, *(trace for traces in made.values() for trace in traces), cdse())
    return {name: traces[0] for name, traces in made.items()}


@pytest.mark.parametrize("status", Status)
def test_products_are_found_by_their_status(store: Store, library: dict[str, Trace], status: Status) -> None:
    found = store.search(status=status)
    assert {stored.trace.statement.name for stored in found} == {f"{status.lower()}1"}
    assert library[status.lower()].id in ids(found)
    assert store.search(status=status, name_prefix="no such name") == []


def test_a_search_for_a_status_goes_on_until_it_has_enough(store: Store) -> None:
    store.register([trace(Event.CREATE, product(1, "wanted"))], trust=None)
    others = [trace(key=product(n), method="none", observed=None) for n in range(600)]
    store.register(others, trust=None)
    (found,) = store.search(status=Status.GENUINE, limit=1)
    assert found.trace.statement.name == "wanted1"


def test_a_search_answers_the_newest_first_and_no_more_than_wanted(store: Store) -> None:
    made = [trace() for _ in range(4)]
    add(store, *made)
    assert ids(store.search()) == [t.id for t in reversed(made)]
    assert ids(store.search(limit=2)) == [made[3].id, made[2].id]


def test_a_search_takes_everything_given_together(store: Store, library: dict[str, Trace]) -> None:
    genuine, degraded = library["genuine"], library["degraded"]
    assert genuine.id in ids(store.search(name_prefix="gen"))
    assert ids(store.search(name_prefix="test:gen")) == [genuine.id]
    assert ids(store.search(name_prefix="enuine")) == []
    assert ids(store.search(digest=genuine.statement.hash)) == [genuine.id]
    assert ids(store.search(digest=digest("member"))) == [genuine.id]
    assert {s.trace.statement.event for s in store.search(event=Event.CORRUPT)} == {Event.CORRUPT}
    assert {s.trace.statement.rse for s in store.search(rse="RSE-B")} == {"RSE-B"}
    assert store.search(rse="RSE-B", event=Event.CREATE) == []
    assert ids(store.search(name_prefix="deg", event=Event.CREATE, status=Status.DEGRADED)) == [degraded.id]


def test_a_time_range_holds_its_begin_and_not_its_end(store: Store) -> None:
    made = [trace(after=n * HOUR) for n in range(4)]
    add(store, *made)
    assert ids(store.search(since=START + HOUR, until=START + 3 * HOUR)) == [made[2].id, made[1].id]


# ----------------------------------------------------------------------------------------- evidence


def verdict(store: Store, name: str, content: str, did: str | None = None) -> Verdict:
    candidate = Candidate(file=name, base_name=base_name(name), size=10, hashes={"SHA256": digest(content)}, did=did)
    evidence = store.candidates(candidate.hashes, candidate.base_name, did)
    return judge(candidate, evidence, TRUST, datetime.now(UTC)).verdict


def test_the_evidence_tells_genuine_from_tampered_and_unknown(store: Store) -> None:
    add(store, trace(Event.CREATE, product(1)), trace(Event.CREATE, product(2)))
    assert verdict(store, "file1", "file1") is Verdict.GENUINE
    assert verdict(store, "file1", "flipped") is Verdict.TAMPERED
    assert verdict(store, "file1", "file2") is Verdict.TAMPERED  # the content of one under the name of another
    assert verdict(store, "file1", "file1", "test:file2") is Verdict.TAMPERED
    assert verdict(store, "renamed", "file1") is Verdict.GENUINE
    assert verdict(store, "nobody", "nothing") is Verdict.UNKNOWN


def test_the_evidence_holds_what_withdraws_it(store: Store) -> None:
    create = trace(Event.CREATE)
    revoke = trace(Event.REVOKE, revokes=create.id, bytes_of="whatever")
    undo = trace(Event.REVOKE, revokes=revoke.id, bytes_of="whatever")
    add(store, create)
    assert verdict(store, "other name", "file1") is Verdict.GENUINE
    add(store, revoke)
    assert verdict(store, "other name", "file1") is Verdict.REVOKED
    add(store, undo)
    assert verdict(store, "other name", "file1") is Verdict.GENUINE


def test_the_evidence_carries_the_time_of_registration(store: Store) -> None:
    (found,) = add(store, trace(Event.CREATE))
    (item,) = store.candidates({"SHA256": digest("file1")}, "file1")
    assert (item.trace, item.registered_at) == (found.trace, found.registered_at)


def test_a_weak_digest_is_no_evidence(store: Store) -> None:
    add(store, trace(Event.CREATE, hashes={"ADLER32": "0badcafe"}))
    assert store.candidates({"ADLER32": "0badcafe"}, "another name") == []


# ------------------------------------------------------------------------------------------ copying


def test_a_copied_store_is_the_same_store(store: Store, tmp_path: Path) -> None:
    made = [trace(key=product(n), contents=(Content("m", digest(str(n))),)) for n in range(3)]
    add(store, *made, cdse(claimed_origin="ESA"))
    with Store.open(f"sqlite:///{tmp_path / 'copy.db'}") as copied:
        assert store.copy_to(copied) == 4
        assert copied.since(0) == store.since(0)
        assert ids(copied.by_content(digest("1"))) == [made[1].id]
        assert add(copied, trace(key=product(9)))[0].position == 5


# --------------------------------------------------------------------- members that are indexed later


def test_members_left_for_later_are_found_once_they_are_indexed(store: Store) -> None:
    made = [
        trace(key=product(number), contents=tuple(Content(f"m{m}", digest(f"{number}/{m}")) for m in range(3)))
        for number in range(5)
    ]
    store.add(store.judge([Item(one) for one in made], TRUST), defer_index=True)
    assert store.by_content(digest("1/2")) == []
    assert store.index_lag() >= timedelta()
    assert store.index_lag() < timedelta(minutes=1)
    assert store.find(Filters(text="file3"), 10).traces == []
    assert store.index() is False
    assert [stored.id for stored in store.find(Filters(text="file3"), 10).traces] == [made[3].id]
    assert [stored.id for stored in store.by_content(digest("1/2"))] == [made[1].id]
    assert [stored.id for stored in store.by_content(digest("3/0"))] == [made[3].id]
    assert store.index_lag() == timedelta()


def test_a_member_is_told_from_another_whose_digest_begins_alike(store: Store) -> None:
    one, other = digest("one"), digest("one")[:16] + digest("other")[16:]
    made = [trace(key=product(n), contents=(Content("m", d),)) for n, d in enumerate((one, other))]
    store.register(made, trust=TRUST)
    assert [stored.id for stored in store.by_content(one)] == [made[0].id]
    assert [stored.id for stored in store.search(digest=other)] == [made[1].id]
