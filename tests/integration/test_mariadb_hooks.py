"""Hooks on MariaDB: the promises made for the other databases, and what only this one could break."""

from __future__ import annotations

import subprocess
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pymysql
import pytest
import test_hooks
import test_hooks_cli
from recorder_kit import Kit
from rucio_trace_policy import ddl, ddl_mysql, hooks, proof
from rucio_trace_policy.tables import tables
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import OperationalError

from rucio_trace.errors import Undecided

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rucio_trace_sandbox.embedded import EmbeddedRucio
    from rucio_trace_sandbox.mariadb import MariaDbServer
    from sqlalchemy import Connection, Engine


@pytest.fixture
def rucio(rucio_mariadb: EmbeddedRucio) -> EmbeddedRucio:
    return rucio_mariadb


test_fresh = test_hooks.test_a_fresh_rucio_has_no_hooks_and_check_says_so
test_installed = test_hooks.test_installed_hooks_record_and_leave_no_trace_of_the_proof
test_second = test_hooks.test_a_second_installation_runs_nothing
test_dry = test_hooks.test_a_dry_run_changes_nothing_and_its_sql_installs_by_itself
test_kept = test_hooks.test_removing_the_hooks_keeps_the_tables_until_told_otherwise
test_waiting = test_hooks.test_tables_with_changes_that_wait_are_not_removed
test_index = test_hooks.test_an_index_that_an_older_version_did_not_have_is_found_missing_and_made
test_lacking = test_hooks.test_a_table_that_lacks_a_column_is_not_called_installed
test_forged = test_hooks.test_a_trace_key_in_rucios_own_metadata_is_reported
test_cli = test_hooks_cli.test_an_operator_installs_looks_and_removes


# What making a trigger cannot be rolled back -------------------------------------------------------------------------


def _run(rucio: EmbeddedRucio, *statements: str) -> None:
    with rucio.engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def _objects(rucio: EmbeddedRucio) -> set[str]:
    of = "FROM information_schema.{0}s WHERE {0}_schema = DATABASE()"
    with rucio.engine.connect() as connection:
        tables_ = connection.scalars(text(f"SELECT table_name {of.format('table')}"))
        return {*tables_, *connection.scalars(text(f"SELECT trigger_name {of.format('trigger')}"))}


def test_hooks_that_do_not_record_never_reach_rucios_tables(
    rucio: EmbeddedRucio, monkeypatch: pytest.MonkeyPatch
) -> None:
    trigger = ddl_mysql.TRIGGERS["traceability_replicas_update"]
    wrong = replace(trigger, body=trigger.body.replace("OLD.state, NEW.state,", "NEW.state, OLD.state,"))
    assert wrong != trigger
    monkeypatch.setitem(ddl_mysql.TRIGGERS, trigger.name, wrong)
    before = _objects(rucio)
    with pytest.raises(proof.HooksIneffective, match="the changes of a replica"):
        hooks.install(rucio.engine)
    assert {name for name in _objects(rucio) - before if "_outbox" not in name} == {
        table.name for table in tables("mysql").metadata.sorted_tables if "_outbox" not in table.name
    }


