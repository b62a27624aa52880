"""Lookups among ten million traces on PostgreSQL, and among one million, in one partition and in many; a trace's bytes.

The traces are of archives with two members, each made at one RSE and copied to another. Their statements are whole and
their signatures random: a lookup reads and compares the text, and verifies nothing. They are loaded before the indices
are made, which is how ten million come within minutes; registration itself is measured by `bench_service`.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import random
import statistics
import time
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from rucio_trace_sandbox.postgres import DURABLE, PostgresCluster
from rucio_trace_sandbox.workspace import workspace

from benchmarks.harness import ROUNDS, Row, at_most, compared
from benchmarks.signed import creations, signer, statement, trust
from rucio_trace.product_digest import product_digest
from rucio_trace.statement import Content, Event, ProductKey, parse_time
from rucio_trace.store import Store, partitions
from rucio_trace.store.bulk import insert_rows, insert_values
from rucio_trace.store.counts import add_counts
from rucio_trace.store.database import Database
from rucio_trace.store.read import prefixes
from rucio_trace.store.rows import fingerprint
from rucio_trace.store.tables import certificates, contents, digest_sets, digests, texts, traces
from rucio_trace.trace import serialise
from rucio_trace.words import words_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


MANY = int(os.environ.get("RUCIO_TRACE_BENCH_TRACES", "10_000_000"))
FEW = MANY // 10
PARTITIONS = 10  # as 1.3 billion traces would have
LOADED_AT_ONCE = 10_000  # products, of two traces each
REGISTERED_AT_ONCE = 1_000
LOOKUPS, TURNS = 2_000, 3
P99_TARGET = 10  # ms
GROWTH_TARGET = 1.3
LOADING_TARGET = 20 * 60
BYTES_TARGET = 1_500
CORES = 2

KEY = ProductKey("RUCIO", "def", "s2", "@name@", "2026-05-01T10:00:00.000000Z")
MEMBERS = tuple(Content(f"GRANULE/IMG_DATA/B0{m}.jp2", str(m) * 64) for m in (2, 3))


def rows() -> Iterator[Row]:
    with ExitStack() as stack:
        cluster = stack.enter_context(PostgresCluster.start(stack.enter_context(workspace()) / "pg", DURABLE))
        few, apart, many = (cluster.url(cluster.create()) for _ in range(3))
        _load(few, FEW)
        _load(apart, FEW, PARTITIONS)
        start = time.perf_counter()
        _load(many, MANY)
        yield at_most(f"store: load {MANY:,} traces", time.perf_counter() - start, LOADING_TARGET)
        yield at_most(f"store: a trace of {MANY:,} on disk", _bytes(many) / MANY, BYTES_TARGET, "bytes")
        for name, among_few, among_apart, among_many in _measured(few, apart, many):
            yield at_most(f"store: by {name} among {MANY:,}, p99", among_many, P99_TARGET, "ms")
            yield at_most(f"store: the same by that among {FEW:,}", among_many / among_few, GROWTH_TARGET, "x")
            yield at_most(f"store: by {name} among {FEW:,} in {PARTITIONS} partitions", among_apart, P99_TARGET, "ms")
        yield _registering(few, apart)


# ------------------------------------------------------------------------------------------ loading


def _load(url: str, count: int, spread: int = 1) -> None:
    """Load *count* traces, in equal parts into *spread* partitions."""
    Store.open(url).close()
    database = Database(url)
    with database.writing() as connection:
        connection.exec_driver_sql(f"UPDATE trace_head SET position = {_place(spread - 1, spread) + count}")
        partitions.ensure(connection)
    with _without_indices(database):
        with database.writing() as connection:
            insert_rows(connection, certificates, [_certificate()])
        parts = [(url, first, count // 2, spread) for first in range(0, count // 2, LOADED_AT_ONCE)]
        with multiprocessing.get_context("fork").Pool(CORES) as pool:
            pool.starmap(_load_part, parts, chunksize=1)
        with database.writing() as connection:
            for first, event, rse in ((1, "CREATE", "SITE-A_DISK"), (2, "COPY", "SITE-B_DISK")):
                rows = range(first, count + 1, 2)
                add_counts(connection, ({"event": event, "position": p, "rse": rse, "provider": None} for p in rows))
    database.close()


def _place(number: int, spread: int) -> int:
    """The position of product *number*'s CREATE; the first partition is of double width."""
    partition = number % spread
    return 2 * number + 1 + (partition + (partition > 0)) * partitions.TRACES_A_PARTITION


