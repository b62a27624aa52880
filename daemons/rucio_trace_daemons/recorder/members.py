"""What is in a dataset: which files, in the order in which they are signed, and how many of each status."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rucio.common.types import InternalScope
from rucio_trace_policy.columns import Moment
from rucio_trace_policy.tables import tables
from sqlalchemy import LargeBinary, Text, and_, cast, column, func, select

from rucio_trace.dataset import Counted
from rucio_trace_daemons.recorder.resolve import rucio_table
from rucio_trace_daemons.recorder.sets import among

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from sqlalchemy import Connection, Engine

__all__ = ["Content", "Key", "content_of", "members_of", "parents_of"]

# A dataset or a file as our tables key it: scope and name as Rucio keeps them, and the begin of the generation.
Key = tuple[str, str, datetime]

_CONTENTS = rucio_table(
    "contents", *(column(name, Text()) for name in ("scope", "name", "child_scope", "child_name", "did_type")),
    column("bytes"),
)  # fmt: skip
_DIDS = rucio_table("dids", *map(column, ("scope", "name", "is_open")), column("created_at", Moment()))


@dataclass(frozen=True, slots=True)
class Content:
    """A living dataset at one moment. `lacking`: files of which no origin is known; `proven_at`: the oldest proof."""

    closed: bool
    counted: Counted
    lacking: int
    proven_at: datetime | None


def parents_of(connection: Connection, files: Collection[tuple[str, str]]) -> list[Key]:
    """The datasets that hold any of *files*, in one order for everybody who locks them."""
    if not files:
        return []
    c, d = _CONTENTS.c, _DIDS.c
    query = (
        select(c.scope, c.name, d.created_at)
        .distinct()
        .join_from(_CONTENTS, _DIDS, and_(d.scope == c.scope, d.name == c.name))
        .where(among(connection.dialect.name, (c.child_scope, c.child_name), (Text(), Text()), files))
        .where(cast(c.did_type, Text) == "D")
    )
    return sorted((row.scope, row.name, row.created_at) for row in connection.execute(query))


def content_of(connection: Connection, key: Key) -> Content | None:
    """What the dataset holds now, by one aggregate; None when this generation of it is gone."""
    scope, name, generation = key
    d = _DIDS.c
    did = select(d.is_open).where(d.scope == scope, d.name == name, d.created_at == generation)
    dataset = connection.execute(did).one_or_none()
    if dataset is None:
        return None
    c, p = _CONTENTS.c, tables(connection.dialect.name).products.c
    counts = (
        select(
            p.status,
            func.count().label("files"),
            func.sum(c.bytes).label("bytes"),
            func.count(c.bytes).label("sized"),
            func.count(p.hash).label("known"),
            func.min(p.verified_at).label("proven_at"),
        )
        .select_from(_with_products(connection))
        .where(c.scope == scope, c.name == name)
        .group_by(p.status)
    )
    rows = connection.execute(counts).all()
    total = sum(row.files for row in rows)
    size = sum(int(row.bytes or 0) for row in rows) if sum(row.sized for row in rows) == total else None
    return Content(
        closed=not dataset.is_open,
        counted=Counted({row.status: row.files for row in rows}, size),
        lacking=total - sum(row.known for row in rows),
        proven_at=min((row.proven_at for row in rows if row.proven_at is not None), default=None),
    )  # fmt: skip


def _with_products(connection: Connection) -> Any:
    """Rucio's table of contents, each file with its generation and, where there is one, its status."""
    c, d, products = _CONTENTS.c, _DIDS.c, tables(connection.dialect.name).products
    p = products.c
    files = _CONTENTS.join(_DIDS, and_(d.scope == c.child_scope, d.name == c.child_name))
    return files.outerjoin(
        products, and_(p.scope == c.child_scope, p.name == c.child_name, p.generation == d.created_at)
    )


def members_of(engine: Engine, dataset: tuple[str, str]) -> Iterator[Key]:
    """The dataset's files in the order of scopes, then of names, by the UTF-8 bytes of both as users write them.

    They are put aside in a file first, so that memory is bounded and no transaction is open while they are looked up.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8", newline="\n") as aside:
        with engine.connect().execution_options(stream_results=True) as connection:
            for scope in _scopes(connection, dataset):
                for row in connection.execute(_members(connection, dataset, scope)).yield_per(1_000):
                    # JSON: a name may hold a line feed
                    aside.write(f"{json.dumps([row.created_at.isoformat(), scope, row.child_name])}\n")
        aside.seek(0)
        for line in aside:
            generation, scope, name = json.loads(line)
            yield scope, name, datetime.fromisoformat(generation)


def _scopes(connection: Connection, dataset: tuple[str, str]) -> list[str]:
    c = _CONTENTS.c
    query = select(c.child_scope).distinct().where(c.scope == dataset[0], c.name == dataset[1])
    return sorted(connection.scalars(query), key=lambda s: str(InternalScope(s, from_external=False).external).encode())


def _members(connection: Connection, dataset: tuple[str, str], scope: str) -> Any:
    c, d = _CONTENTS.c, _DIDS.c
    by_bytes: Any = c.child_name
    if connection.dialect.name == "postgresql":
        by_bytes = c.child_name.collate("C")
    elif connection.dialect.name == "mysql":
        by_bytes = cast(c.child_name, LargeBinary)
    return (
        select(c.child_name, d.created_at)
        .join_from(_CONTENTS, _DIDS, and_(d.scope == c.child_scope, d.name == c.child_name))
        .where(c.scope == dataset[0], c.name == dataset[1], c.child_scope == scope)
        .order_by(by_bytes)
    )
