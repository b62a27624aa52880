"""A store of the earlier version becomes one of this, while programs of the earlier version go on registering."""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from samples import digest, product, trace
from sqlalchemy import text

from rucio_trace.statement import Content, Event
from rucio_trace.store import Outcome, Store, StoreUnavailable
from rucio_trace.store.database import Database
from rucio_trace.store.partitions import TRACES_A_PARTITION
from rucio_trace.store.rows import to_entry
from rucio_trace.store.search import Filters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rucio_trace.envelope import Trace


@pytest.fixture
def database(postgres_database: str) -> Iterator[Database]:
    database = Database(postgres_database)
    _migrate_to(database, "0004")
    yield database
    database.close()


def _migrate_to(database: Database, revision: str) -> None:
    from alembic import command
    from alembic.config import Config

    with database.writing() as connection:
        config = Config()
        config.set_main_option("script_location", "rucio_trace.store:migrations")
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def _made(number: int) -> Trace:
    return trace(Event.CREATE, product(number), contents=(Content("member", digest(f"member {number}")),))


def _register_as_before(database: Database, made: Trace) -> None:
    """The statements of version 0004, for one trace."""
    entry = to_entry(made)
    with database.writing() as connection:

        def run(statement: str, **values: Any) -> Any:
            return connection.execute(text(statement), values)

        position = run("SELECT position FROM trace_head FOR UPDATE").scalar_one() + 1
        for fingerprint, der in entry.certificates.items():
            if not run("SELECT 1 FROM trace_certificates WHERE fingerprint = :f", f=fingerprint).all():
                run("INSERT INTO trace_certificates VALUES (:f, :der)", f=fingerprint, der=der)
        run("INSERT INTO trace_digest_sets VALUES (:id, :fingerprint)", id=position, fingerprint=entry.digest_set)
        for digests, of_content in ((entry.digests, False), (entry.contents, True)):
            for one in digests:
                run("INSERT INTO trace_digests VALUES (:d, :p, :of)", d=one, p=position, of=of_content)
        columns = {name: value for name, value in entry.columns.items() if name != "provider"}
        columns |= {"position": position, "registered_at": datetime.now(UTC), "time": entry.time}
        columns |= {"digest_set": position}
        names, marks = ", ".join(columns), ", ".join(f":{name}" for name in columns)
        run(f"INSERT INTO traces ({names}) VALUES ({marks})", **columns)
        run("UPDATE trace_head SET position = :p", p=position)


def test_registrations_go_on_while_the_store_is_migrated(database: Database, postgres_database: str) -> None:
    for number in range(200):
        _register_as_before(database, _made(number))
    stop, failures, numbers = threading.Event(), [], iter(range(1_000, 100_000))
    made: list[Trace] = []

    def register() -> None:
        try:
            while not stop.is_set():
                one = _made(next(numbers))
                _register_as_before(database, one)
                made.append(one)
        except Exception as error:  # noqa: BLE001 - whatever it is, the test fails with it
            failures.append(error)

    writers = [threading.Thread(target=register) for _ in range(2)]
    for writer in writers:
        writer.start()
    while len(made) < 20:
        pass
    with Store.open(postgres_database) as store:
        before = len(made)
        while len(made) < before + 20 and not failures:
            pass
        stop.set()
        for writer in writers:
            writer.join()
        assert failures == []
        assert store.position() == 200 + len(made)
        for one in made:
            member = (one.statement.contents or ())[0].hash
            assert [stored.id for stored in store.by_content(member)] == [one.id]
        again = store.register(made, trust=None)
        assert {answer.outcome for answer in again} == {Outcome.KNOWN}
        while store.index():
            pass  # what was there is counted and found by words, page by page
        assert store.statistics().traces >= 200
        assert [stored.trace.statement.name for stored in store.find(Filters(text="file7"), 10).traces] == ["file7"]
        new = _made(1)
        assert store.register([new], trust=None)[0].position == 201 + len(made)
        assert {stored.id for stored in store.by_content(digest("member 1"))} > {new.id}


MANUAL = Path(__file__).parent.parent.parent / "docs" / "operators.md"


def test_roles_keep_their_rights_and_get_what_this_version_needs(database: Database, postgres_database: str) -> None:
    """A role that only reads, and one that only registers, with the rights that the manual names."""
    grants = re.findall(r"^GRANT .* TO (?:registrar|reader);$", MANUAL.read_text(), re.MULTILINE)
    assert len(grants) >= 3
    with database.writing() as connection:
        for role in ("reader", "registrar"):
            connection.exec_driver_sql(f"DROP ROLE IF EXISTS {role}")
            connection.exec_driver_sql(f"CREATE ROLE {role} LOGIN")
        for grant in grants:
            if "trace_counts" not in grant:
                connection.exec_driver_sql(grant)
    _register_as_before(database, _made(1))
    Store.open(postgres_database).close()
    made = trace(Event.COPY, product(1), contents=_made(1).statement.contents)
    try:
        with Store.open(_as("registrar", postgres_database)) as store:
            assert store.register([made], trust=None)[0].position == 2
        with Store.open(_as("reader", postgres_database), migrate=False) as store:
            assert len(store.search(digest=digest("member 1"))) == 2
            assert len(store.find(Filters(text="file1"), 10).traces) == 2
            assert store.statistics().position == 2
            with pytest.raises(StoreUnavailable, match="denied"):
                store.register([_made(2)], trust=None)
    finally:
        with database.writing() as connection:
            for role in ("reader", "registrar"):
                connection.exec_driver_sql(f"DROP OWNED BY {role}")
                connection.exec_driver_sql(f"DROP ROLE {role}")


