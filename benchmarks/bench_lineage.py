"""Lineage in a store of a million edges: the tree of one product, ten steps up and ten steps down.

Products come in twelve layers, as a processing chain makes them; each is made from a few of the layer before. The
rows are written in bulk, because signing half a million traces is not what is measured, and the messages are as they
are signed: what is asked reads and checks them as always. Signatures play no part in a lineage, so all bear the same.
"""

from __future__ import annotations

import hashlib
import itertools
import random
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.harness import Row, at_most, interleaved
from benchmarks.signed import digest, product, signer, statement
from rucio_trace.envelope import Trace
from rucio_trace.statement import Event, Input
from rucio_trace.store import Store
from rucio_trace.store.bulk import insert_rows
from rucio_trace.store.rows import to_entry
from rucio_trace.store.tables import certificates, digest_sets, digests, head, inputs, traces
from rucio_trace.trace import serialise

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

EDGES = 1_000_000
LAYERS = 12
FAN_IN = 2
DEPTH = 10
NEIGHBOURS = 10  # a product is made from products close to it: of the same days and tiles
TARGET_MS = 100
_AT_ONCE = 20_000


def rows() -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder, Store.open(f"sqlite:///{Path(folder) / 'traces.db'}") as store:
        width = EDGES // FAN_IN // (LAYERS - 1)
        with store._database.writing() as connection:
            _fill(connection, width)
        top, bottom = ({digest(f"file{width * layer + width // 2}")} for layer in (LAYERS - 1, 1))

        def up() -> int:
            return _products(store, top, up=True)

        def down() -> int:
            return _products(store, bottom, up=False)

        times = interleaved(up, down)
        for name, run, seconds in (("up", up, times[0]), ("down", down, times[1])):
            told = f"lineage, {EDGES:,} edges: {DEPTH} steps {name}, {run()} products"
            yield at_most(told, seconds * 1_000, TARGET_MS, "ms")


def _products(store: Store, of: set[str], *, up: bool) -> int:
    found = store.lineage(of, up=up, depth=DEPTH)
    assert found is not None
    assert found.complete
    return len(found.products)


def _fill(connection: Connection, width: int) -> None:
    chance = random.Random(1)  # noqa: S311 - the same graph every time
    template = statement(Event.CREATE, product(0))
    message = serialise(template)
    certificate = signer().certificate
    trace = Trace(statement=template, message=message, signature=b"s", certificate=certificate)
    insert_rows(
        connection, certificates, [{"fingerprint": hashlib.sha256(certificate).digest(), "certificate": certificate}]
    )
    now = datetime.now(UTC)
    numbers = iter(range(width * LAYERS))
    while some := list(itertools.islice(numbers, _AT_ONCE)):
        entries = {number + 1: to_entry(_made(trace, number, width, chance)) for number in some}
        insert_rows(connection, digest_sets, [{"id": p, "fingerprint": e.digest_set} for p, e in entries.items()])
        own: list[dict[str, Any]] = [
            {"digest": d, "digest_set": p, "of_content": of} for p, e in entries.items() for d, of in e.digests
        ]
        insert_rows(connection, digests, own)
        wanted = [
            e.columns | {"position": p, "registered_at": now, "time": e.time, "digest_set": p}
            for p, e in entries.items()
        ]
        insert_rows(connection, traces, wanted)
        insert_rows(connection, inputs, [{"digest": d, "position": p} for p, e in entries.items() for d in e.inputs])
    connection.execute(head.update().values(position=width * LAYERS))


def _made(like: Trace, number: int, width: int, chance: random.Random) -> Trace:
    """The CREATE of product *number*, from its neighbours in the layer before."""
    layer, place = divmod(number, width)
    sources = [(place + chance.randrange(NEIGHBOURS)) % width + (layer - 1) * width for _ in range(FAN_IN)]
    given = [Input(f"file{s}", digest(f"file{s}")) for s in dict.fromkeys(sources)] if layer else []
    made = statement(Event.CREATE, product(number), inputs=tuple(given) or None)
    return Trace(statement=made, message=serialise(made), signature=like.signature, certificate=like.certificate)
