"""What Rucio does with replicas, and the rows of the outbox it leaves: every way in and out, on both databases."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

import pytest
import rucio_daemons as daemons
from rucio.db.sqla.types import GUID
from rucio_trace_policy import hooks
from rucio_trace_policy.tables import tables
from rucio_trace_sandbox.daemons import finish, reap, recover
from sqlalchemy import select, text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime
    from pathlib import Path

    from rucio_trace_sandbox.embedded import EmbeddedRucio
    from rucio_trace_sandbox.rest import Rest
    from rucio_trace_sandbox.storage import Rse
    from sqlalchemy import Row

A, B, C, D, T, U = "ABCDTU"


@pytest.fixture
def hooked(rucio: EmbeddedRucio) -> EmbeddedRucio:
    """A Rucio with our hooks in it."""
    hooks.install(rucio.engine)
    return rucio


@pytest.fixture(autouse=True)
def outbox_tells_the_table(rucio: EmbeddedRucio) -> Iterator[None]:
    """Whatever a test did: the outbox's rows chain without a gap and end in what the table holds."""
    yield
    last: dict[tuple[str, ...], str | None] = {}
    for row in outbox(rucio):
        key = (row.scope, row.name, row.rse_id)
        assert row.old_state == last.get(key), f"a change of {key} is missing before {row}"
        last[key] = row.new_state
    with rucio.engine.connect() as connection:
        query = text("SELECT scope, name, rse_id, state FROM replicas").columns(rse_id=GUID())
        states = {(row.scope, row.name, row.rse_id): row.state for row in connection.execute(query)}
    assert {key: state for key, state in last.items() if state} == states


def outbox(rucio: EmbeddedRucio) -> list[Row[Any]]:
    table = tables(rucio.backend).outbox
    with rucio.engine.connect() as connection:
        return list(connection.execute(select(table).order_by(table.c.id)))


def changes(rucio: EmbeddedRucio, rse: Rse | None = None) -> list[tuple[str | None, str | None]]:
    return [(row.old_state, row.new_state) for row in outbox(rucio) if rse is None or row.rse_id == rse.id]


def files(rucio: EmbeddedRucio, *names: str, **values: Any) -> list[dict[str, Any]]:
    return [{"scope": rucio.scope, "name": name, "bytes": 7, "adler32": "0bd80344", **values} for name in names]


def add(rucio: EmbeddedRucio, rse: Rse, *names: str, **values: Any) -> None:
    from rucio.core.replica import add_replicas

    with rucio.session() as session:
        add_replicas(rse.id, files(rucio, *names, **values), rucio.root, session=session)


def add_rule(rucio: EmbeddedRucio, expression: str, *names: str, **options: Any) -> str:
    from rucio.core.rule import add_rule

    dids = [{"scope": rucio.scope, "name": name} for name in names]
    defaults: dict[str, Any] = {"grouping": "NONE", "weight": None, "lifetime": None, "locked": False}
    defaults |= {"subscription_id": None, "copies": 1}
    with rucio.session() as session:
        (rule_id,) = add_rule(dids, rucio.root, rse_expression=expression, session=session, **defaults | options)
    return rule_id


def two_rses(rucio: EmbeddedRucio) -> tuple[Rse, Rse]:
    from rucio.core.distance import add_distance

    here, there = rucio.add_posix_rse("HERE"), rucio.add_posix_rse("THERE")
    with rucio.session() as session:
        add_distance(here.id, there.id, distance=1, session=session)
        add_distance(there.id, here.id, distance=1, session=session)
    return here, there


# Arrivals ------------------------------------------------------------------------------------------------------------


