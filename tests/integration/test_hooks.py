"""Installing, checking and removing the hooks, on both databases."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest
from rucio_trace_policy import ddl, hooks, proof
from rucio_trace_policy.tables import tables
from sqlalchemy import create_engine, inspect, select, text

if TYPE_CHECKING:
    from rucio_trace_sandbox.embedded import EmbeddedRucio


@pytest.fixture
def rucio_postgresql(rucio_postgresql_alone: EmbeddedRucio) -> EmbeddedRucio:
    """Roles and schemas are made and renamed here."""
    return rucio_postgresql_alone


def _run(rucio: EmbeddedRucio, *statements: str) -> None:
    with rucio.engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def _parts(rucio: EmbeddedRucio) -> set[str]:
    return {fault.part for fault in hooks.status(rucio.engine).faults}


def test_a_fresh_rucio_has_no_hooks_and_check_says_so(rucio: EmbeddedRucio) -> None:
    with pytest.raises(hooks.HooksUnfit, match=r"outbox: missing.*hooks install") as raised:
        hooks.check(rucio.engine)
    assert ddl.LOCKS_TRIGGER in str(raised.value)
    assert hooks.status(rucio.engine).waiting is None


def test_installed_hooks_record_and_leave_no_trace_of_the_proof(rucio: EmbeddedRucio) -> None:
    assert hooks.install(rucio.engine)
    hooks.check(rucio.engine)
    status = hooks.status(rucio.engine)
    assert (status.in_place, status.waiting, status.forged_keys) == (True, 0, ())
    with rucio.engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM rses")) == 0
        installed = connection.execute(select(tables(rucio.backend).installations)).one()
    assert installed.version == ddl.VERSION
    assert abs(time.time() - installed.at.timestamp()) < 60


def test_a_second_installation_runs_nothing(rucio: EmbeddedRucio) -> None:
    hooks.install(rucio.engine)
    assert hooks.plan_install(rucio.engine) == []
    assert hooks.install(rucio.engine) == []
    with rucio.engine.connect() as connection:
        assert len(connection.execute(select(tables(rucio.backend).installations)).all()) == 1


def test_a_dry_run_changes_nothing_and_its_sql_installs_by_itself(rucio: EmbeddedRucio) -> None:
    before = set(inspect(rucio.engine).get_table_names())
    statements = hooks.plan_install(rucio.engine)
    assert set(inspect(rucio.engine).get_table_names()) == before
    _run(rucio, *statements)
    assert [fault.problem for fault in hooks.status(rucio.engine).faults] == ["the hooks were never proven"]
    assert hooks.install(rucio.engine) == []
    assert hooks.status(rucio.engine).in_place


def test_the_printed_removal_leaves_the_database_as_it_was(rucio: EmbeddedRucio) -> None:
    before = _objects(rucio)
    hooks.install(rucio.engine)
    assert _objects(rucio) != before
    _run(rucio, *hooks.removal_sql(rucio.engine).strip().rstrip(";").split(";\n"))
    assert _objects(rucio) == before


def _objects(rucio: EmbeddedRucio) -> set[str]:
    queries = {
        "sqlite": "SELECT type || name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'",
        "postgresql": "SELECT relname::text FROM pg_class UNION SELECT 'trigger ' || tgname FROM pg_trigger "
        "UNION SELECT 'function ' || proname FROM pg_proc UNION SELECT 'schema ' || nspname FROM pg_namespace",
    }
    with rucio.engine.connect() as connection:
        return set(connection.scalars(text(queries[rucio.backend])))


def test_removing_the_hooks_keeps_the_tables_until_told_otherwise(rucio: EmbeddedRucio) -> None:
    hooks.install(rucio.engine)
    hooks.remove(rucio.engine)
    assert all(part.startswith("traceability_") and "outbox" not in part for part in _parts(rucio))
    rse = rucio.add_posix_rse("DISK")
    rucio.upload(rse, "file", b"content")
    assert hooks.status(rucio.engine).waiting == 0
    hooks.remove(rucio.engine, with_tables=True)
    assert tables(rucio.backend).outbox.fullname in _parts(rucio)


def test_tables_with_changes_that_wait_are_not_removed(rucio: EmbeddedRucio) -> None:
    hooks.install(rucio.engine)
    rucio.upload(rucio.add_posix_rse("DISK"), "file", b"content")
    with pytest.raises(hooks.OutboxNotEmpty):
        hooks.remove(rucio.engine, with_tables=True)
    hooks.check(rucio.engine)


@pytest.mark.parametrize("trigger", [ddl.REPLICAS_TRIGGER, ddl.LOCKS_TRIGGER, ddl.DIDS_TRIGGER])
def test_a_missing_trigger_is_found_and_mended(rucio: EmbeddedRucio, trigger: str) -> None:
    hooks.install(rucio.engine)
    if rucio.backend == "postgresql":
        _run(rucio, f"DROP TRIGGER {trigger} ON {ddl.TRIGGER_TABLES[trigger]}")
        expected = {trigger}
    else:
        names = [name for name in ddl.sqlite_triggers() if name.startswith(trigger)]
        _run(rucio, f"DROP TRIGGER {names[-1]}")
        expected = {names[-1]}
    assert _parts(rucio) == expected
    hooks.install(rucio.engine)
    hooks.check(rucio.engine)


def test_a_disabled_trigger_is_found_and_mended(rucio_postgresql: EmbeddedRucio) -> None:
    rucio = rucio_postgresql
    hooks.install(rucio.engine)
    _run(rucio, f"ALTER TABLE replicas DISABLE TRIGGER {ddl.REPLICAS_TRIGGER}")
    with pytest.raises(hooks.HooksUnfit, match="traceability_replicas: disabled"):
        hooks.check(rucio.engine)
    hooks.install(rucio.engine)
    hooks.check(rucio.engine)


def _replace_source(rucio: EmbeddedRucio, old: str, new: str) -> None:
    if rucio.backend == "postgresql":
        statements = [statement.replace(old, new) for statement in ddl.postgresql_functions("public")]
    else:
        name, source = next(iter(ddl.sqlite_triggers().items()))
        statements = [f"DROP TRIGGER {name}", source.replace(old, new)]
    _run(rucio, *statements)


def test_an_index_that_an_older_version_did_not_have_is_found_missing_and_made(rucio: EmbeddedRucio) -> None:
    hooks.install(rucio.engine)
    outbox = tables(rucio.backend).outbox
    index = next(index for index in outbox.indexes if str(index.name).endswith("outbox_datasets"))
    with rucio.engine.begin() as connection:
        index.drop(connection)
    assert {fault.part for fault in hooks.status(rucio.engine).faults} == {index.name}
    hooks.install(rucio.engine)
    hooks.check(rucio.engine)


def test_hooks_of_an_older_version_are_found_and_replaced(rucio: EmbeddedRucio) -> None:
    hooks.install(rucio.engine)
    _replace_source(rucio, f"hooks version {ddl.VERSION}", "hooks version 0")
    with pytest.raises(hooks.HooksUnfit, match=f"of version 0, this program needs {ddl.VERSION}"):
        hooks.check(rucio.engine)
    hooks.install(rucio.engine)
    hooks.check(rucio.engine)


def test_hooks_of_a_newer_version_are_left_alone(rucio: EmbeddedRucio) -> None:
    hooks.install(rucio.engine)
    _replace_source(rucio, f"hooks version {ddl.VERSION}", "hooks version 99")
    with pytest.raises(hooks.HooksUnfit, match="upgrade this program"):
        hooks.install(rucio.engine)


def test_an_altered_trigger_is_found_though_it_says_the_right_version(rucio: EmbeddedRucio) -> None:
    hooks.install(rucio.engine)
    _replace_source(rucio, "adler32, md5", "md5, adler32")
    with pytest.raises(hooks.HooksUnfit, match="altered"):
        hooks.check(rucio.engine)


def test_a_function_without_its_owners_rights_is_found(rucio_postgresql: EmbeddedRucio) -> None:
    hooks.install(rucio_postgresql.engine)
    _run(rucio_postgresql, "ALTER FUNCTION traceability.record_replica() SECURITY INVOKER")
    with pytest.raises(hooks.HooksUnfit, match="altered"):
        hooks.check(rucio_postgresql.engine)


def test_hooks_that_do_not_record_are_not_installed(rucio: EmbeddedRucio, monkeypatch: pytest.MonkeyPatch) -> None:
    # What a wrong trigger of a coming version would do: the states swapped.
    swap = "becomes, was" if rucio.backend == "postgresql" else "'A', 'A'"
    form = "_POSTGRESQL_REPLICAS" if rucio.backend == "postgresql" else "_SQLITE_REPLICAS"
    wrong = getattr(ddl, form).replace("was, becomes", swap).replace("{was}, {becomes}", swap)
    monkeypatch.setattr(ddl, form, wrong)
    before = _objects(rucio)
    with pytest.raises(proof.HooksIneffective, match="the changes of a replica"):
        hooks.install(rucio.engine)
    assert _objects(rucio) == before


def test_a_table_that_lacks_a_column_is_not_called_installed(rucio: EmbeddedRucio) -> None:
    hooks.install(rucio.engine)
    products = tables(rucio.backend).products.fullname
    _run(rucio, f"ALTER TABLE {products} DROP COLUMN verified_at")
    with pytest.raises(hooks.HooksUnfit, match="lacks verified_at"):
        hooks.install(rucio.engine)


def test_installation_waits_for_a_busy_table_and_comes_again(rucio: EmbeddedRucio) -> None:
    locked, done = threading.Event(), threading.Event()
    engine = create_engine(rucio.url.replace("timeout=60", "timeout=1"))

    def hold() -> None:
        with engine.connect() as connection:
            if rucio.backend == "postgresql":
                connection.execute(text("LOCK TABLE replicas IN ROW EXCLUSIVE MODE"))
            else:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            locked.set()
            done.wait(2.5)
            connection.rollback()

    holder = threading.Thread(target=hold)
    holder.start()
    locked.wait()
    try:
        hooks.install(engine)
    finally:
        done.set()
        holder.join()
        engine.dispose()
    hooks.check(rucio.engine)


def test_while_one_table_is_locked_the_other_is_not_waited_for_until_rucio_is_cancelled(
    rucio_postgresql: EmbeddedRucio,
) -> None:
    """A transaction of Rucio that holds `locks` and comes to want `replicas` is the one that goes on."""
    rucio, begun = rucio_postgresql, threading.Event()
    waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'locks'::regclass")

    def install() -> None:
        begun.set()
        hooks.install(rucio.engine)

    installer = threading.Thread(target=install)
    with rucio.engine.connect() as connection:
        connection.execute(text("LOCK TABLE locks IN ROW EXCLUSIVE MODE"))
        installer.start()
        begun.wait()
        with rucio.engine.connect() as watcher:
            while not watcher.scalar(waiting):
                watcher.rollback()
        connection.execute(text("SET LOCAL lock_timeout = '900ms'"))  # less than PostgreSQL's deadlock_timeout
        connection.execute(text("LOCK TABLE replicas IN ROW EXCLUSIVE MODE"))
    installer.join()
    hooks.check(rucio.engine)


def test_installation_gives_up_on_a_table_that_stays_busy(rucio_postgresql: EmbeddedRucio) -> None:
    before = _objects(rucio_postgresql)
    with rucio_postgresql.engine.connect() as connection:
        connection.execute(text("LOCK TABLE replicas IN ROW EXCLUSIVE MODE"))
        with pytest.raises(hooks.Busy, match="nothing was changed"):
            hooks.install(rucio_postgresql.engine, attempts=1)
    assert _objects(rucio_postgresql) == before


def test_a_role_without_rights_of_its_own_on_our_tables_is_recorded_all_the_same(
    rucio_postgresql: EmbeddedRucio,
) -> None:
    rucio = rucio_postgresql
    hooks.install(rucio.engine)
    rucio.upload(rucio.add_posix_rse("DISK"), "file", b"content")
    _run(
        rucio,
        "CREATE ROLE guest",
        "GRANT USAGE ON SCHEMA public TO guest",
        "GRANT ALL ON ALL TABLES IN SCHEMA public TO guest",
    )
    try:
        _run(rucio, "SET ROLE guest", "UPDATE replicas SET state = 'T'", "RESET ROLE")
        assert hooks.status(rucio.engine).waiting == 3
    finally:
        _run(rucio, "DROP OWNED BY guest", "DROP ROLE guest")


def test_a_role_that_may_create_nothing_proves_what_the_databases_owner_installed(
    rucio_postgresql: EmbeddedRucio,
) -> None:
    rucio = rucio_postgresql
    _run(rucio, "CREATE ROLE app LOGIN", "GRANT ALL ON ALL TABLES IN SCHEMA public TO app")
    engine = create_engine(rucio.url.replace("//postgres@", "//app@"))
    try:
        with pytest.raises(hooks.NotAllowed, match=r"permission denied.*--dry-run"):
            hooks.install(engine)
        _run(rucio, *hooks.plan_install(engine))
        assert hooks.install(engine) == []
        hooks.check(engine)
    finally:
        engine.dispose()
        _run(rucio, "DROP OWNED BY app", "DROP ROLE app")


def test_a_trace_key_in_rucios_own_metadata_is_reported(rucio: EmbeddedRucio) -> None:
    hooks.install(rucio.engine)
    rucio.upload(rucio.add_posix_rse("DISK"), "file", b"content")
    meta = '{"Trace_Status": "GENUINE", "traceless": 1, "trace": 2}'
    _run(
        rucio,
        "INSERT INTO did_meta (scope, name, did_type, meta, created_at, updated_at) "
        f"VALUES ('test', 'file', 'F', '{meta}', '2026-01-01', '2026-01-01')",
    )
    forged = hooks.status(rucio.engine).forged_keys
    assert [(key.scope, key.name, key.key) for key in forged] == [("test", "file", "Trace_Status")]


def test_hooks_work_when_rucio_has_a_schema_of_its_own(rucio_postgresql: EmbeddedRucio) -> None:
    rucio = rucio_postgresql
    _run(rucio, "ALTER SCHEMA public RENAME TO dev", "CREATE SCHEMA public")
    hooks.install(rucio.engine, "dev")
    hooks.check(rucio.engine, "dev")
    with pytest.raises(hooks.HooksUnfit):
        hooks.check(rucio.engine)


def test_of_all_changes_of_dids_only_those_of_a_datasets_content_leave_rows(rucio: EmbeddedRucio) -> None:
    from rucio.core.did import add_did, attach_dids, detach_dids, set_status
    from rucio.db.sqla.constants import DIDType

    hooks.install(rucio.engine)
    rse, scope = rucio.add_posix_rse("DISK"), rucio.scope
    rucio.upload(rse, "file", b"content")
    _run(rucio, f"DELETE FROM {tables(rucio.backend).outbox.fullname}")
    file = [{"scope": scope, "name": "file"}]
    with rucio.session() as session:
        for name, kind in (("dataset", DIDType.DATASET), ("container", DIDType.CONTAINER)):
            add_did(scope, name, kind, rucio.root, session=session)
        attach_dids(scope, "dataset", file, rucio.root, session=session)
        set_status(scope, "container", session=session, open=False)
        set_status(scope, "dataset", session=session, open=False)
        detach_dids(scope, "dataset", file, session=session)
        set_status(scope, "dataset", session=session, open=True)
    _run(
        rucio, "UPDATE dids SET accessed_at = '2026-01-01 00:00:00.000000', length = 3 WHERE is_open IS NULL OR is_open"
    )
    outbox = tables(rucio.backend).outbox
    with rucio.engine.connect() as connection:
        rows = connection.execute(select(outbox).order_by(outbox.c.id)).all()
        [created] = connection.scalars(text("SELECT created_at FROM dids WHERE name = 'dataset'"))
    assert [(row.rse_id, row.name, row.old_state, row.new_state) for row in rows] == [
        (None, "dataset", "open", "closed"),
        (None, "dataset", "closed", "closed"),
        (None, "dataset", "closed", "open"),
    ]
    assert {str(row.generation.replace(tzinfo=None)) for row in rows} == {str(created)}