def _as(role: str, url: str) -> str:
    return url.replace("postgres@", f"{role}@", 1)


def _migrate(url: str) -> None:
    Store.open(url).close()


def test_processes_may_migrate_an_old_store_at_once(database: Database, postgres_database: str) -> None:
    for number in range(20):
        _register_as_before(database, _made(number))
    with ThreadPoolExecutor(6) as pool:
        migrating = [pool.submit(_migrate, postgres_database) for _ in range(6)]
    assert [each.exception() for each in migrating] == [None] * 6
    with Store.open(postgres_database) as store:
        assert len(store.since(0)) == 20


def test_a_migration_waits_for_a_table_that_somebody_reads_and_lets_others_pass(
    database: Database, postgres_database: str
) -> None:
    _register_as_before(database, _made(1))
    with ThreadPoolExecutor(1) as pool:
        with database.snapshot() as connection:  # as a backup does
            connection.exec_driver_sql("SELECT count(*) FROM traces")
            migrating = pool.submit(_migrate, postgres_database)
            for number in range(2, 8):
                _register_as_before(database, _made(number))
        assert migrating.exception() is None
    with Store.open(postgres_database) as store:
        assert len(store.since(0)) == 7


def test_two_stores_share_a_database_in_schemas_of_their_own(postgres_database: str) -> None:
    with Database(postgres_database).writing() as connection:
        connection.exec_driver_sql("CREATE SCHEMA one")
        connection.exec_driver_sql("CREATE SCHEMA other")
    for schema in ("one", "other"):
        with Store.open(f"{postgres_database}&options=-csearch_path%3D{schema}") as store:
            assert store.register([_made(1)], trust=None)[0].position == 1


def test_a_store_far_along_is_copied_to_postgresql(postgres_database: str, tmp_path: Path) -> None:
    with Store.open(f"sqlite:///{tmp_path / 'far.db'}") as far:
        far.register([_made(1)], trust=None)
        with far._database.writing() as connection:
            connection.exec_driver_sql(f"UPDATE trace_head SET position = {3 * TRACES_A_PARTITION}")
        far.register([_made(2)], trust=None)
        with Store.open(postgres_database) as target:
            assert far.copy_to(target) == 3 * TRACES_A_PARTITION + 1
            assert [stored.id for stored in target.since(0)] == [stored.id for stored in far.since(0)]


def test_traces_go_on_in_the_next_partition(postgres_database: str) -> None:
    first, made = _made(1), [_made(number) for number in range(2, 8)]
    with Store.open(postgres_database) as store:
        store.register([first], trust=None)
    with Database(postgres_database).writing() as connection:
        connection.exec_driver_sql(f"UPDATE trace_head SET position = {2 * TRACES_A_PARTITION - 3}")
    with Store.open(postgres_database, migrate=False) as store, pytest.raises(StoreUnavailable, match="no partition"):
        store.register(made, trust=None)
    with Store.open(postgres_database) as store:
        store.register([*made, first], trust=None)
        assert [stored.id for stored in store.since(0)] == [one.id for one in (first, *made)]
        assert [stored.id for stored in store.since(1, limit=4)] == [one.id for one in made[:4]]
        assert {answer.outcome for answer in store.register([first, *made], trust=None)} == {Outcome.KNOWN}
        assert [store.by_name(f"file{number}")[0].id for number in range(2, 8)] == [one.id for one in made]
        with store._database.reading() as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM traces_0").scalar() == 3
            assert connection.exec_driver_sql(f"SELECT count(*) FROM traces_{2 * TRACES_A_PARTITION}").scalar() == 4
            packed = "SELECT attrelid::regclass::text, attcompression FROM pg_attribute WHERE attname = 'message'"
            told = connection.exec_driver_sql(f"{packed} AND attrelid::regclass::text LIKE 'traces\\_%%'").all()
            has = "SELECT 'lz4' = ANY(enumvals) FROM pg_settings WHERE name = 'default_toast_compression'"
            how = "l" if connection.exec_driver_sql(has).scalar() else ""
            assert {tuple(row) for row in told} >= {("traces_0", how), (f"traces_{2 * TRACES_A_PARTITION}", how)}