def test_a_row_says_what_changed_where_and_when(hooked: EmbeddedRucio) -> None:
    rse = hooked.add_posix_rse("DISK")
    before = time.time()
    add(hooked, rse, "file")
    (row,) = outbox(hooked)
    assert (row.rse_id, row.scope, row.name) == (rse.id, "test", "file")
    assert (row.old_state, row.new_state, row.bytes, row.adler32, row.md5) == (None, A, 7, "0bd80344", None)
    assert (row.account, row.action, row.rule) == (None, None, None)
    assert before - 1 <= row.at.timestamp() <= time.time() + 1
    assert row.generation.replace(tzinfo=None) == _created_at(hooked, "file")
    assert row.attempts == 0
    assert row.claimed_by is row.claimed_until is row.not_before is row.last_error is row.message is None


def _created_at(rucio: EmbeddedRucio, name: str) -> datetime:
    from rucio.db.sqla.models import DataIdentifier

    with rucio.session() as session:
        return session.scalars(select(DataIdentifier.created_at).where(DataIdentifier.name == name)).one()


def test_added_replicas_leave_a_row_each_with_an_id_of_its_own(hooked: EmbeddedRucio) -> None:
    import uuid

    add(hooked, hooked.add_posix_rse("DISK"), *(f"file{n}" for n in range(200)))
    rows = outbox(hooked)
    assert [(row.old_state, row.new_state) for row in rows] == [(None, A)] * 200
    identities = {uuid.UUID(row.event_id) for row in rows}
    assert len(identities) == 200
    assert {identity.version for identity in identities} == {4}


def test_an_upload_arrives_in_two_steps(hooked: EmbeddedRucio, rest: Rest, folder: Path) -> None:
    hooked.add_posix_rse("DISK")
    (folder / "file.bin").write_bytes(b"content")
    rest.upload(folder / "file.bin", "DISK")
    assert changes(hooked) == [(None, C), (C, A)]
    assert len({row.generation for row in outbox(hooked)}) == 1


def test_a_rule_makes_a_replica_that_is_being_copied(hooked: EmbeddedRucio) -> None:
    here, there = two_rses(hooked)
    add(hooked, here, "file")
    add_rule(hooked, "THERE", "file")
    assert changes(hooked, there) == [(None, C)]


def test_a_rule_made_asynchronously_does_so_when_it_is_injected(hooked: EmbeddedRucio) -> None:
    here, there = two_rses(hooked)
    add(hooked, here, "file")
    add_rule(hooked, "THERE", "file", asynchronous=True)
    assert changes(hooked, there) == []
    daemons.judge_injector()
    assert changes(hooked, there) == [(None, C)]


def _requested(rucio: EmbeddedRucio) -> Rse:
    here, there = two_rses(rucio)
    add(rucio, here, "file")
    add_rule(rucio, "THERE", "file")
    return there


def test_a_finished_transfer_makes_its_replica_available(hooked: EmbeddedRucio) -> None:
    there = _requested(hooked)
    daemons.end_requests(hooked, "DONE")
    finish()
    assert changes(hooked, there) == [(None, C), (C, A)]


def test_a_transfer_that_failed_for_good_makes_its_replica_unavailable(hooked: EmbeddedRucio) -> None:
    there = _requested(hooked)
    daemons.end_requests(hooked, "FAILED", retry_count=10)
    finish()
    assert changes(hooked, there) == [(None, C), (C, U)]


def test_a_transfer_that_is_tried_again_changes_no_replica(hooked: EmbeddedRucio) -> None:
    there = _requested(hooked)
    daemons.end_requests(hooked, "FAILED", retry_count=0)
    finish()
    assert changes(hooked, there) == [(None, C)]
    daemons.end_requests(hooked, "DONE")
    finish()
    assert changes(hooked, there) == [(None, C), (C, A)]


# Doubts --------------------------------------------------------------------------------------------------------------


def _declare_bad(rucio: EmbeddedRucio, rse: Rse, by: str) -> None:
    from rucio.gateway.replica import declare_bad_file_replicas

    did = {"scope": "test", "name": "file", "rse": rse.name}
    pfn = f"file://localhost:0{rucio.pfn_path(rse, 'file')}"
    assert not declare_bad_file_replicas([did if by == "DID" else pfn], reason="broken", issuer="root")


