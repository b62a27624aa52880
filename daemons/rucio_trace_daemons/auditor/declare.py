"""Bad replicas, declared in Rucio: its necromancer and conveyor then replace them from a good copy.

Only on the word of a CORRUPT or LOST trace that stands, of a replica that Rucio still calls available, and only where
another replica of the product is proven and available: the last good copy of a file is never declared here. The change
is tagged in its transaction, so the outbox row it leaves is known for what it is (docs/adr/0117).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rucio.common.types import InternalAccount, InternalScope
from rucio.db.sqla.constants import DatabaseOperationType
from rucio.db.sqla.session import db_session
from rucio_trace_policy.acting import tag
from rucio_trace_policy.tables import Moment, tables
from sqlalchemy import Text, and_, exists, or_, select

from rucio_trace_daemons.recorder.resolve import resolve
from rucio_trace_daemons.recorder.rows import AUDIT
from rucio_trace_daemons.recorder.sets import among

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from sqlalchemy import Engine, Row

__all__ = ["Condemned", "condemned", "declare"]

# How many products are looked at together.
CHUNK = 1_000


@dataclass(frozen=True, slots=True)
class Condemned:
    """A replica that a trace condemns and Rucio calls available; `saved`: another one is proven and available."""

    rse_id: str
    scope: str  # as Rucio keeps it
    name: str
    state: str  # corrupt, or lost
    trace_id: str
    saved: bool

    @property
    def did(self) -> str:
        return f"{InternalScope(self.scope, from_external=False).external}:{self.name}"


def condemned(engine: Engine, rse_ids: Collection[str] | None) -> Iterator[Condemned]:
    """Those on the RSEs (None: any) about which nothing is pending."""
    after: tuple[Any, ...] | None = None
    while products := _products(engine, after):
        yield from _of_products(engine, products, rse_ids)
        after = tuple(products[-1])


def _products(engine: Engine, after: tuple[Any, ...] | None) -> Sequence[Row[Any]]:
    """The next products with a bad replica, a short scan of an index."""
    p = tables(engine.dialect.name).products.c
    key = (p.scope, p.name, p.generation)
    query = select(*key).where(p.status.in_(("DEGRADED", "TAMPERED"))).order_by(*key).limit(CHUNK)
    if after is not None:
        scope, name, generation = after
        query = query.where(
            or_(
                p.scope > scope,
                and_(p.scope == scope, p.name > name),
                and_(p.scope == scope, p.name == name, p.generation > generation),
            )
        )
    with engine.connect() as connection:
        return connection.execute(query).all()


def _of_products(engine: Engine, products: Sequence[Row[Any]], rse_ids: Collection[str] | None) -> Iterator[Condemned]:
    ours = tables(engine.dialect.name)
    r, o = ours.replicas.c, ours.outbox.c
    names = {(row.scope, row.name) for row in products}
    pending = exists().where(o.scope == r.scope, o.name == r.name, o.rse_id == r.rse_id)
    query = select(r.scope, r.name, r.generation, r.rse_id, r.state, r.trace_id, pending.label("pending"))
    keys = [tuple(row) for row in products]
    of_products = among(engine.dialect.name, (r.scope, r.name, r.generation), (Text(), Text(), Moment()), keys)
    by_product: dict[tuple[str, str, Any], list[Any]] = defaultdict(list)
    with engine.connect() as connection:
        for row in connection.execute(query.where(of_products)):
            by_product[row.scope, row.name, row.generation].append(row)
    available = {
        (product, known.rse_id)
        for product, replicas in resolve(engine, names, ()).replicas.items()
        for known in replicas
        if known.state == "A"
    }
    for (scope, name, _), rows in by_product.items():
        there = [row for row in rows if ((scope, name), row.rse_id) in available]
        saved = any(row.state == "proven" for row in there)
        for row in there:
            mine = rse_ids is None or row.rse_id in rse_ids
            if mine and row.state in ("corrupt", "lost") and not row.pending:
                yield Condemned(row.rse_id, scope, name, row.state, row.trace_id, saved)


def declare(replicas: Sequence[Condemned], account: str) -> None:
    """Declare *replicas* bad in Rucio, in the name of *account*, in one transaction.

    Raises:
        RucioException, SQLAlchemyError: none was declared.
    """
    # Late, because importing it asks the database for its configuration.
    from rucio.core.replica import declare_bad_file_replicas

    vo = InternalScope(replicas[0].scope, from_external=False).vo
    issuer = InternalAccount(account, vo=vo)
    with db_session(DatabaseOperationType.WRITE) as session:
        tag(session, issuer.internal, AUDIT)
        for replica in replicas:
            scope = InternalScope(replica.scope, from_external=False)
            bad = {"scope": scope, "name": replica.name, "rse_id": replica.rse_id}
            reason = f"rucio-trace: {replica.state}, trace {replica.trace_id}"
            declare_bad_file_replicas([bad], reason, issuer, session=session)
