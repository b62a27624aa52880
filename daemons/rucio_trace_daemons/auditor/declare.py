"""Bad replicas, declared in Rucio: its necromancer and conveyor then replace them from a good copy.

Only on the word of a CORRUPT or LOST trace that stands, of a replica that Rucio still calls available, and only where
another replica of the product is proven and available: the last good copy of a file is never declared here. All of that
is looked at again in the transaction that declares. The change is tagged there, so the outbox row it leaves is known
for what it is (docs/adr/0117).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rucio.common.types import InternalAccount, InternalScope
from rucio.db.sqla.constants import DatabaseOperationType
from rucio.db.sqla.session import db_session
from rucio_trace_policy.acting import tag
from rucio_trace_policy.columns import Moment
from rucio_trace_policy.tables import tables
from sqlalchemy import Text, and_, cast, column, exists, literal_column, select, text

from rucio_trace.errors import ConfigurationError
from rucio_trace_daemons.recorder.resolve import alive, guid, rucio_table
from rucio_trace_daemons.recorder.rows import AUDIT
from rucio_trace_daemons.recorder.sets import after, among

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Engine, Row

    from rucio_trace_daemons.recorder.finish import Key

__all__ = ["Condemned", "condemned", "declare"]

# How many products are looked at together.
CHUNK = 1_000
# Literals, for which the database knows that its index of bad replicas will do.
_BAD = (literal_column("'corrupt'"), literal_column("'lost'"))
_REPLICAS = rucio_table("replicas", *map(column, ("scope", "name", "state")), guid("rse_id"))


@dataclass(frozen=True, slots=True)
class Condemned:
    """A replica that a trace condemns and Rucio calls available; `saved`: another one is proven and available."""

    rse_id: str
    scope: str  # as Rucio keeps it
    name: str
    generation: datetime
    state: str  # corrupt, or lost
    trace_id: str
    saved: bool

    @property
    def did(self) -> str:
        return f"{InternalScope(self.scope, from_external=False).external}:{self.name}"


def condemned(engine: Engine, rse_ids: Collection[str] | None) -> Iterator[Condemned]:
    """Those on the RSEs (None: any) of products about whose replicas nothing is pending."""
    last: Row[Any] | None = None
    while products := _products(engine, last):
        yield from _of_products(engine, products, rse_ids)
        last = products[-1]


def _products(engine: Engine, last: Row[Any] | None) -> Sequence[Row[Any]]:
    """The next products with a bad replica, whose origin counts: a short scan of an index."""
    ours = tables(engine.dialect.name)
    r, p = ours.replicas.c, ours.products.c
    key = (r.scope, r.name, r.generation)
    same = and_(p.scope == r.scope, p.name == r.name, p.generation == r.generation)
    counts = exists().where(same, p.status.not_in(("DISPUTED", "REVOKED")))
    query = select(*key).where(r.state.in_(_BAD), counts).distinct().order_by(*key).limit(CHUNK)
    if last is not None:
        query = query.where(after(engine.dialect.name, key, last))
    with engine.connect() as connection:
        return connection.execute(query).all()


def _of_products(engine: Engine, products: Sequence[Row[Any]], rse_ids: Collection[str] | None) -> Iterator[Condemned]:
    with engine.connect() as connection:
        found = _judge(connection, [tuple(row) for row in products])
    yield from (replica for replica in found if rse_ids is None or replica.rse_id in rse_ids)


def _judge(connection: Connection, keys: Collection[Key], *, lock: bool = False) -> list[Condemned]:
    """What is condemned of the products *keys*; with *lock* Rucio changes none of their replicas until we are done.

    Rucio's rows are read before ours: whatever changed one of them by then is seen in ours, or pending.
    """
    ours = tables(connection.dialect.name)
    r, o = ours.replicas.c, ours.outbox.c
    names = {(scope, name) for scope, name, _ in keys}
    available, living = _available(connection, names, lock=lock), alive(connection, names)
    pending = exists().where(o.scope == r.scope, o.name == r.name, o.rse_id == r.rse_id)
    query = select(r.scope, r.name, r.generation, r.rse_id, r.state, r.trace_id, pending.label("pending"))
    of_products = among(connection.dialect.name, (r.scope, r.name, r.generation), (Text(), Text(), Moment()), keys)
    by_product: dict[tuple[str, str], list[Row[Any]]] = defaultdict(list)
    for row in connection.execute(query.where(of_products)):
        if living.get((row.scope, row.name)) == row.generation and (row.scope, row.name, row.rse_id) in available:
            by_product[row.scope, row.name].append(row)
    return [
        Condemned(
            row.rse_id, scope, name, row.generation, row.state, row.trace_id, any(x.state == "proven" for x in rows)
        )
        for (scope, name), rows in by_product.items()
        if not any(row.pending for row in rows)
        for row in rows
        if row.state in ("corrupt", "lost")
    ]


def _available(connection: Connection, names: Collection[tuple[str, str]], *, lock: bool) -> set[tuple[str, str, str]]:
    """Scope, name and RSE of every replica that Rucio calls available."""
    c = _REPLICAS.c
    named = among(connection.dialect.name, (c.scope, c.name), (Text(), Text()), names)
    query = select(c.scope, c.name, c.rse_id).where(named, cast(c.state, Text) == "A")  # an enumeration on PostgreSQL
    if lock:  # in one order everywhere
        query = query.order_by(c.scope, c.name, c.rse_id).with_for_update()
    return {(row.scope, row.name, row.rse_id) for row in connection.execute(query)}


def declare(replicas: Sequence[Condemned], account: str) -> int:
    """Declare *replicas* bad in Rucio, in the name of *account*, in one transaction; returns how many were.

    They are judged again there, their products' replicas locked: what is condemned no more is left out, and so is what
    was `saved` and has no good copy by now.

    Raises:
        ConfigurationError: Rucio has no such account.
        RucioException, SQLAlchemyError: none was declared.
    """
    # Late, because importing them asks the database for its configuration.
    from rucio.core.account import account_exists
    from rucio.core.replica import declare_bad_file_replicas

    vo = InternalScope(replicas[0].scope, from_external=False).vo
    issuer = InternalAccount(account, vo=vo)
    with db_session(DatabaseOperationType.WRITE) as session:
        if session.get_bind().dialect.name == "mysql":  # else all is judged by how it was at the first look
            session.execute(text("SET TRANSACTION ISOLATION LEVEL READ COMMITTED"))
        if not account_exists(issuer, session=session):
            raise ConfigurationError("account", expected="an account of Rucio, who declares", found=account)
        tag(session, issuer.internal, AUDIT)  # on SQLite this is what begins the transaction
        judged = _judge(session.connection(), {(one.scope, one.name, one.generation) for one in replicas}, lock=True)
        # Those that had no good copy are declared as they are: whoever asks for that knows.
        still = [one for one in replicas if one in judged or (not one.saved and replace(one, saved=True) in judged)]
        for replica in still:
            scope = InternalScope(replica.scope, from_external=False)
            bad = {"scope": scope, "name": replica.name, "rse_id": replica.rse_id}
            reason = f"rucio-trace: {replica.state}, trace {replica.trace_id}"
            # With force also what an older declaration that nobody closed speaks of.
            declare_bad_file_replicas([bad], reason, issuer, force=True, session=session)
    return len(still)
