"""The end of a row: its trace is in the store, Rucio shows the product's status, the row is gone.

Status is computed from the store's whole history of a product, never counted up, and carries the store's position: a
late writer with an older view changes nothing. All of it, and the removal of the rows, is one transaction.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rucio_trace_policy.columns import Moment
from rucio_trace_policy.tables import tables
from sqlalchemy import Table, Text, select

from rucio_trace.dataset import is_dataset
from rucio_trace.status import product_status
from rucio_trace_daemons.recorder.counting import mark_parents, note_dataset
from rucio_trace_daemons.recorder.decide import DATASETS
from rucio_trace_daemons.recorder.resolve import alive, rse_vos
from rucio_trace_daemons.recorder.rows import Settled, Signed
from rucio_trace_daemons.recorder.sets import among
from rucio_trace_daemons.recorder.upsert import upsert

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Engine

    from rucio_trace.status import ProductStatus
    from rucio_trace.store import BatchLine, Stored
    from rucio_trace.trace import ProductKey
    from rucio_trace_daemons.recorder.rows import Fate, Row

__all__ = ["Key", "Names", "Snapshot", "count_outcomes", "snapshot", "write_snapshots"]

# A product as our tables key it: scope and name as Rucio keeps them, and the begin of the generation.
Key = tuple[str, str, "datetime"]

_NONE = -1  # before any position of a store


class Names:
    """RSE ids by every name under which an RSE was ever signed: a trace holds the name of its moment.

    VOs of one Rucio may give the same name to RSEs of their own.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._table = tables(engine.dialect.name).rse_names
        self._ids: dict[tuple[str, str], str] = {}

    def load(self) -> None:
        with self._engine.connect() as connection:
            vos = rse_vos(connection)
            for row in connection.execute(select(self._table)):
                if row.rse_id in vos:
                    self._ids.setdefault((vos[row.rse_id], row.name), row.rse_id)

    def learn(
        self, histories: Mapping[ProductKey, Sequence[Stored]], lines: Mapping[ProductKey, Sequence[BatchLine]]
    ) -> None:
        """Ask again if a name in them is unknown: another daemon may have signed it first."""
        names = {(key.vo, stored.trace.statement.rse) for key, history in histories.items() for stored in history}
        names |= {(key.vo, line.rse) for key, of_product in lines.items() for line in of_product}
        if any(name and (vo, name) not in self._ids for vo, name in names):
            self.load()

    def of(self, vo: str) -> Callable[[str], str]:
        """What gives the id for the name of an RSE of *vo*; for a name nobody ever signed here, the name itself."""
        return lambda name: self._ids.get((vo, name), name)

    def note(self, vo: str, name: str, rse_id: str) -> None:
        self._ids[vo, name] = rse_id

    def save(self, connection: Connection, names: Collection[tuple[str, str]]) -> None:
        """Remember *names* (each with the RSE's id) in the caller's transaction."""
        if names:
            values = [{"name": name, "rse_id": rse_id} for name, rse_id in sorted(names)]
            upsert(connection, self._table, values)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is known of one product now; of a dataset, what its own traces say."""

    key: Key
    status: ProductStatus
    proven_names: Mapping[str, str]  # the name last signed, by RSE id
    attributes: Mapping[str, Any]
    is_dataset: bool = False


def snapshot(
    key: Key, history: Sequence[Stored], rse_id_of: Callable[[str], str], lines: Sequence[BatchLine] = ()
) -> Snapshot:
    """The status that *history* and *lines*, all of one product, amount to."""
    status = product_status(history, rse_id_of, lines)
    signed = sorted([*history, *(line.batch for line in lines)], key=lambda stored: stored.position)
    names = {rse_id_of(s.trace.statement.rse): s.trace.statement.rse for s in signed if s.trace.statement.rse}
    attributes: dict[str, Any] = {}
    for stored in history:
        attributes |= stored.trace.statement.attributes or {}
    if status.origin is not None:
        attributes |= status.origin.trace.statement.attributes or {}
    return Snapshot(key, status, names, attributes, is_dataset(stored.trace for stored in history))


def write_snapshots(connection: Connection, snapshots: Sequence[Snapshot]) -> None:
    """Write what is newer than what stands there; forget products that Rucio has removed."""
    for s in sorted((s for s in snapshots if s.is_dataset), key=lambda s: s.key):
        note_dataset(connection, s.key, s.status)
    snapshots = [s for s in snapshots if not s.is_dataset]
    if not snapshots:
        return
    ours = tables(connection.dialect.name)
    living = alive(connection, {(s.key[0], s.key[1]) for s in snapshots})
    gone = {s.key for s in snapshots if living.get((s.key[0], s.key[1])) != s.key[2]}
    before = _lock(connection, ours.products, [s for s in snapshots if s.key not in gone])
    newer = [s for s in snapshots if s.key not in gone and before.get(s.key, _NOTHING)[0] <= s.status.position]
    _forget(connection, ours.products, list(gone))
    # Replicas that were deleted are in no snapshot: all of the product's rows make way for the new ones.
    for table in (ours.replicas, ours.signed):
        _forget(connection, table, [*gone, *(s.key for s in newer)])
    if newer:
        # A row that others wait for is changed and never replaced: they would find it gone, and not see the new one.
        columns = [c.name for c in ours.products.c if not c.primary_key]
        rows = [_product_row(s) for s in newer]
        upsert(connection, ours.products, rows, lambda new: {name: new[name] for name in columns})
    replicas = [row for s in newer for row in _replica_rows(s)]
    signed = [row for s in newer for row in _signed_rows(s)]
    for table, values in ((ours.replicas, replicas), (ours.signed, signed)):
        if values:
            connection.execute(table.insert(), values)
    changed = [s.key for s in newer if before.get(s.key, _NOTHING)[1:] != (str(s.status.status), _hash(s))]
    mark_parents(connection, changed)


# Position, status and digest of a product's row.
Before = tuple[int, str | None, str | None]
_NOTHING: Before = (_NONE, None, None)


def _lock(connection: Connection, products: Table, snapshots: Sequence[Snapshot]) -> dict[Key, Before]:
    """What each product's row says; locked, so that nobody writes an older one after us.

    Where there is no row one is made first: what is not there cannot be locked.
    """
    before = _before(connection, products, [s.key for s in snapshots])
    missing = sorted((s for s in snapshots if s.key not in before), key=lambda s: s.key)
    if missing:
        upsert(connection, products, [_product_row(s) | {"position": _NONE} for s in missing])
        made = _before(connection, products, [s.key for s in missing])
        # Ours, or made by another writer meanwhile: what it was before tells nobody that it changed.
        before |= {key: (position, None, None) for key, (position, _, _) in made.items()}
    return before


def _before(connection: Connection, products: Table, keys: Sequence[Key]) -> dict[Key, Before]:
    if not keys:
        return {}
    c = products.c
    query = select(c.scope, c.name, c.generation, c.position, c.status, c.hash).where(
        _among(connection, products, keys)
    )
    # In one order everywhere, so that two writers never wait for each other in a circle.
    rows = connection.execute(query.order_by(c.scope, c.name, c.generation).with_for_update())
    return {(row.scope, row.name, row.generation): (row.position or 0, row.status, row.hash) for row in rows}


def _hash(s: Snapshot) -> str | None:
    return s.status.origin.trace.statement.hash if s.status.origin else None


def _forget(connection: Connection, table: Table, keys: Sequence[Key]) -> None:
    if keys:
        connection.execute(table.delete().where(_among(connection, table, keys)))


def _among(connection: Connection, table: Table, keys: Collection[Key]) -> Any:
    c = table.c
    return among(connection.dialect.name, (c.scope, c.name, c.generation), (Text(), Text(), Moment()), keys)


def _product_row(s: Snapshot) -> dict[str, Any]:
    scope, name, generation = s.key
    origin = s.status.origin
    statement = origin.trace.statement if origin else None
    return {
        "scope": scope,
        "name": name,
        "generation": generation,
        "status": str(s.status.status),
        "proven": s.status.proven,
        "total": s.status.total,
        "trace_id": origin.id if origin else None,
        "hash": _hash(s),
        "hash_algorithm": statement.hash_algorithm if statement else None,
        "signer": statement.signer if statement else None,
        "verified_at": s.status.verified_at,
        "attributes": json.dumps(s.attributes, ensure_ascii=False, sort_keys=True) if s.attributes else None,
        "position": s.status.position,
    }


def _replica_rows(s: Snapshot) -> list[dict[str, Any]]:
    scope, name, generation = s.key
    return [
        {
            "scope": scope,
            "name": name,
            "generation": generation,
            "rse_id": rse_id,
            "rse": s.proven_names.get(rse_id),
            "state": str(replica.state),
            "trace_id": replica.trace_id,
            "proven_at": replica.proven_at,
            "position": s.status.position,
        }
        for rse_id, replica in s.status.replicas.items()
    ]


def _signed_rows(s: Snapshot) -> list[dict[str, Any]]:
    """Size and checksums that the origin's trace gives; no row where there is no origin."""
    if s.status.origin is None:
        return []
    scope, name, generation = s.key
    origin = s.status.origin.trace.statement
    hashes = origin.hashes or {}
    checksums = {"adler32": hashes.get("ADLER32"), "md5": hashes.get("MD5")}
    return [{"scope": scope, "name": name, "generation": generation, "bytes": origin.size, **checksums}]


def outcome(fate: Fate) -> str:
    """The word under which a finished row is counted."""
    if isinstance(fate, Signed):
        return str(fate.trace.statement.event)
    assert isinstance(fate, Settled)
    return str(fate.reason)


def count_outcomes(connection: Connection, finished: Iterable[tuple[Row, str]]) -> None:
    """Add rows that ended, each with its outcome, to the counts, in the transaction that removes them."""
    counts = Counter((row.rse_id or DATASETS, word) for row, word in finished)
    if not counts:
        return
    table = tables(connection.dialect.name).outcomes
    # In one order everywhere, so that two recorders never wait for each other in a circle.
    values = [{"rse_id": rse, "reason": word, "count": count} for (rse, word), count in sorted(counts.items())]
    upsert(connection, table, values, lambda new: {"count": table.c.count + new.count})