def test_hooks_that_fail_on_rucios_own_tables_are_taken_away_again(
    rucio: EmbeddedRucio, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(connection: Connection, schema: str | None, *, prefix: str = "") -> None:
        if not prefix:
            raise proof.HooksIneffective("anything", "something", "nothing")
        proof.prove(connection, schema, prefix=prefix)

    monkeypatch.setattr(hooks, "prove", refuse)
    with pytest.raises(proof.HooksIneffective):
        hooks.install(rucio.engine)
    assert not [name for name in _objects(rucio) if name in ddl_mysql.TRIGGERS or ddl_mysql.REHEARSAL in name]


@pytest.mark.parametrize("held", ["for a while", "all the time"])
def test_hooks_that_fail_are_taken_away_whoever_holds_rucios_tables(
    rucio: EmbeddedRucio, monkeypatch: pytest.MonkeyPatch, held: str
) -> None:
    monkeypatch.setattr(hooks, "LOCK_TIMEOUT_SECONDS", 1)
    holder = rucio.engine.connect()

    def refuse(connection: Connection, schema: str | None, *, prefix: str = "") -> None:
        if prefix:
            return proof.prove(connection, schema, prefix=prefix)
        holder.exec_driver_sql("SELECT count(*) FROM replicas")  # in a transaction: no trigger can be dropped
        if held == "for a while":
            threading.Timer(1.5, holder.rollback).start()
        else:
            monkeypatch.setattr(hooks, "LOCK_ATTEMPTS", 1)
        raise proof.HooksIneffective("anything", "something", "nothing")

    monkeypatch.setattr(hooks, "prove", refuse)
    try:
        if held == "for a while":
            with pytest.raises(proof.HooksIneffective):
                hooks.install(rucio.engine)
            assert not set(ddl_mysql.TRIGGERS) & _objects(rucio)
            return
        with pytest.raises(hooks.Stranded, match="DROP TRIGGER IF EXISTS traceability_replicas_insert") as stranded:
            hooks.install(rucio.engine)
    finally:
        holder.close()
    assert set(ddl_mysql.TRIGGERS) < _objects(rucio)
    _run(rucio, *stranded.value.hint.partition(": ")[2].split("; "))
    assert not set(ddl_mysql.TRIGGERS) & _objects(rucio)


def _install_where_the_proof_waits_in_vain(rucio: EmbeddedRucio, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install, while somebody holds what the proof on Rucio's own tables needs."""
    busy = OperationalError("INSERT", None, pymysql.err.OperationalError(1205, "Lock wait timeout exceeded"))

    def wait(connection: Connection, schema: str | None, *, prefix: str = "") -> None:
        if not prefix:
            raise busy
        proof.prove(connection, schema, prefix=prefix)

    with monkeypatch.context() as patched:
        patched.setattr(hooks, "prove", wait)
        with pytest.raises(hooks.Busy):
            hooks.install(rucio.engine, attempts=1)


def test_hooks_that_work_stay_while_somebody_holds_what_their_proof_needs(
    rucio: EmbeddedRucio, monkeypatch: pytest.MonkeyPatch
) -> None:
    hooks.install(rucio.engine)
    _run(rucio, "DROP TRIGGER traceability_locks")
    _install_where_the_proof_waits_in_vain(rucio, monkeypatch)
    hooks.check(rucio.engine)  # it was proven when it was installed first


def test_hooks_that_were_never_proven_are_not_recorded_from(
    rucio: EmbeddedRucio, monkeypatch: pytest.MonkeyPatch
) -> None:
    _install_where_the_proof_waits_in_vain(rucio, monkeypatch)
    assert set(ddl_mysql.TRIGGERS) < _objects(rucio)
    with pytest.raises(hooks.HooksUnfit, match="never proven"):
        hooks.check(rucio.engine)
    hooks.install(rucio.engine)
    hooks.check(rucio.engine)


@pytest.mark.parametrize("name", ddl_mysql.TRIGGERS)
def test_a_missing_trigger_is_found_and_mended(rucio: EmbeddedRucio, name: str) -> None:
    hooks.install(rucio.engine)
    _run(rucio, f"DROP TRIGGER {name}")
    assert {fault.part for fault in hooks.status(rucio.engine).faults} == {name}
    hooks.install(rucio.engine)
    hooks.check(rucio.engine)


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        (f"version {ddl.VERSION}", "version 0", f"of version 0, this program needs {ddl.VERSION}"),
        (f"version {ddl.VERSION}", "version 99", "of version 99"),
        ("adler32, md5", "md5, adler32", "altered"),
    ],
)
def test_another_trigger_of_the_same_name_is_found(rucio: EmbeddedRucio, old: str, new: str, match: str) -> None:
    hooks.install(rucio.engine)
    trigger = ddl_mysql.TRIGGERS["traceability_replicas_delete"]
    _run(rucio, "SET sql_mode = ''", trigger.create(replace=True).replace(old, new), "SET sql_mode = DEFAULT")
    with pytest.raises(hooks.HooksUnfit, match=match):
        hooks.check(rucio.engine)
    if "99" in new:
        with pytest.raises(hooks.HooksUnfit, match="upgrade this program"):
            hooks.install(rucio.engine)
        return
    hooks.install(rucio.engine)
    hooks.check(rucio.engine)


def test_a_trigger_made_in_a_mode_that_refuses_values_is_found(rucio: EmbeddedRucio) -> None:
    hooks.install(rucio.engine)
    _run(rucio, ddl_mysql.TRIGGERS["traceability_locks"].create(replace=True))
    with pytest.raises(hooks.HooksUnfit, match="traceability_locks: altered"):
        hooks.check(rucio.engine)


def test_a_value_that_does_not_fit_never_refuses_rucios_work(rucio: EmbeddedRucio) -> None:
    hooks.install(rucio.engine)
    rucio.upload(rucio.add_posix_rse("DISK"), "file", b"content")
    _run(
        rucio,
        "SET @traceability_account = REPEAT('x', 999), @traceability_rule = X'FF'",
        "UPDATE replicas SET state = 'T'",
        "SET @traceability_account = NULL, @traceability_rule = NULL",
    )
    assert hooks.status(rucio.engine).waiting == 3


# Rights --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def guest(rucio: EmbeddedRucio, mariadb: MariaDbServer) -> Iterator[Engine]:
    """Rucio's engine, of a role that may work with Rucio's tables and make nothing."""
    database = make_url(rucio.url).database
    mariadb.run(
        "CREATE OR REPLACE USER guest@localhost",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON {database}.* TO guest@localhost",
    )
    engine = create_engine(rucio.url.replace("root@", "guest@"))
    yield engine
    engine.dispose()
    mariadb.run("DROP USER guest@localhost")


