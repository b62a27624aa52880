"""The acting account of every action that changes replicas, and of the deletions that follow later."""

from __future__ import annotations

import sys
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import rucio_daemons as daemons
from rucio_trace_policy import causes, hooks
from rucio_trace_policy.tables import tables
from rucio_trace_sandbox.daemons import reap
from sqlalchemy import func, insert, select, text, update

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rucio_trace_sandbox.embedded import EmbeddedRucio
    from rucio_trace_sandbox.storage import Rse
    from sqlalchemy import Row

ROOT_RULE = {
    "copies": 1,
    "weight": None,
    "lifetime": None,
    "grouping": "NONE",
    "account": "root",
    "locked": False,
    "subscription_id": None,
    "source_replica_expression": None,
    "activity": None,
    "notify": None,
    "purge_replicas": False,
    "ignore_availability": False,
    "comment": None,
    "ask_approval": False,
    "asynchronous": False,
    "delay_injection": None,
    "priority": 3,
    "split_container": False,
    "meta": None,
    "issuer": "root",
}


@pytest.fixture
def named(rucio: EmbeddedRucio) -> Iterator[EmbeddedRucio]:
    """A Rucio with hooks and our policy package, which wraps a site's own."""
    hooks.install(rucio.engine)
    _forget_what_was_wrapped()
    rucio.configure(policy={"package": "rucio_trace_policy"}, traceability={"policy_package": "site_policy"})
    yield rucio
    _forget_what_was_wrapped()


def _forget_what_was_wrapped() -> None:
    for part in ("permission", "schema"):
        sys.modules.pop(f"rucio_trace_policy.{part}", None)


def outbox(rucio: EmbeddedRucio) -> list[Row[Any]]:
    table = tables(rucio.backend).outbox
    with rucio.engine.connect() as connection:
        return list(connection.execute(select(table).order_by(table.c.id)))


def actors(rucio: EmbeddedRucio) -> list[tuple[str | None, str | None]]:
    return [(row.account, row.action) for row in outbox(rucio)]


def file(name: str = "file", **values: Any) -> dict[str, Any]:
    return {"scope": "test", "name": name, "bytes": 7, "adler32": "0bd80344", **values}


def add(name: str = "file", issuer: str = "root", rse: str = "DISK", **values: Any) -> None:
    from rucio.gateway.replica import add_replicas

    add_replicas(rse, [file(name, **values)], issuer=issuer)


def add_rule(expression: str, name: str = "file", **options: Any) -> str:
    from rucio.gateway.rule import add_replication_rule

    dids = [{"scope": "test", "name": name}]
    (rule_id,) = add_replication_rule(dids=dids, rse_expression=expression, **ROOT_RULE | options)
    return rule_id


def add_account(rucio: EmbeddedRucio, name: str) -> None:
    from rucio.common.types import InternalAccount
    from rucio.core.account import add_account
    from rucio.db.sqla.constants import AccountType

    with rucio.session() as session:
        add_account(InternalAccount(name), AccountType.USER, f"{name}@example.org", session=session)


def removal(rucio: EmbeddedRucio) -> causes.Removal:
    last = outbox(rucio)[-1]
    assert last.new_state is None
    with rucio.engine.connect() as connection:
        return causes.who_removed(connection, last)


def nothing_is_left(rucio: EmbeddedRucio) -> bool:
    with rucio.engine.connect() as connection:
        return connection.scalar(select(func.count()).select_from(tables(rucio.backend).acting)) == 0


# Who asked, in the same transaction ----------------------------------------------------------------------------------


def test_an_upload_names_its_account_in_both_steps(named: EmbeddedRucio) -> None:
    from rucio.gateway.replica import update_replicas_states

    named.add_posix_rse("DISK")
    add_account(named, "alice")
    add(issuer="alice", state="C")
    update_replicas_states("DISK", [{"scope": "test", "name": "file", "state": "A"}], issuer="alice")
    assert actors(named) == [("alice", "add_replicas"), ("alice", "update_replicas_states")]
    assert nothing_is_left(named)