@pytest.mark.parametrize("by", ["DID", "PFN"])
def test_a_replica_declared_bad_is_bad(hooked: EmbeddedRucio, by: str) -> None:
    here, _ = two_rses(hooked)
    add(hooked, here, "file")
    _declare_bad(hooked, here, by)
    assert changes(hooked) == [(None, A), (A, D)]


def test_a_bad_replica_that_a_rule_wants_is_copied_again(hooked: EmbeddedRucio) -> None:
    here, there = two_rses(hooked)
    add(hooked, here, "file")
    add(hooked, there, "file")
    add_rule(hooked, "THERE", "file")
    _declare_bad(hooked, there, "DID")
    recover()
    assert changes(hooked, there) == [(None, A), (A, D), (D, C)]
    daemons.end_requests(hooked, "DONE")
    finish()
    assert changes(hooked, there) == [(None, A), (A, D), (D, C), (C, A)]


def test_a_last_bad_replica_is_given_up(hooked: EmbeddedRucio) -> None:
    here, _ = two_rses(hooked)
    add(hooked, here, "file")
    add_rule(hooked, "HERE", "file")
    _declare_bad(hooked, here, "DID")
    recover()
    reap("HERE")
    assert changes(hooked)[:2] == [(None, A), (A, D)]
    assert changes(hooked)[-1][1] is None


def test_minos_makes_a_replica_unavailable_for_a_while(hooked: EmbeddedRucio) -> None:
    from rucio.core.replica import add_bad_pfns
    from rucio.db.sqla.constants import BadPFNStatus
    from rucio.db.sqla.models import BadReplica
    from sqlalchemy import update

    here, _ = two_rses(hooked)
    add(hooked, here, "file")
    pfn = f"file://localhost:0{hooked.pfn_path(here, 'file')}"
    with hooked.session() as session:
        state = BadPFNStatus.TEMPORARY_UNAVAILABLE.name
        add_bad_pfns(
            [pfn], hooked.root, state=state, reason="power cut", expires_at=daemons.in_an_hour(), session=session
        )
    daemons.minos()
    assert changes(hooked) == [(None, A), (A, T)]
    with hooked.session() as session:
        session.execute(update(BadReplica).values(expires_at=daemons.LONG_AGO))
    daemons.minos_expiration()
    assert changes(hooked) == [(None, A), (A, T), (T, A)]


def test_a_state_set_by_hand_is_recorded(hooked: EmbeddedRucio) -> None:
    from rucio.gateway.replica import update_replicas_states

    add(hooked, hooked.add_posix_rse("DISK"), "file", "other")
    states = [{"scope": "test", "name": name, "state": "U"} for name in ("file", "other")]
    update_replicas_states("DISK", states, issuer="root")
    assert changes(hooked) == [(None, A)] * 2 + [(A, U)] * 2


# Departures ----------------------------------------------------------------------------------------------------------


def test_the_reaper_marks_and_deletes(hooked: EmbeddedRucio) -> None:
    rse = hooked.add_posix_rse("DISK")
    stored = hooked.upload(rse, "file", b"content")
    created = outbox(hooked)[0].generation
    _set_tombstone(hooked, rse)
    reap("DISK")
    assert changes(hooked) == [(None, C), (C, A), (A, B), (B, None)]
    assert not stored.path.exists()
    assert outbox(hooked)[-1].generation == created


def _set_tombstone(rucio: EmbeddedRucio, rse: Rse) -> None:
    from rucio.core.replica import set_tombstone

    with rucio.session() as session:
        set_tombstone(rse.id, rucio.scope, "file", tombstone=daemons.LONG_AGO, session=session)