def _client(rucio: EmbeddedRucio, mariadb: MariaDbServer, script: str) -> None:
    """What an operator does with printed SQL."""
    database = str(make_url(rucio.url).database)
    argv = ["mariadb", "--no-defaults", f"--socket={mariadb.folder / 'socket'}", "--user=root", database]
    subprocess.run(argv, input=script, text=True, check=True, capture_output=True)


def test_a_role_that_may_make_nothing_proves_what_the_databases_owner_made(
    rucio: EmbeddedRucio, mariadb: MariaDbServer, guest: Engine
) -> None:
    with pytest.raises(hooks.NotAllowed, match="CREATE command denied"):
        hooks.install(guest)
    _client(rucio, mariadb, ddl.script("mysql", hooks.plan_install(guest)))
    assert hooks.install(guest) == []
    hooks.check(guest)
    definers = mariadb.run("SELECT DISTINCT definer FROM information_schema.triggers", database="mysql")
    assert definers == (("guest@localhost",),)


def test_with_a_binary_log_making_triggers_takes_another_right_and_is_said(
    rucio: EmbeddedRucio, mariadb: MariaDbServer, guest: Engine
) -> None:
    database = make_url(rucio.url).database
    mariadb.run(f"GRANT ALL ON {database}.* TO guest@localhost")
    with pytest.raises(hooks.NotAllowed, match=r"binary logging is enabled.*--dry-run"):
        hooks.install(guest)
    assert not [name for name in _objects(rucio) if name in ddl_mysql.TRIGGERS or ddl_mysql.REHEARSAL in name]
    mariadb.run("SET GLOBAL log_bin_trust_function_creators = 1")
    try:
        hooks.install(guest)
    finally:
        mariadb.run("SET GLOBAL log_bin_trust_function_creators = 0")
    hooks.check(guest)


def test_the_printed_removal_leaves_the_database_as_it_was(rucio: EmbeddedRucio, mariadb: MariaDbServer) -> None:
    before = _objects(rucio)
    hooks.install(rucio.engine)
    assert set(ddl_mysql.TRIGGERS) < _objects(rucio)
    _client(rucio, mariadb, hooks.removal_sql(rucio.engine))
    assert _objects(rucio) == before


def test_a_log_of_statements_is_refused(rucio: EmbeddedRucio, mariadb: MariaDbServer) -> None:
    """Every replica of such a database would invent event ids of its own."""
    mariadb.run("SET GLOBAL binlog_format = STATEMENT")
    rucio.engine.dispose()
    try:
        with pytest.raises(Undecided, match="MIXED or ROW"):
            hooks.install(rucio.engine)
    finally:
        mariadb.run("SET GLOBAL binlog_format = MIXED")
        rucio.engine.dispose()


def test_tables_in_another_database_than_the_urls_are_refused(rucio: EmbeddedRucio) -> None:
    with pytest.raises(Undecided, match=r"\[database\] schema"):
        hooks.check(rucio.engine, "elsewhere")


# Others at work ------------------------------------------------------------------------------------------------------


def test_installation_waits_for_a_busy_table_and_comes_again(
    rucio: EmbeddedRucio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "LOCK_TIMEOUT_SECONDS", 1)
    held, failures = threading.Event(), []

    def install() -> None:
        held.wait()
        try:
            hooks.install(rucio.engine)
        except Exception as error:  # noqa: BLE001 of another thread, for this one to see
            failures.append(error)

    installer = threading.Thread(target=install)
    installer.start()
    with rucio.engine.connect() as connection:
        connection.exec_driver_sql("SELECT count(*) FROM replicas")  # in a transaction: the table cannot be altered
        held.set()
        installer.join(1.5)
        assert installer.is_alive()
        with pytest.raises(hooks.Busy, match="does no harm; try again in a quiet moment"):
            hooks.install(rucio.engine, attempts=1)
    installer.join()
    assert not failures
    hooks.check(rucio.engine)


@pytest.mark.parametrize("seam", ["claiming", "keeping", "finishing", "postponing"])
def test_rucio_waits_for_no_transaction_of_the_recorder(rucio: EmbeddedRucio, seam: str) -> None:
    """Its triggers insert beside the rows that a recorder has locked, into the gaps between them."""
    kit = Kit(rucio)
    here, there = rucio.add_posix_rse("HERE"), rucio.add_posix_rse("THERE")
    for name in ("a", "k", "z"):
        rucio.upload(here, name, name.encode())
    rucio.pfn_path(here, "k").unlink()  # waits
    passed: list[str] = []
    with rucio.engine.connect() as connection:
        connection.exec_driver_sql("SET GLOBAL innodb_lock_wait_timeout = 1")

    def at_seam(name: str) -> None:
        if name == seam and not passed:
            passed.append(name)
            for new in ("0", "b", "l", "zz"):
                rucio.upload(there, new, b"content")

    rucio.engine.dispose()
    try:
        kit.run(at_seam)
    finally:
        mended = "SET GLOBAL innodb_lock_wait_timeout = 50"
        with rucio.engine.connect() as connection:
            connection.exec_driver_sql(mended)
        kit.close()
    assert passed
    assert kit.outcomes["CREATE"] == 6