def test_what_rucio_does_by_itself_names_nobody(named: EmbeddedRucio) -> None:
    from rucio.core.replica import add_replicas

    rse = named.add_posix_rse("DISK")
    add()
    with named.session() as session:
        add_replicas(rse.id, [file("other") | {"scope": named.scope}], named.root, session=session)
    assert actors(named) == [("root", "add_replicas"), (None, None)]


def test_a_deletion_by_hand_names_its_account(named: EmbeddedRucio) -> None:
    from rucio.gateway.replica import delete_replicas

    named.add_posix_rse("DISK")
    add()
    delete_replicas("DISK", [{"scope": "test", "name": "file"}], issuer="root")
    assert actors(named)[-1] == ("root", "delete_replicas")
    assert removal(named) == causes.Removal("root", "delete_replicas", None)


def test_a_declaration_names_its_account_by_did_and_by_pfn(named: EmbeddedRucio) -> None:
    from rucio.gateway.replica import add_bad_dids, declare_bad_file_replicas

    rse = named.add_posix_rse("DISK")
    for name in ("one", "two", "three"):
        add(name)
    declare_bad_file_replicas([{"scope": "test", "name": "one", "rse": "DISK"}], reason="broken", issuer="root")
    pfn = f"file://localhost:0{named.pfn_path(rse, 'two')}"
    declare_bad_file_replicas([pfn], reason="broken", issuer="root")
    add_bad_dids([{"scope": "test", "name": "three"}], "DISK", issuer="root", state=_bad(), reason="broken")
    assert actors(named)[3:] == [("root", "declare_bad_file_replicas")] * 2 + [("root", "add_bad_pfns")]


def _bad() -> Any:
    from rucio.db.sqla.constants import BadFilesStatus

    return BadFilesStatus.BAD


def test_a_rule_names_its_account(named: EmbeddedRucio) -> None:
    here, _ = two_rses(named)
    add(rse=here.name)
    add_rule("THERE")
    assert actors(named)[-1] == ("root", "add_rule")


def two_rses(rucio: EmbeddedRucio) -> tuple[Rse, Rse]:
    from rucio.core.distance import add_distance

    here, there = rucio.add_posix_rse("HERE"), rucio.add_posix_rse("THERE")
    with rucio.session() as session:
        add_distance(here.id, there.id, distance=1, session=session)
        add_distance(there.id, here.id, distance=1, session=session)
    return here, there


def test_a_moved_rule_names_its_account(named: EmbeddedRucio) -> None:
    from rucio.gateway.rule import move_replication_rule

    here, there = two_rses(named)
    add(rse=here.name)
    rule_id = add_rule("HERE")
    move_replication_rule(rule_id, "THERE", {}, issuer="root")
    last = outbox(named)[-1]
    assert (last.rse_id, last.account, last.action) == (there.id, "root", "move_rule")


def test_a_reduced_rule_names_its_account_though_the_site_knows_no_such_action(named: EmbeddedRucio) -> None:
    from rucio.gateway.rule import reduce_replication_rule

    here, there = two_rses(named)
    add(rse=here.name)
    add(rse=there.name)
    rule_id = add_rule("HERE|THERE", copies=2)
    reduce_replication_rule(rule_id, 1, None, issuer="root")
    daemons.end_tombstones(named)
    reap("HERE|THERE")
    assert removal(named) == causes.Removal("root", "reduce_rule", rule_id)


def test_of_nested_questions_the_first_that_writes_counts(named: EmbeddedRucio) -> None:
    from rucio.core.permission import has_permission

    rse = named.add_posix_rse("DISK")
    with named.session() as session:
        for action in ("get_signed_url", "add_replicas", "add_rule"):
            kwargs = {"account": named.root, "locked": False, "rse": "DISK"}
            assert has_permission(named.root, action, kwargs, session=session)
        _add_in(named, rse, session)
    assert actors(named) == [("root", "add_replicas")]