def _certificate() -> dict[str, bytes]:
    der = signer().certificate
    return {"fingerprint": fingerprint(der), "certificate": der}


def name_of(number: int) -> str:
    return f"S2A_MSIL1C_20260501T100031_N0510_R{number % 143:03}_T{number:09}_20260501T120000.SAFE.zip"


def digest_of(what: str, number: int) -> str:
    return hashlib.blake2b(f"{what} {number}".encode(), digest_size=32).hexdigest()


def _template(event: Event, rse: str) -> str:
    made = statement(
        event,
        KEY,
        hash="0" * 64,
        hash_algorithm="BLAKE3",
        hashes={"ADLER32": "1" * 8},
        contents=MEMBERS,
        size=812_345_678,
        rse=rse,
        event_id="00000000-0000-4000-8000-000000000000",
        salt="f" * 32,
    )
    return serialise(made)


def _load_part(url: str, first: int, end: int, spread: int) -> None:
    """Products *first* and those that follow it, of *end* in all, each with its COPY behind its CREATE."""
    places = {n: _place(n, spread) for n in range(first, min(first + LOADED_AT_ONCE, end))}
    database = Database(url)
    made = (
        (Event.CREATE, "SITE-A_DISK", _template(Event.CREATE, "SITE-A_DISK")),
        (Event.COPY, "SITE-B_DISK", _template(Event.COPY, "SITE-B_DISK")),
    )
    with database.writing() as connection:
        insert_values(connection, traces, _traces(places, made))
        insert_values(connection, digest_sets, ((place, os.urandom(32)) for place in places.values()))
        own = ((bytes.fromhex(digest_of("own", n)), place, False) for n, place in places.items())
        insert_values(connection, digests, own)
        insert_values(connection, digests, ((os.urandom(4), place, False) for place in places.values()))
        insert_values(connection, contents, _contents(places))
        words = ((place, sorted(words_of(name_of(n), None))) for n, place in places.items())
        insert_values(connection, texts, words)
    database.close()


def _traces(places: dict[int, int], made: tuple[tuple[Event, str, str], ...]) -> Iterator[tuple[Any, ...]]:
    at = parse_time(KEY.generation) + timedelta(days=1)
    der, signature = fingerprint(signer().certificate), os.urandom(71)
    for n, place in places.items():
        name, own, members = name_of(n), digest_of("own", n), [digest_of(f"member {m}", n) for m in (2, 3)]
        for offset, (event, rse, template) in enumerate(made):
            raw = os.urandom(32).hex()
            id_ = f"{raw[:8]}-{raw[8:12]}-4{raw[13:16]}-8{raw[17:20]}-{raw[20:32]}"
            text = template.replace("@name@", name).replace("0" * 64, own).replace("2" * 64, members[0])
            text = text.replace("3" * 64, members[1]).replace("00000000-0000-4000-8000-000000000000", id_)
            text = text.replace("f" * 32, raw[32:])
            yield (
                *(place + offset, id_, at, str(event), TIME, name, f"s2:{name}", KEY.generation, rse, None),
                *(place, der, b"", text, signature, None, None),
            )


TIME = parse_time(str(statement(Event.CREATE, KEY).time))


def _contents(places: dict[int, int]) -> Iterator[tuple[int, int]]:
    for n, place in places.items():
        found = [(member.path, digest_of(f"member {m}", n)) for m, member in zip((2, 3), MEMBERS, strict=True)]
        of_n = [bytes.fromhex(digest) for digest in (product_digest(found), *(digest for _, digest in found))]
        yield from ((known, place) for known in prefixes(of_n))