def test_the_undertaker_takes_away_a_dataset_and_the_reaper_its_files(hooked: EmbeddedRucio) -> None:
    rse = hooked.add_posix_rse("DISK")
    hooked.upload(rse, "file", b"content")
    make_dataset(hooked, "dataset", "file")
    add_rule(hooked, "DISK", "dataset")
    daemons.end_did(hooked, "dataset")
    daemons.undertaker()
    assert changes(hooked) == [(None, C), (C, A)]
    daemons.end_tombstones(hooked)
    reap("DISK")
    assert changes(hooked) == [(None, C), (C, A), (A, B), (B, None)]


def make_dataset(rucio: EmbeddedRucio, name: str, *names: str) -> None:
    from rucio.core.did import add_did, attach_dids
    from rucio.db.sqla.constants import DIDType

    with rucio.session() as session:
        add_did(rucio.scope, name, DIDType.DATASET, rucio.root, session=session)
        dids = [{"scope": rucio.scope, "name": child} for child in names]
        attach_dids(rucio.scope, name, dids, rucio.root, session=session)


def test_a_name_uploaded_again_is_another_generation(hooked: EmbeddedRucio) -> None:
    from rucio.core.replica import delete_replicas

    rse = hooked.add_posix_rse("DISK")
    for _ in range(2):
        add(hooked, rse, "file")
        with hooked.session() as session:
            delete_replicas(rse.id, files(hooked, "file"), session=session)
    first, gone, second, gone_again = outbox(hooked)
    assert first.generation == gone.generation != second.generation == gone_again.generation


# Nothing to tell -----------------------------------------------------------------------------------------------------


def test_what_changes_no_state_leaves_no_row(hooked: EmbeddedRucio) -> None:
    from rucio.core.replica import touch_replica

    rse = hooked.add_posix_rse("DISK")
    add(hooked, rse, "file")
    replica = {"rse_id": rse.id, "scope": hooked.scope, "name": "file"}
    with hooked.session() as session:
        assert touch_replica(replica | {"accessed_at": daemons.in_an_hour()}, session=session)
    _set_tombstone(hooked, rse)
    add_rule(hooked, "DISK", "file")  # counts a lock
    with hooked.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE replicas SET path = '/elsewhere', state = state")
    assert changes(hooked) == [(None, A)]


def test_an_available_replica_called_available_again_leaves_no_row(hooked: EmbeddedRucio) -> None:
    from rucio.gateway.replica import update_replicas_states

    add(hooked, hooked.add_posix_rse("DISK"), "file")
    update_replicas_states("DISK", [{"scope": "test", "name": "file", "state": "A"}], issuer="root")
    assert changes(hooked) == [(None, A)]


class _Undone(Exception):
    """What makes a transaction roll back."""


def _insert(rucio: EmbeddedRucio, rse: Rse, session: Any) -> None:
    from rucio.core.replica import add_replicas

    add_replicas(rse.id, files(rucio, "another"), rucio.root, session=session)


def _update(rucio: EmbeddedRucio, rse: Rse, session: Any) -> None:
    from rucio.core.replica import update_replicas_states
    from rucio.db.sqla.constants import ReplicaState

    replica = {"rse_id": rse.id, "scope": rucio.scope, "name": "file", "state": ReplicaState.UNAVAILABLE}
    update_replicas_states([replica], session=session)


def _delete(rucio: EmbeddedRucio, rse: Rse, session: Any) -> None:
    from rucio.core.replica import delete_replicas

    delete_replicas(rse.id, files(rucio, "file"), session=session)


@pytest.mark.parametrize("act", [_insert, _update, _delete])
def test_a_transaction_rolled_back_leaves_no_row(
    hooked: EmbeddedRucio, act: Callable[[EmbeddedRucio, Rse, Any], None]
) -> None:
    rse = hooked.add_posix_rse("DISK")
    add(hooked, rse, "file")
    with contextlib.suppress(_Undone), hooked.session() as session:
        act(hooked, rse, session)
        session.flush()
        raise _Undone
    assert changes(hooked) == [(None, A)]