def _add_in(rucio: EmbeddedRucio, rse: Rse, session: Any, name: str = "file") -> None:
    from rucio.core.replica import add_replicas

    add_replicas(rse.id, [file(name) | {"scope": rucio.scope}], rucio.root, session=session)


def test_a_released_savepoint_does_not_end_the_naming(named: EmbeddedRucio) -> None:
    from rucio.core.permission import has_permission

    rse = named.add_posix_rse("DISK")
    with named.session() as session:
        has_permission(named.root, "add_replicas", {"rse": "DISK"}, session=session)
        with session.begin_nested():
            _add_in(named, rse, session, "one")
        _add_in(named, rse, session, "two")
    assert actors(named) == [("root", "add_replicas")] * 2
    assert nothing_is_left(named)


def test_a_savepoint_rolled_back_does_not_end_the_naming(named: EmbeddedRucio) -> None:
    from rucio.core.permission import has_permission

    rse = named.add_posix_rse("DISK")
    with named.session() as session:
        has_permission(named.root, "add_replicas", {"rse": "DISK"}, session=session)
        savepoint = session.begin_nested()
        _add_in(named, rse, session, "one")
        savepoint.rollback()
        _add_in(named, rse, session, "two")
    assert actors(named) == [("root", "add_replicas")]
    assert nothing_is_left(named)


def test_a_session_that_goes_on_after_its_commit_names_nobody(named: EmbeddedRucio) -> None:
    from rucio.core.permission import has_permission

    rse = named.add_posix_rse("DISK")
    with named.session() as session:
        has_permission(named.root, "add_replicas", {"rse": "DISK"}, session=session)
        _add_in(named, rse, session, "one")
        session.commit()
        _add_in(named, rse, session, "two")
        session.rollback()
        has_permission(named.root, "add_rule", {"account": named.root, "locked": False}, session=session)
        _add_in(named, rse, session, "three")
        session.commit()
        _add_in(named, rse, session, "four")
    assert actors(named) == [("root", "add_replicas"), ("root", "add_rule"), (None, None)]


