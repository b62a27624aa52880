"""The trace store among other processes, on databases that fail, and with rows that somebody altered."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections import Counter
from contextlib import contextmanager
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from samples import authority, digest, product, trace
from sqlalchemy import create_engine, make_url, text

from rucio_trace.errors import StorageError, TraceabilityError
from rucio_trace.identity import Trust
from rucio_trace.statement import Content, Event
from rucio_trace.status import Status
from rucio_trace.store import (
    BadStoreUrl,
    CorruptRow,
    NewerStore,
    Outcome,
    Store,
    StoreNotEmpty,
    StoreUnavailable,
    TooMuchEvidence,
    UnpreparedStore,
)
from rucio_trace.store import evidence as evidence_module
from rucio_trace.store.database import Database
from rucio_trace.store.tables import metadata
from rucio_trace.verify import Candidate, Verdict, judge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TRUST = Trust.from_anchors([authority().pem])
TESTS = Path(__file__).parent.parent


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    with Store.open(store_url) as store:
        yield store


def execute(url: str, statement: str, **values: Any) -> None:
    """As somebody does who has the database and not our program."""
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text(statement), values)
    engine.dispose()


# ------------------------------------------------------------------------------- opening, migrating


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "no URL"),
        ("traces.db", "no URL"),
        ("sqlite://", "outlive"),
        ("sqlite:///:memory:", "outlive"),
        ("sqlite:///a.db?mode=memory", "options"),
        ("oracle://host/db", "not supported"),
        ("mysql://host", "names no database"),
        ("mysql+nosuch://host/db", "not installed"),
        ("nosuch://host/db", "not supported"),
        ("postgresql+nosuch://host/db", "not installed"),
    ],
)
def test_a_url_no_store_can_live_at_is_refused(url: str, reason: str) -> None:
    with pytest.raises(BadStoreUrl, match=reason):
        Store.open(url)


def test_no_error_shows_the_password() -> None:
    with pytest.raises(StorageError) as caught:
        Store.open("postgresql://me@127.0.0.1:1/traces", password="secret")
    assert "secret" not in str(caught.value)
    with pytest.raises(BadStoreUrl) as refused:
        Store.open("mysql://me:secret@host")
    assert "secret" not in str(refused.value)


def test_a_store_is_only_made_when_that_is_wanted(empty_url: str) -> None:
    with pytest.raises(StorageError):
        Store.open(empty_url, migrate=False)
    Store.open(empty_url).close()
    Store.open(empty_url, migrate=False).close()


def test_an_empty_database_is_named_unprepared(postgres_database: str, tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    for url in (postgres_database, f"sqlite:///{tmp_path / 'empty.db'}"):
        with pytest.raises(UnpreparedStore, match="store migrate"):
            Store.open(url, migrate=False)


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("not a database, but somebody's notes " * 100)
    with pytest.raises(StoreUnavailable, match="not a database"):
        Store.open(f"sqlite:///{file}")
    assert file.read_text().startswith("not a database")


def test_a_store_of_a_newer_program_is_left_alone(empty_url: str) -> None:
    Store.open(empty_url).close()
    execute(empty_url, "UPDATE trace_store_version SET version_num = '9999'")
    for migrate in (True, False):
        with pytest.raises(NewerStore, match="upgrade"):
            Store.open(empty_url, migrate=migrate)


def test_the_migrations_make_the_tables_the_program_thinks_of(empty_url: str) -> None:
    Store.open(empty_url).close()

    def included(thing: Any, _name: str | None, kind: str, _reflected: bool, _other: Any) -> bool:
        """On SQLite the index of words is tables of its own; on PostgreSQL `traces` has partitions.

        What a partitioned table cannot have is left to the partitions.
        """
        of = thing.name if kind == "table" else thing.table.name
        if not empty_url.startswith("postgresql"):
            return not of.startswith("trace_words") and thing.name != "ix_trace_texts_words"
        constraint = kind in ("foreign_key_constraint", "unique_constraint")
        return not of.startswith("traces_") and not (of == "traces" and constraint)

    with Database(empty_url).reading() as connection:
        options = {"version_table": "trace_store_version", "include_object": included}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata) == []


def test_the_migrations_run_down_and_up_again(empty_url: str) -> None:
    from alembic import command
    from alembic.config import Config

    Store.open(empty_url).close()
    database = Database(empty_url)
    with database.writing() as connection:
        config = Config()
        config.set_main_option("script_location", "rucio_trace.store:migrations")
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
    with Store.open(empty_url) as store:
        assert store.position() == 0


def test_a_store_shares_its_database_with_others(empty_url: str) -> None:
    if empty_url.startswith("sqlite"):
        (Path(make_url(empty_url).database or "")).touch()
    execute(empty_url, "CREATE TABLE alembic_version (version_num VARCHAR(32))")
    execute(empty_url, "INSERT INTO alembic_version VALUES ('of another program')")
    with Store.open(empty_url) as store:
        store.register([trace()], trust=None)
    execute(empty_url, "DELETE FROM alembic_version WHERE version_num = 'of another program'")


# ------------------------------------------------------------------------------ several at one time


def test_processes_may_open_migrate_and_register_at_once(empty_url: str) -> None:
    """The same traces by four processes: each trace is stored by one of them and known to the others."""
    made = [trace(key=product(number)) for number in range(40)]
    processes = get_context("fork")
    start, said = processes.Barrier(4), processes.SimpleQueue()

    def write() -> None:
        start.wait(60)
        with Store.open(empty_url) as store:
            for first in range(0, len(made), 5):
                said.put([answer.outcome for answer in store.register(made[first : first + 5], trust=None)])

    writers = [processes.Process(target=write, daemon=True) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    assert [writer.exitcode for writer in writers] == [0] * 4
    outcomes = Counter(outcome for _ in range(4 * 8) for outcome in said.get())
    assert outcomes == {Outcome.STORED: 40, Outcome.KNOWN: 120}
    with Store.open(empty_url) as store:
        assert {stored.id for stored in store.since(0)} == {made_one.id for made_one in made}
        assert [stored.position for stored in store.since(0)] == list(range(1, 41))


def test_whoever_saw_a_position_never_meets_a_new_trace_below_it(store: Store) -> None:
    batches = [[trace() for _ in range(3)] for _ in range(24)]
    late: list[int] = []
    seen: set[int] = set()
    done = threading.Event()

    def write(mine: list[list[Any]]) -> None:
        for batch in mine:
            store.register(batch, trust=None)

    def read() -> None:
        highest = 0
        while not (done.is_set() and highest == store.position()):
            new = {stored.position for stored in store.since(0)} - seen
            late.extend(position for position in new if position <= highest)
            seen.update(new)
            highest = max(seen, default=0)

    writers = [threading.Thread(target=write, args=(batches[n::4],)) for n in range(4)]
    reader = threading.Thread(target=read)
    reader.start()
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    done.set()
    reader.join(timeout=60)
    assert late == []
    assert seen == set(range(1, 73))


def test_a_forked_process_may_go_on_using_the_store(store: Store) -> None:
    before, inside, after = trace(), trace(), trace()
    store.register([before], trust=None)
    child = os.fork()
    if child == 0:
        try:
            answer = store.register([before, inside], trust=None)
            os._exit(0 if [a.outcome for a in answer] == [Outcome.KNOWN, Outcome.STORED] else 1)
        finally:
            os._exit(2)
    _, code = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(code) == 0
    store.register([after], trust=None)
    assert [stored.id for stored in store.since(0)] == [before.id, inside.id, after.id]


def test_a_writer_killed_before_its_commit_leaves_nothing(store: Store) -> None:
    child = os.fork()
    if child == 0:
        from rucio_trace.store import register

        original = register._insert

        def insert_and_die(*arguments: Any) -> None:
            original(*arguments)
            os.kill(os.getpid(), 9)

        register._insert = insert_and_die
        store.register([trace()], trust=None)
        os._exit(0)
    _, code = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(code) == -9
    (answer,) = store.register([trace()], trust=None)
    assert (answer.position, len(store.since(0))) == (1, 1)


# ------------------------------------------------------------------------------------ gone and back


@contextmanager
def gone(url: str, postgres: Callable[[], Any]) -> Iterator[None]:
    """The store's database is away: unmounted, or its server no longer takes connections."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        file = Path(parsed.database or "")
        file.rename(file.with_suffix(".away"))
        yield
        file.with_suffix(".away").rename(file)
        return
    with postgres().connect() as connection:
        connection.execute(f'ALTER DATABASE "{parsed.database}" ALLOW_CONNECTIONS false')
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [parsed.database]
        )
    try:
        yield
    finally:
        with postgres().connect() as connection:
            connection.execute(f'ALTER DATABASE "{parsed.database}" ALLOW_CONNECTIONS true')


