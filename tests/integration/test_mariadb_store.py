"""The trace store on MariaDB: what is promised of every store, and a migration that cannot be rolled back."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import test_lineage
import test_store
import test_store_faults as faults
import test_store_lists as lists
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from samples import product, trace
from sqlalchemy import create_engine, event, make_url

from rucio_trace.errors import StorageError
from rucio_trace.store import Store, StoreUnavailable
from rucio_trace.store.database import Database
from rucio_trace.store.tables import metadata

if TYPE_CHECKING:
    from rucio_trace_sandbox.mariadb import MariaDbServer


@pytest.fixture
def empty_url(mariadb_database: str) -> str:
    return mariadb_database


@pytest.fixture
def store_url(store_url_mariadb: str) -> str:
    return store_url_mariadb


store = test_store.store
library = test_store.library
family = test_lineage.family

test_back = test_store.test_a_registered_trace_comes_back_as_it_was
test_again = test_store.test_registering_again_is_known_and_changes_nothing
test_conflict = test_store.test_a_known_id_with_another_message_is_a_conflict_of_that_trace_alone
test_certificates = test_store.test_certificates_are_stored_once
test_page = test_store.test_a_page_ends_after_so_many_traces_or_characters
test_many = test_store.test_many_products_are_found_at_once
test_found = test_store.test_traces_are_found_by_name_did_digest_content_and_id
test_not_found = test_store.test_what_is_not_there_is_not_found
test_status = test_store.test_products_are_found_by_their_status
test_time_range = test_store.test_a_time_range_holds_its_begin_and_not_its_end
test_evidence = test_store.test_the_evidence_holds_what_withdraws_it
test_copied = test_store.test_a_copied_store_is_the_same_store
test_down = test_lineage.test_downwards_all_that_was_made_from_it

test_list = lists.test_a_batch_is_kept_with_its_list_and_its_lines_are_found
test_largest_list = lists.test_the_largest_batch_there_is_is_kept
test_last_line = lists.test_the_last_line_of_a_site_on_a_replica_takes_the_place_of_those_before
test_withdrawn_lines = lists.test_the_lines_of_a_withdrawn_batch_count_no_more_until_that_is_undone
test_altered_list = lists.test_a_list_that_was_altered_is_noticed
test_altered_index = lists.test_an_index_that_was_altered_is_noticed
test_copied_lists = lists.test_lists_and_lines_move_with_their_store

test_newer = faults.test_a_store_of_a_newer_program_is_left_alone
test_tables = faults.test_the_migrations_make_the_tables_the_program_thinks_of
test_migrations = faults.test_the_migrations_run_down_and_up_again
test_shared = faults.test_a_store_shares_its_database_with_others
test_at_once = faults.test_processes_may_open_migrate_and_register_at_once
test_order = faults.test_whoever_saw_a_position_never_meets_a_new_trace_below_it
test_forked = faults.test_a_forked_process_may_go_on_using_the_store
test_killed = faults.test_a_writer_killed_before_its_commit_leaves_nothing


@pytest.mark.parametrize("name", test_store.NAMES, ids=range(len(test_store.NAMES)))
def test_hostile_names_are_kept_and_found(store: Store, name: str) -> None:
    test_store.test_hostile_names_are_kept_and_found(store, name)


def test_names_that_differ_in_case_or_a_space_are_different(store: Store) -> None:
    names = ("file", "FILE", "file ", "filé")
    made = [trace(key=replace(product(), name=name), bytes_of="file") for name in names]
    store.register(made, trust=None)
    for one in made:
        assert [stored.id for stored in store.by_name(one.statement.name)] == [one.id]


class _Cut(Exception):
    """The process ends here."""


def test_a_migration_cut_off_between_its_steps_goes_on_where_it_was(mariadb: MariaDbServer) -> None:
    step, finished = 0, False
    while not finished:
        name = mariadb.create("cut")
        finished = not _migrate_until(mariadb.url(name), step)
        with Store.open(mariadb.url(name)) as store:
            assert store.register([trace()], trust=None)[0].position == 1
        with Database(mariadb.url(name)).reading() as connection:
            context = MigrationContext.configure(connection, opts={"version_table": "trace_store_version"})
            assert compare_metadata(context, metadata) == []
        mariadb.drop(name)
        step += 4
    assert step > 10


def _migrate_until(url: str, step: int) -> bool:
    """Migrate, but for what comes after *step* statements that make something; whether there was anything."""
    from rucio_trace.store import schema

    database, made = Database(url), 0

    def cut(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        nonlocal made
        if statement.strip().startswith(("CREATE", "INSERT")):
            made += 1
            if made > step:
                raise _Cut

    event.listen(database._engine, "before_cursor_execute", cut)
    try:
        schema.migrate(database)
    except _Cut:
        return True
    finally:
        database.close()
    return False


def test_both_names_and_a_password_apart_open_it(mariadb: MariaDbServer, store_url: str) -> None:
    mariadb.run(
        "CREATE OR REPLACE USER traces@localhost IDENTIFIED BY 'geheim'", "GRANT ALL ON *.* TO traces@localhost"
    )
    of = make_url(store_url).set(username="traces")
    for driver in ("mysql", "mariadb", "mysql+pymysql"):
        url = of.set(drivername=driver).render_as_string()
        with Store.open(url, password="geheim") as store:
            assert store.position() == 0
            assert "geheim" not in store.shown
        with pytest.raises(StoreUnavailable) as refused:
            Store.open(url, password="falsch")
        assert "falsch" not in str(refused.value)


def test_a_connection_cut_in_the_pool_is_replaced(store: Store, store_url: str, mariadb: MariaDbServer) -> None:
    first = trace()
    store.register([first], trust=None)
    name = make_url(store_url).database
    for (number,) in mariadb.run(f"SELECT id FROM information_schema.processlist WHERE db = '{name}'"):
        mariadb.run(f"KILL {number}")
    assert [stored.id for stored in store.by_id(first.id)] == [first.id]


def test_a_lock_that_is_never_given_back_is_an_error_and_no_hang(
    store: Store, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rucio_trace.store.database.WAIT_SECONDS", 1)
    engine = create_engine(store_url)
    with Store.open(store_url) as waiting, engine.connect() as holder:
        holder.exec_driver_sql("SELECT position FROM trace_head FOR UPDATE")
        with pytest.raises(StoreUnavailable, match="1205"):
            waiting.register([trace()], trust=None)
        holder.rollback()
        assert waiting.register([trace()], trust=None)[0].position == 1
    engine.dispose()


def test_what_does_not_fit_is_refused_and_never_cut(store: Store, store_url: str) -> None:
    database = Database(store_url)
    with pytest.raises(StorageError, match="too long"), database.writing() as connection:
        connection.exec_driver_sql(f"UPDATE trace_store_version SET version_num = '{'x' * 33}'")
    database.close()