def test_accounts_of_requests_at_the_same_time_do_not_mix(named: EmbeddedRucio) -> None:
    named.add_posix_rse("DISK")
    accounts = [f"user{n}" for n in range(6)]
    for account in accounts:
        add_account(named, account)

    def work(account: str) -> None:
        for n in range(8):
            add(f"{account}.{n}", issuer=account)

    threads = [threading.Thread(target=work, args=(account,)) for account in accounts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = outbox(named)
    assert len(rows) == 48
    assert all(row.name.startswith(f"{row.account}.") for row in rows)


# What only reads never writes, and what cannot be noted is refused ---------------------------------------------------


def test_a_question_that_only_reads_writes_nothing(named: EmbeddedRucio) -> None:
    from rucio.core.permission import has_permission

    read_only = "PRAGMA query_only = ON" if named.backend == "sqlite" else "SET TRANSACTION READ ONLY"
    with named.session() as session:
        session.execute(text(read_only))
        for action in ("get_signed_url", "access_rule_vo", "set_metadata", "skip_availability_check"):
            kwargs = {"key": "color", "scope": named.scope, "rule_id": "0" * 32}
            assert has_permission(named.root, action, kwargs, session=session)
        session.execute(text("PRAGMA query_only = OFF" if named.backend == "sqlite" else "SELECT 1"))


def test_an_action_that_cannot_be_noted_is_refused_with_a_reason(named: EmbeddedRucio) -> None:
    from rucio.common.exception import AccessDenied

    named.add_posix_rse("DISK")
    table = tables(named.backend).intentions.fullname
    add()
    rule_id = add_rule("DISK")
    with named.engine.begin() as connection:
        connection.exec_driver_sql(f"DROP TABLE {table}")
    from rucio.gateway.rule import delete_replication_rule, list_replication_rules

    with pytest.raises(AccessDenied, match="could not be noted"):
        delete_replication_rule(rule_id, None, issuer="root")
    assert [rule["id"] for rule in list_replication_rules()] == [rule_id]


def test_a_refused_action_notes_nobody(named: EmbeddedRucio) -> None:
    from rucio.common.exception import AccessDenied
    from rucio.gateway.rule import delete_replication_rule

    named.add_posix_rse("DISK")
    add()
    rule_id = add_rule("DISK")
    add_account(named, "bob")
    with pytest.raises(AccessDenied, match="Bob may not"):
        delete_replication_rule(rule_id, None, issuer="bob")
    with named.engine.connect() as connection:
        assert connection.execute(select(tables(named.backend).intentions)).all() == []


# Who asked, long before the reaper -----------------------------------------------------------------------------------


def _delete_rule(rule_id: str, issuer: str = "root") -> None:
    from rucio.gateway.rule import delete_replication_rule

    delete_replication_rule(rule_id, None, issuer=issuer)


def _reap(rucio: EmbeddedRucio, rse: str = "DISK") -> None:
    daemons.end_tombstones(rucio)
    reap(rse)


def test_a_deletion_by_the_reaper_names_who_removed_the_rule(named: EmbeddedRucio) -> None:
    named.add_posix_rse("DISK")
    add_account(named, "alice")
    add()
    rule_id = add_rule("DISK")
    _delete_rule(rule_id, issuer="alice")
    daemons.end_rule(named, rule_id)
    daemons.judge_cleaner()
    _reap(named)
    assert actors(named)[-1] == (None, None)
    assert removal(named) == causes.Removal("alice", "del_rule", rule_id)


def test_of_several_rules_the_one_that_held_the_replica_last_is_named(named: EmbeddedRucio) -> None:
    named.add_posix_rse("DISK")
    for name in ("alice", "carol"):
        add_account(named, name)
    add()
    first, last = add_rule("DISK"), add_rule("DISK|DISK")
    for rule_id, account in ((last, "alice"), (first, "carol")):
        _delete_rule(rule_id, issuer=account)
        daemons.end_rule(named, rule_id)
        daemons.judge_cleaner()
    _reap(named)
    assert removal(named) == causes.Removal("carol", "del_rule", first)


def test_a_rule_that_expired_is_named_without_an_account(named: EmbeddedRucio) -> None:
    named.add_posix_rse("DISK")
    add()
    rule_id = add_rule("DISK", lifetime=3600)
    daemons.end_rule(named, rule_id)
    daemons.judge_cleaner()
    _reap(named)
    assert removal(named) == causes.Removal(None, None, rule_id)


def test_a_request_that_did_not_end_the_rule_does_not_count(named: EmbeddedRucio) -> None:
    from rucio.common.exception import UnsupportedOperation
    from rucio.core.rule import delete_rule
    from rucio.db.sqla.models import ReplicationRule
    from sqlalchemy import update

    named.add_posix_rse("DISK")
    add()
    rule_id = add_rule("DISK", locked=True)
    with pytest.raises(UnsupportedOperation):
        _delete_rule(rule_id)
    # Days later somebody without a policy (an operator's script) lets it go.
    with named.session() as session:
        session.execute(update(ReplicationRule).values(locked=False))
        delete_rule(rule_id, session=session)
    _reap(named)
    assert removal(named) == causes.Removal(None, None, rule_id)


def test_an_erased_dataset_names_who_erased_it(named: EmbeddedRucio) -> None:
    from rucio.core.did import add_did, attach_dids
    from rucio.db.sqla.constants import DIDType
    from rucio.gateway.did import set_metadata

    named.add_posix_rse("DISK")
    add_account(named, "alice")
    add()
    with named.session() as session:
        add_did(named.scope, "dataset", DIDType.DATASET, named.root, session=session)
        attach_dids(named.scope, "dataset", [{"scope": named.scope, "name": "file"}], named.root, session=session)
    rule_id = add_rule("DISK", "dataset")
    set_metadata("test", "dataset", "lifetime", 0, issuer="alice")
    daemons.end_did(named, "dataset")
    daemons.undertaker()
    _reap(named)
    assert removal(named) == causes.Removal("alice", "set_metadata", rule_id)


def test_an_erased_file_names_who_erased_it(named: EmbeddedRucio) -> None:
    from rucio.gateway.did import set_metadata_bulk

    named.add_posix_rse("DISK")
    add_account(named, "alice")
    add()
    rule_id = add_rule("DISK")
    set_metadata_bulk("test", "file", {"lifetime": 0}, issuer="alice")
    daemons.end_did(named, "file")
    daemons.undertaker()
    _reap(named)
    assert removal(named) == causes.Removal("alice", "set_metadata_bulk", rule_id)


def test_a_lifetime_taken_back_erases_nothing(named: EmbeddedRucio) -> None:
    from rucio.core.replica import set_tombstone
    from rucio.gateway.did import set_metadata

    rse = named.add_posix_rse("DISK")
    add()
    set_metadata("test", "file", "lifetime", 86400, issuer="root")
    set_metadata("test", "file", "lifetime", None, issuer="root")
    with named.session() as session:
        set_tombstone(rse.id, named.scope, "file", tombstone=daemons.LONG_AGO, session=session)
    reap("DISK")
    assert removal(named) == causes.Removal(None, None, None)


def test_without_a_policy_package_the_rule_is_still_named(rucio: EmbeddedRucio) -> None:
    hooks.install(rucio.engine)
    rucio.add_posix_rse("DISK")
    add()
    rule_id = add_rule("DISK")
    _delete_rule(rule_id)
    daemons.end_rule(rucio, rule_id)
    daemons.judge_cleaner()
    _reap(rucio)
    assert removal(rucio) == causes.Removal(None, None, rule_id)


def test_what_explained_a_deletion_is_forgotten_with_it_and_superseded_notes_are_pruned(named: EmbeddedRucio) -> None:
    named.add_posix_rse("DISK")
    add()
    add("kept")
    for _ in range(2):
        for name in ("file", "kept"):
            rule_id = add_rule("DISK", name)
            daemons.end_rule(named, rule_id)
            daemons.judge_cleaner()
    unlocked = tables(named.backend).unlocked
    with named.engine.begin() as connection:
        assert connection.scalar(select(func.count()).select_from(unlocked)) == 4
        assert causes.prune(connection) == 2
    _reap(named)
    with named.engine.begin() as connection:
        for row in outbox(named):
            if row.new_state is None and row.name == "file":
                causes.forget(connection, row)
        assert connection.scalars(select(unlocked.c.name)).all() == ["kept"]


def test_who_asked_is_forgotten_a_day_later_once_no_deletion_can_need_it(named: EmbeddedRucio) -> None:
    from rucio.gateway.did import set_metadata

    named.add_posix_rse("DISK")
    add()
    add("living")
    standing, ended = add_rule("DISK", "living"), add_rule("DISK")
    for rule_id in (standing, ended):
        _delete_rule(rule_id)
    set_metadata("test", "living", "lifetime", 86400, issuer="root")
    daemons.end_rule(named, ended)
    daemons.judge_cleaner()
    ours = tables(named.backend)
    with named.engine.begin() as connection:
        noted = connection.scalar(select(func.count()).select_from(ours.intentions))
        assert causes.prune(connection) == 0  # too young
        connection.execute(update(ours.intentions).values(at=datetime.now(UTC) - timedelta(days=2)))
        values = {"account": "root", "action": "del_rule", "at": datetime.now(UTC) - timedelta(days=2)}
        connection.execute(insert(ours.intentions).values(rule="no such rule", **values))
        connection.execute(insert(ours.intentions).values(scope="test", name="no such file", **values))
        assert causes.prune(connection) == 2
        assert connection.scalar(select(func.count()).select_from(ours.intentions)) == noted
    _reap(named)
    with named.engine.begin() as connection:
        for row in outbox(named):
            if row.new_state is None:
                causes.forget(connection, row)
        assert causes.prune(connection) == 1
        assert ended not in connection.scalars(select(ours.intentions.c.rule)).all()