def test_a_store_that_was_gone_works_when_it_is_back(
    store: Store, store_url: str, request: pytest.FixtureRequest
) -> None:
    first, second = trace(), trace()
    store.register([first], trust=None)
    with gone(store_url, lambda: request.getfixturevalue("postgres")):
        for attempt in (
            lambda: store.register([second], trust=None),
            lambda: store.by_id(first.id),
            lambda: store.search(status=Status.GENUINE),
            lambda: store.candidates({}, "file1"),
            lambda: store.product([product()]),
        ):
            with pytest.raises(StoreUnavailable):
                attempt()
        if store_url.startswith("sqlite"):
            assert not Path(make_url(store_url).database or "").exists()  # no new and empty one in its place
    answers = store.register([first, second], trust=None)
    assert [answer.outcome for answer in answers] == [Outcome.KNOWN, Outcome.STORED]


def test_a_connection_cut_in_the_pool_is_replaced(store: Store, store_url: str, postgres: Any) -> None:
    store.register([trace()], trust=None)
    with postgres.connect() as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [make_url(store_url).database]
        )
    store.register([trace()], trust=None)
    assert store.position() == 2


def test_a_lock_that_is_never_given_back_is_an_error_and_no_hang(
    store: Store, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rucio_trace.store.database.WAIT_SECONDS", 1)
    with Database(store_url).writing() as connection:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("SELECT * FROM trace_head FOR UPDATE")
        started = time.monotonic()
        with pytest.raises(StoreUnavailable, match="lock"):
            store.register([trace()], trust=None)
        assert time.monotonic() - started < 20
        assert store.position() == 0  # readers do not wait


# --------------------------------------------------------------------------------------- altered rows


def ask_everything(store: Store) -> list[list[Any]]:
    return [
        store.by_name("file1"),
        store.by_did("test", "file1"),
        store.by_digest(digest("file1")),
        store.search(),
        store.search(status=Status.GENUINE),
        store.product([product()])[product()],
        store.candidates({"SHA256": digest("file1")}, "file1"),
    ]


ALTERED = [
    ("message", "{}"),
    ("message", ""),
    ("message", "[" * 100_000),
    ("message", '{"name": "file1", "size": 10, "event": "CREATE", "hash": "' + "0" * 64 + '"}'),
    ("event", "DELETE"),
    ("name", "file2"),
    ("did", "test:file2"),
    ("generation", "2020-01-01T00:00:00.000000Z"),
    ("rse", None),
    ("revokes", "x"),
    ("time", datetime(2020, 1, 1, tzinfo=UTC).isoformat(timespec="microseconds")),
    ("id", "00000000-0000-4000-8000-000000000000"),
    ("chain", b"123"),
    ("chain", b"0" * 32),
    ("claimed", "{"),
    ("claimed", "[1]"),
    ("claimed", '{"statement": 1}'),
    ("claimed", '{"claimed_id": "x"}'),
]


@pytest.mark.parametrize(("column", "value"), ALTERED)
def test_a_row_that_contradicts_itself_is_never_handed_out(
    store: Store, store_url: str, column: str, value: object
) -> None:
    made = trace(Event.CREATE)
    store.register([made], trust=TRUST)
    execute(store_url, f"UPDATE traces SET {column} = :value", value=value)
    with pytest.raises(CorruptRow, match="altered"):
        store.since(0)
    with pytest.raises(TraceabilityError):
        ask_everything(store)


ANY_COLUMN = ["message", "signature", "certificate", "chain", "registered_at", "time", "id", "claimed"]


@pytest.mark.parametrize("column", ANY_COLUMN)
@pytest.mark.parametrize("value", [b"\xff\xfe", 7, 1.5, "\ud83d\udef0".encode("utf-16", "surrogatepass"), "text"])
def test_on_sqlite_any_value_in_any_column_raises_only_our_errors(tmp_path: Path, column: str, value: object) -> None:
    url = f"sqlite:///{tmp_path / 'traces.db'}"
    with Store.open(url) as store:
        store.register([trace(Event.CREATE)], trust=TRUST)
        execute(url, f"UPDATE traces SET {column} = :value", value=value)
        try:
            found = store.since(0)
            ask_everything(store)
        except TraceabilityError:
            return
        candidate = Candidate(file="f", base_name="file1", size=10, hashes={"SHA256": digest("file1")})
        evidence = store.candidates(candidate.hashes, "file1")
        assert found[0].trace.signature != b""
        assert judge(candidate, evidence, TRUST, datetime.now(UTC)).verdict is not Verdict.GENUINE


def test_a_statement_rewritten_in_all_its_columns_is_not_believed(store: Store, store_url: str) -> None:
    made = trace(Event.CREATE)
    store.register([made], trust=TRUST)
    forged = made.message.replace(digest("file1"), digest("flipped"))
    execute(store_url, "UPDATE traces SET message = :forged", forged=forged)
    execute(store_url, "UPDATE trace_digests SET digest = :digest", digest=bytes.fromhex(digest("flipped")))
    candidate = Candidate(file="f", base_name="file1", size=10, hashes={"SHA256": digest("flipped")})
    evidence = store.candidates(candidate.hashes, "file1")
    assert len(evidence) == 1
    assert judge(candidate, evidence, TRUST, datetime.now(UTC)).verdict is Verdict.TAMPERED


def test_another_certificate_in_the_place_of_one_is_noticed(store: Store, store_url: str) -> None:
    store.register([trace()], trust=TRUST)
    execute(store_url, "UPDATE trace_certificates SET certificate = :other", other=authority().der)
    with pytest.raises(CorruptRow, match="certificate"):
        store.since(0)


def test_a_digest_that_points_elsewhere_finds_nothing_wrong(store: Store, store_url: str) -> None:
    store.register([trace(contents=(Content("m", digest("m")),))], trust=TRUST)
    execute(
        store_url,
        "UPDATE trace_digests SET digest = :digest WHERE of_content = :no",
        digest=bytes.fromhex(digest("flipped")),
        no=False,
    )
    assert store.by_digest(digest("flipped")) == []
    candidate = Candidate(file="f", base_name="x", size=10, hashes={"SHA256": digest("flipped")})
    evidence = store.candidates(candidate.hashes, "x")
    assert judge(candidate, evidence, TRUST, datetime.now(UTC)).verdict is Verdict.UNKNOWN


# ------------------------------------------------------------------------------------------- limits


def test_more_evidence_than_can_be_judged_is_an_error_and_no_part_of_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.register([trace(rse=f"RSE-{n}") for n in range(6)], trust=None)
    monkeypatch.setattr(evidence_module, "MAX_TRACES", 5)
    with pytest.raises(TooMuchEvidence):
        store.candidates({}, "file1")


def test_a_store_is_not_copied_over_another(store: Store, tmp_path: Path) -> None:
    store.register([trace()], trust=None)
    with Store.open(f"sqlite:///{tmp_path / 'other.db'}") as other:
        other.register([trace()], trust=None)
        with pytest.raises(StoreNotEmpty):
            store.copy_to(other)
        assert other.position() == 1


def test_a_file_copied_while_nobody_writes_is_a_whole_store(tmp_path: Path) -> None:
    with Store.open(f"sqlite:///{tmp_path / 'traces.db'}") as store:
        store.register([trace()], trust=None)
        shutil.copy(
            tmp_path / "traces.db", tmp_path / "copy.db"
        )  # no connection is open: nothing waits beside the file
    with Store.open(f"sqlite:///{tmp_path / 'copy.db'}", migrate=False) as copied:
        assert copied.position() == 1