@contextmanager
def _without_indices(database: Database) -> Iterator[None]:
    tables = "'traces', 'trace_digests', 'trace_digest_sets', 'trace_contents', 'trace_texts'"
    with database.writing() as connection:
        keys = connection.exec_driver_sql(
            "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE contype IN "
            f"('p', 'u') AND (conrelid::regclass::text IN ({tables}) OR conrelid::regclass::text LIKE 'traces\\_%%') "
            "AND conname NOT LIKE 'pk_traces%%' AND conname NOT LIKE 'traces\\_%%\\_pkey'"
        ).all()
        indices = connection.exec_driver_sql(
            "SELECT indexname, indexdef FROM pg_indexes WHERE tablename IN ('traces', 'trace_texts') "
            "AND indexname NOT LIKE 'pk_%%'"
        ).all()
        for table, name, _ in keys:
            connection.exec_driver_sql(f"ALTER TABLE {table} DROP CONSTRAINT {name}")
        for name, _ in indices:
            connection.exec_driver_sql(f"DROP INDEX {name}")
    yield
    with database.writing() as connection:
        connection.exec_driver_sql("SET LOCAL maintenance_work_mem = '1GB'")
        for table, name, definition in keys:
            connection.exec_driver_sql(f"ALTER TABLE {table} ADD CONSTRAINT {name} {definition}")
        for _, definition in indices:
            connection.exec_driver_sql(definition.replace(" ON ONLY ", " ON "))  # with those of the partitions
    with database.reading() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").exec_driver_sql("VACUUM ANALYZE")


# ---------------------------------------------------------------------------------------- measuring


def _bytes(url: str) -> int:
    with Database(url).reading() as connection:
        return int(connection.exec_driver_sql("SELECT pg_database_size(current_database())").scalar_one())


def _measured(*urls: str) -> Iterator[tuple[str, float, float, float]]:
    """For each kind of lookup its p99 in milliseconds in each store, medians of several turns."""
    kinds: dict[str, Callable[[Store, int], list[Any]]] = {
        "name": lambda store, n: store.by_name(name_of(n)),
        "digest": lambda store, n: store.by_digest(digest_of("own", n)),
        "a member's digest": lambda store, n: store.by_content(digest_of("member 3", n)),
    }
    with ExitStack() as stack:
        stores = [stack.enter_context(Store.open(url)) for url in urls]
        for name, look in kinds.items():
            turns = [
                [_p99(look, store, count // 2) for store, count in zip(stores, (FEW, FEW, MANY), strict=True)]
                for _ in range(TURNS)
            ]
            yield name, *map(statistics.median, zip(*turns, strict=True))


def _p99(look: Callable[[Store, int], list[Any]], store: Store, products: int) -> float:
    times = []
    for number in random.sample(range(products), LOOKUPS):
        start = time.perf_counter()
        found = look(store, number)
        times.append(time.perf_counter() - start)
        assert [stored.trace.statement.name for stored in found] == [name_of(number)] * 2
    return statistics.quantiles(times, n=100)[98] * 1_000


def _registering(one: str, several: str) -> Row:
    """Whether it takes longer where ids are looked for in many partitions."""
    rounds = 2 * ROUNDS
    firsts = range(0, 2 * (rounds + 1) * REGISTERED_AT_ONCE, REGISTERED_AT_ONCE)
    made = iter([creations(first, REGISTERED_AT_ONCE, len(MEMBERS)) for first in firsts])

    def register(store: Store) -> None:
        assert all(answer.position for answer in store.register(next(made), trust=trust()))

    with Store.open(one) as whole, Store.open(several) as parted:
        return compared(
            f"store: register {REGISTERED_AT_ONCE:,} traces where there are {PARTITIONS} partitions",
            lambda: register(parted),
            lambda: register(whole),
            peer_name="where there is one",
            limit=GROWTH_TARGET,
            rounds=rounds,
        )
