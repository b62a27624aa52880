"""A dataset's list, what is decided about its rows, and what its files' statuses make of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import blake3
import pytest
from authority import NOW as SIGNED_AT
from authority import Authority, file, made
from hypothesis import given
from hypothesis import strategies as st
from rucio_trace_daemons.recorder.decide import (
    CLOSED,
    OPEN,
    Change,
    Reason,
    Send,
    Settle,
    SignList,
    Withdraw,
    decide_dataset,
)
from samples import START, product, signer, statement, stored, unsigned

from rucio_trace.corrections import discourage, withdraw
from rucio_trace.dataset import MAX_CONTENTS, Counted, Listing, aggregate, line
from rucio_trace.envelope import sign
from rucio_trace.errors import Malformed
from rucio_trace.history import history_of
from rucio_trace.identity import Trust
from rucio_trace.statement import Content, Event, Statement
from rucio_trace.status import Status, product_status
from rucio_trace.trace import parse, serialise
from rucio_trace.verify import Evidence, Verdict, judge

NOW = datetime(2026, 6, 1, tzinfo=UTC)
STATUSES = ("GENUINE", "DEGRADED", "PENDING", "OBSOLETE", "TAMPERED", "REVOKED", "DISPUTED", None)


def origin(text: str = "a", **fields: Any) -> Statement:
    digest = blake3.blake3(text.encode()).hexdigest()
    return statement(Event.CREATE, hash=digest, hash_algorithm="BLAKE3", size=len(text), **fields)


def of_dataset(event: Event = Event.CREATE, **fields: Any) -> Statement:
    return statement(event, product(), rse=None, method=None, observed=None, members=2, **fields)


# The list ------------------------------------------------------------------------------------------------------------


def test_the_list_is_what_b3sum_would_read() -> None:
    listing = Listing()
    lines = [listing.add("test", name, origin(name)) for name in ("B", "a", "\u00e4")]
    assert lines[1] == f"BLAKE3:{blake3.blake3(b'a').hexdigest()} 1 test:a\n"
    assert listing.hash == blake3.blake3("".join(lines).encode()).hexdigest()
    assert (listing.members, listing.size) == (3, 3)
    assert [content.path for content in listing.contents or ()] == ["test:B", "test:a", "test:\u00e4"]


def test_an_empty_dataset_has_an_empty_list() -> None:
    assert (Listing().hash, Listing().members, Listing().contents) == (blake3.blake3(b"").hexdigest(), 0, None)


def test_another_strong_digest_stands_in_the_list_but_not_in_the_contents() -> None:
    listing = Listing()
    told = statement(Event.CREATE, hash="ab" * 32, hash_algorithm="SHA256")
    assert listing.add("test", "a", told) == f"SHA256:{'ab' * 32} 10 test:a\n"
    assert listing.contents is None


@pytest.mark.parametrize("name", ["two\nlines", "two\rlines"])
def test_a_name_that_could_be_two_lines_is_refused(name: str) -> None:
    with pytest.raises(Malformed, match="line break"):
        line(f"test:{name}", origin())


def test_files_out_of_order_are_a_mistake() -> None:
    listing = Listing()
    listing.add("test", "b", origin())
    for name in ("a", "b"):
        with pytest.raises(ValueError, match="after test:b"):
            listing.add("test", name, origin())


def test_of_too_many_files_the_list_alone_is_signed() -> None:
    listing = Listing()
    for number in range(MAX_CONTENTS):
        listing.add("test", f"{number:08}", origin())
    assert len(listing.contents or ()) == MAX_CONTENTS
    listing.add("test", "9", origin())
    assert (listing.contents, listing.members) == (None, MAX_CONTENTS + 1)


@pytest.mark.parametrize("fields", [{"rse": "RSE-A", "method": "read", "observed": "2026-06-01T00:00:00.000000Z"}])
def test_only_datasets_in_rucio_have_members(fields: dict[str, Any]) -> None:
    assert parse(serialise(of_dataset())).members == 2
    with pytest.raises(Malformed, match="members"):
        serialise(statement(Event.CREATE, members=2, **fields))
    with pytest.raises(Malformed, match="members"):
        serialise(statement(Event.VERIFY, members=2, rse="RSE-A"))


# Its traces ----------------------------------------------------------------------------------------------------------


def test_the_status_of_a_datasets_own_traces() -> None:
    fields = {"rse": None, "method": None, "observed": None, "members": 2}
    create = stored(unsigned(Event.CREATE, **fields), 1)
    revoke = stored(unsigned(Event.REVOKE, **fields, revokes=create.id), 2)
    assert product_status([create], str).status is Status.GENUINE
    assert product_status([create, revoke], str).status is Status.REVOKED
    assert product_status([create, stored(unsigned(Event.OBSOLETE, rse=None), 2)], str).status is Status.OBSOLETE


def test_what_corrects_a_dataset_says_that_it_is_one() -> None:
    create = sign(of_dataset(), signer())
    history = history_of([create])
    for correction in (withdraw(create, product(), history, "wrong"), discourage(product(), history, "old")):
        statement_ = correction.signed(signer(), "SITE", START).statement
        assert (statement_.members, statement_.hash) == (2, create.statement.hash)


def test_a_list_signed_for_a_file_makes_no_dataset_of_it() -> None:
    own = stored(unsigned(Event.CREATE, rse="RSE-A"), 1)
    false = stored(unsigned(Event.CREATE, rse=None, method=None, observed=None, members=2, bytes_of="other"), 2)
    assert product_status([own, false], str).status is Status.DISPUTED


def test_a_datasets_traces_speak_of_no_file_or_folder_in_hand() -> None:
    root = Authority.root()
    trust, signer = Trust.from_anchors([root.pem]), root.issue().signer
    own = {"rse": None, "method": None, "observed": None, "members": 1}
    content = Content(path=f"s2:{file().base_name}", hash=file().hashes["BLAKE3"])
    trace = made(signer, Event.CREATE, **own, contents=(content,), hash="ab" * 32)
    evidence = [Evidence(trace)]
    named_alike = file("cd" * 32, name=trace.statement.name)
    for candidate in (file(), named_alike, replace(named_alike, did=trace.statement.did)):
        assert judge(candidate, evidence, trust, SIGNED_AT).verdict is Verdict.UNKNOWN
    assert judge(file(), [*evidence, Evidence(made(signer))], trust, SIGNED_AT).verdict is Verdict.GENUINE


# Decisions -----------------------------------------------------------------------------------------------------------


def change(text: str, *, signed: bool = False) -> Change:
    words = {"o": OPEN, "c": CLOSED}
    return Change(words[text[0]], words[text[1]], NOW, signed)


@pytest.mark.parametrize(
    ("first", "later", "stands", "expected"),
    [
        ("oc", "", False, SignList()),
        ("oc", "cc", False, SignList()),
        ("oc", "co", False, Settle(Reason.SUPERSEDED)),
        ("oc", "co oc", False, Settle(Reason.SUPERSEDED)),
        ("co", "oc", False, Settle(Reason.EXPECTED)),
        ("co", "oc", True, Withdraw("reopened", only_if_changed=False)),
        ("cc", "co", False, Settle(Reason.SUPERSEDED)),
        ("cc", "", True, Withdraw("content changed while closed", only_if_changed=True)),
        ("oc", "", True, Withdraw("content changed while closed", only_if_changed=True)),
    ],
)
def test_what_becomes_of_a_datasets_row(first: str, later: str, stands: bool, expected: object) -> None:
    assert decide_dataset(change(first), [change(text) for text in later.split()], stands=stands) == expected


def test_what_was_signed_is_sent_whatever_happened_since() -> None:
    assert decide_dataset(change("oc", signed=True), [change("co")], stands=False) == Send()


# What its files make of it -------------------------------------------------------------------------------------------


@given(st.dictionaries(st.sampled_from(STATUSES), st.integers(1, 9)))
def test_a_dataset_is_genuine_only_if_every_file_is(files: dict[str | None, int]) -> None:
    status = aggregate(Counted(files, None), closed=False, own=None)
    assert (status == "GENUINE") == (files.keys() == {"GENUINE"})


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, "PENDING"),
        ({None: 1, "GENUINE": 5}, "PENDING"),
        ({"DEGRADED": 1, "GENUINE": 5}, "DEGRADED"),
        ({"DEGRADED": 1, "PENDING": 1}, "PENDING"),
        ({"OBSOLETE": 1, "TAMPERED": 1, None: 1}, "TAMPERED"),
        ({"REVOKED": 1, "DISPUTED": 1, "TAMPERED": 1}, "DISPUTED"),
    ],
)
def test_the_worst_of_its_files(files: dict[str | None, int], expected: str) -> None:
    assert aggregate(Counted(files, None), closed=True, own=None) == expected


@pytest.mark.parametrize(
    ("closed", "own", "members", "size", "expected"),
    [
        (True, "GENUINE", 2, 10, "GENUINE"),
        (True, "GENUINE", 3, 10, "TAMPERED"),
        (True, "GENUINE", 2, 11, "TAMPERED"),
        (True, "REVOKED", None, None, "REVOKED"),
        (False, "REVOKED", None, None, "GENUINE"),
        (False, "GENUINE", 3, 10, "GENUINE"),
        (False, "DISPUTED", None, None, "DISPUTED"),
        (True, "OBSOLETE", 2, 10, "OBSOLETE"),
    ],
)
def test_while_it_is_closed_its_list_counts(
    closed: bool, own: str, members: int | None, size: int | None, expected: str
) -> None:
    counted = Counted({"GENUINE": 2}, 10)
    assert aggregate(counted, closed=closed, own=own, members=members, size=size) == expected
