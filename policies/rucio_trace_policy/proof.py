"""Proof that the hooks work: Rucio's own insert, update and delete, and what our outbox made of them.

Run inside a transaction that the caller rolls back, as the role that Rucio itself connects with: it shows missing
rights, a wrong schema and an ineffective trigger before Rucio meets them. Where making a trigger cannot be rolled back
it is rehearsed before, on copies of Rucio's tables.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from sqlalchemy import MetaData, delete, insert, select, update

from rucio_trace.errors import Undecided

from .tables import tables

if TYPE_CHECKING:
    from sqlalchemy import Table
    from sqlalchemy.engine import Connection

__all__ = ["HooksIneffective", "prove"]


class HooksIneffective(Undecided):
    """A trigger is in place and does not do its work."""

    def __init__(self, what: str, expected: object, found: object) -> None:
        super().__init__(
            f"hooks do not record {what}",
            expected=str(expected),
            found=str(found),
            hint="nothing new was left in place",
        )


def prove(connection: Connection, rucio_schema: str | None, *, prefix: str = "") -> None:
    """Change a replica, a lock and a dataset through Rucio's own tables; every change must leave its row.

    With a *prefix*, through copies of `replicas`, `locks` and `dids` with it before their names. The caller rolls the
    transaction back.

    Raises:
        HooksIneffective: a row is missing, doubled or wrong.
    """
    from rucio.common.types import InternalScope
    from rucio.db.sqla.constants import ReplicaState
    from rucio.db.sqla.models import DataIdentifier, ReplicaLock, RSEFileAssociation

    rucio = connection.execution_options(schema_translate_map={RSEFileAssociation.__table__.schema: rucio_schema})
    try:
        scope = InternalScope(f"tr-{uuid4().hex[:20]}", vo="def")
        replica = _create_parents(rucio, scope)
        replicas, locks = _copy(RSEFileAssociation.__table__, prefix), _copy(ReplicaLock.__table__, prefix)
        this_one = (replicas.c.scope == scope) & (replicas.c.name == replica["name"])
        rucio.execute(insert(replicas).values(**replica, state=ReplicaState.COPYING))
        rucio.execute(update(replicas).where(this_one).values(state=ReplicaState.AVAILABLE))
        rucio.execute(update(replicas).where(this_one).values(lock_cnt=1))
        rucio.execute(delete(replicas).where(this_one))
        _check_outbox(rucio, replica)
        _check_unlocked(rucio, scope, replica, locks)
        _check_dataset(rucio, scope, _copy(DataIdentifier.__table__, prefix))
    finally:
        connection.execution_options(schema_translate_map=None)


def _copy(table: Table, prefix: str) -> Table:
    return table.to_metadata(MetaData(), name=f"{prefix}{table.name}") if prefix else table


def _create_parents(rucio: Connection, scope: object) -> dict:
    """Insert what a replica refers to: an RSE, a scope and a file; the account and the VO are whatever Rucio has."""
    from rucio.common.utils import generate_uuid
    from rucio.db.sqla import models
    from rucio.db.sqla.constants import DIDType

    account = rucio.scalar(select(models.Account.account).limit(1))
    vo = rucio.scalar(select(models.VO.vo).limit(1))
    rse_id, name = generate_uuid(), "rucio-trace-proof"
    rucio.execute(insert(models.RSE.__table__).values(id=rse_id, rse=f"PROOF-{rse_id[:20].upper()}", vo=vo))
    rucio.execute(insert(models.Scope.__table__).values(scope=scope, account=account))
    did = {"scope": scope, "name": name, "account": account, "did_type": DIDType.FILE, "bytes": 1}
    rucio.execute(insert(models.DataIdentifier.__table__).values(**did))
    return {"rse_id": rse_id, "scope": scope, "name": name, "bytes": 1, "adler32": "00010001"}


def _check_outbox(rucio: Connection, replica: dict) -> None:
    from rucio.db.sqla.models import DataIdentifier

    outbox = tables(rucio.dialect.name).outbox
    scope, rse_id = replica["scope"], replica["rse_id"]
    generation = rucio.scalar(select(DataIdentifier.created_at).where(DataIdentifier.scope == scope))
    rows = rucio.execute(select(outbox).where(outbox.c.scope == scope.internal).order_by(outbox.c.id)).all()
    changes = [(row.old_state, row.new_state) for row in rows]
    expected = [(None, "C"), ("C", "A"), ("A", None)]
    if changes != expected:
        raise HooksIneffective("the changes of a replica", expected, changes)
    for row in rows:
        found = (row.rse_id, row.bytes, row.adler32, row.generation and row.generation.replace(tzinfo=None))
        if found != (rse_id, 1, "00010001", generation):
            raise HooksIneffective("a replica's columns", (rse_id, 1, "00010001", generation), found)
    if len({row.event_id for row in rows}) != len(rows) or not all(row.event_id and row.at for row in rows):
        raise HooksIneffective("event ids and times", "three of each", [(row.event_id, row.at) for row in rows])


def _check_unlocked(rucio: Connection, scope: object, replica: dict, locks: Table) -> None:
    from rucio.common.utils import generate_uuid
    from rucio.db.sqla import models
    from rucio.db.sqla.constants import DIDType, LockState, RuleState

    account = rucio.scalar(select(models.Account.account).limit(1))
    rule_id = generate_uuid()
    did = {"scope": scope, "name": replica["name"], "account": account}
    rule = {**did, "id": rule_id, "did_type": DIDType.FILE, "rse_expression": "*", "state": RuleState.OK}
    rucio.execute(insert(models.ReplicationRule.__table__).values(**rule))
    lock = {**did, "rule_id": rule_id, "rse_id": replica["rse_id"], "bytes": 1, "state": LockState.OK}
    rucio.execute(insert(locks).values(**lock))
    rucio.execute(delete(locks).where(locks.c.rule_id == rule_id))
    unlocked = tables(rucio.dialect.name).unlocked
    found = rucio.execute(select(unlocked.c.rse_id, unlocked.c.name).where(unlocked.c.rule == rule_id)).all()
    if [tuple(row) for row in found] != [(replica["rse_id"], replica["name"])]:
        raise HooksIneffective("a rule that lets a replica go", [(replica["rse_id"], replica["name"])], found)


def _check_dataset(rucio: Connection, scope: object, dids: Table) -> None:
    from rucio.db.sqla.constants import DIDType
    from rucio.db.sqla.models import Account

    account, name = rucio.scalar(select(Account.account).limit(1)), "rucio-trace-proof-dataset"
    did = {"scope": scope, "name": name, "account": account, "did_type": DIDType.DATASET, "is_open": True}
    rucio.execute(insert(dids).values(**did))
    this_one = (dids.c.scope == scope) & (dids.c.name == name)
    for change in ({"is_open": False, "length": 2}, {"length": 1}, {"eol_at": None}, {"is_open": True}, {"length": 2}):
        rucio.execute(update(dids).where(this_one).values(**change))
    outbox = tables(rucio.dialect.name).outbox
    rows = rucio.execute(select(outbox).where(outbox.c.name == name).order_by(outbox.c.id)).all()
    changes = [(row.rse_id, row.old_state, row.new_state) for row in rows]
    expected = [(None, "open", "closed"), (None, "closed", "closed"), (None, "closed", "open")]
    if changes != expected:
        raise HooksIneffective("the changes of a dataset", expected, changes)
    if not all(row.event_id and row.at and row.generation for row in rows):
        raise HooksIneffective("event ids, times and generations of a dataset", "three of each", rows)
