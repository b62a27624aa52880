"""What traces say of a file or dataset that lives in Rucio now: shared by the metadata plugin and by other policies.

A status belongs to one generation of a name. It is found through `dids.created_at`, so what was deleted and
uploaded again starts anew: nothing of the older one is ever shown for it.

What lives without a row of its own is PENDING if our hooks saw it come: if it is younger than the hooks, or a
change of it waits in the outbox. Of anything else, and of every container, nothing is said.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rucio.db.sqla.constants import DIDType
from rucio.db.sqla.models import DataIdentifier
from sqlalchemy import Text, and_, case, cast, exists, func, or_, select

from rucio_trace.errors import Refuted, Undecided

from .filters import attribute
from .tables import Tables, tables

if TYPE_CHECKING:
    from collections.abc import Collection

    from rucio.common.types import InternalScope
    from sqlalchemy import ColumnElement, Select, Table
    from sqlalchemy.orm import Session

__all__ = [
    "ORIGIN",
    "PREFIX",
    "SOUND",
    "ProvenanceRefuted",
    "ProvenanceUnproven",
    "check_provenance",
    "column_of",
    "living_dids",
    "read_metadata",
]

PREFIX = "trace_"
ORIGIN = f"{PREFIX}origin"
PENDING = "PENDING"
SOUND = frozenset({"GENUINE", "DEGRADED"})


class ProvenanceRefuted(Refuted):
    """The traces of a product speak against it."""

    def __init__(self, did: str, status: str, accepted: Collection[str]) -> None:
        self.did, self.status = did, status
        super().__init__(did, expected=" or ".join(sorted(accepted)), found=status)


class ProvenanceUnproven(Undecided):
    """No trace speaks for a product, or not yet."""

    def __init__(self, did: str, status: str | None, accepted: Collection[str]) -> None:
        self.did, self.status = did, status
        super().__init__(did, expected=" or ".join(sorted(accepted)), found=status or "no trace")


def check_provenance(scope: InternalScope, name: str, *, session: Session, accepted: Collection[str] = SOUND) -> str:
    """Return the status of a file's or dataset's living generation when it is among *accepted*.

    For policies that let only proven products pass, say into a rule to an archive. Only reads.

    Raises:
        ProvenanceRefuted: its traces say otherwise (TAMPERED, REVOKED, DISPUTED, OBSOLETE).
        ProvenanceUnproven: nothing is known of it, or it is still PENDING.
    """
    status = read_metadata(session, scope, name).get(f"{PREFIX}status")
    if status is not None and status in accepted:
        return str(status)
    did = f"{scope.external}:{name}"
    if status is None or status == PENDING:
        raise ProvenanceUnproven(did, status, accepted)
    raise ProvenanceRefuted(did, status, accepted)


def read_metadata(session: Session, scope: InternalScope, name: str) -> dict[str, Any]:
    """Every `trace_` key of a DID; empty when nothing is to be said of it."""
    ours = tables(session.get_bind().dialect.name)
    query = living_dids(
        ours,
        column_of(ours, "trace_status").label("shown"),
        ours.origins.c.trace.label("origin"),
        DataIdentifier.did_type,
        *ours.products.columns,
    )
    query = query.outerjoin(ours.origins, _of_living(ours.origins))
    query = query.where(DataIdentifier.scope == scope, DataIdentifier.name == name)
    row = session.execute(query).one_or_none()
    if row is None:
        return {}
    metadata = {f"{PREFIX}status": row.shown} if row.status is None else _of_product(row)
    metadata[ORIGIN] = row.origin  # the producer's own word, and no attribute of that name
    return {key: value for key, value in metadata.items() if value is not None}


def _of_product(row: Any) -> dict[str, Any]:
    metadata = {f"{PREFIX}{key}": value for key, value in json.loads(row.attributes or "{}").items()}
    return metadata | {
        f"{PREFIX}status": row.status,
        f"{PREFIX}{'replicas' if row.did_type is DIDType.FILE else 'files'}": f"{row.proven}/{row.total}",
        f"{PREFIX}id": row.trace_id,
        f"{PREFIX}hash": row.hash,
        f"{PREFIX}hash_algorithm": row.hash_algorithm,
        f"{PREFIX}signer": row.signer,
        f"{PREFIX}verified_at": row.verified_at and row.verified_at.isoformat().replace("+00:00", "Z"),
    }


def living_dids(ours: Tables, *columns: Any) -> Select[Any]:
    """Select *columns* from Rucio's files and datasets and, where there is one, the status of their generation."""
    return (
        select(*columns)
        .select_from(DataIdentifier)
        .outerjoin(ours.products, _of_living(ours.products))
        .where(DataIdentifier.did_type.in_([DIDType.FILE, DIDType.DATASET]))
    )


def _of_living(table: Table) -> ColumnElement[bool]:
    """The condition that a row of ours is of a DID's present generation."""
    return and_(
        table.c.scope == cast(DataIdentifier.scope, Text),
        table.c.name == DataIdentifier.name,
        table.c.generation == DataIdentifier.created_at,
    )


def column_of(ours: Tables, key: str) -> Any:
    """The expression of one `trace_` key over `living_dids`; attributes are text."""
    products = ours.products
    part = key.casefold().removeprefix(PREFIX)
    if part == "status":
        return func.coalesce(products.c.status, _pending(ours))
    if part in _COUNTED:
        return case((DataIdentifier.did_type == _COUNTED[part], _share(products)))
    if part == "id":
        return products.c.trace_id
    if part in ("hash", "hash_algorithm", "signer", "verified_at"):
        return products.c[part]
    return attribute(products.c.attributes, key[len(PREFIX) :], ours.dialect_name)


_COUNTED = {"replicas": DIDType.FILE, "files": DIDType.DATASET}


def _share(products: Table) -> Any:
    return cast(products.c.proven, Text) + "/" + cast(products.c.total, Text)


def _pending(ours: Tables) -> Any:
    outbox, installations = ours.outbox, ours.installations
    since = select(func.min(installations.c.at)).scalar_subquery()
    waiting = exists().where(
        outbox.c.scope == cast(DataIdentifier.scope, Text),
        outbox.c.name == DataIdentifier.name,
        outbox.c.generation == DataIdentifier.created_at,
    )
    return case((or_(DataIdentifier.created_at >= since, waiting), PENDING))
