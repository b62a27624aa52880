"""Why a replica went: from a row of the outbox back to the account and the rule behind it.

The reaper deletes what nothing holds any more, and names nobody. What held the replica last is known exactly: the
hooks note every lock a rule gives up (`unlocked`), so the last of them before the deletion belongs to the rule whose
end set the replica free. Who ended that rule is an *intention*, noted when the account asked for it:

- `del_rule` for that rule. Rucio gives such a rule at most an hour to live; one that lived longer was not ended by this
  request (it was refused, or taken back), and the request does not count.
- `reduce_rule` or `move_rule`, which replace a rule.
- a lifetime set on the DID that the rule was made for, after the rule was made (the undertaker removes both).
- for a replica that no rule ever held: a lifetime set on the file itself.

A rule that still stands (its dataset lost the file) is named without an account, and so is one that simply expired.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import Text, cast, delete, exists, func, select, type_coerce

from .tables import tables

if TYPE_CHECKING:
    from typing import Any

    from sqlalchemy import Select, Table
    from sqlalchemy.engine import Connection, Row

__all__ = ["PRUNE_ROWS", "Removal", "forget", "prune", "who_removed"]

# An hour is what rucio.core.rule.delete_rule gives; the minute is for the two clocks of server and database.
_GRACE = timedelta(hours=1, minutes=1)
# Well over the time that a removed rule has left: a younger intention may still be about to come true.
_KEPT = timedelta(days=1)
PRUNE_ROWS = 10_000  # a transaction


@dataclass(frozen=True)
class Removal:
    """What is known of a deletion's cause; all None: Rucio itself, for no reason we saw."""

    account: str | None = None
    action: str | None = None
    rule: str | None = None


def who_removed(connection: Connection, row: Row[Any]) -> Removal:
    """The cause of the deletion that *row* of the outbox tells of; only reads."""
    if row.account is not None:
        return Removal(row.account, row.action, row.rule)
    unlock = _last_unlock(connection, row)
    if unlock is None:
        return _erasure(connection, row.scope, row.name, after=row.generation, before=row.at) or Removal()
    if _stands(connection, unlock.rule):
        return Removal(unlock.account, unlock.action, unlock.rule)
    if unlock.account is not None:  # the rule went in the account's own transaction
        return Removal(unlock.account, unlock.action, unlock.rule)
    removal = _rule_removal(connection, unlock)
    if removal is None and unlock.rule_name is not None:
        did = (unlock.rule_scope, unlock.rule_name)
        removal = _erasure(connection, *did, after=unlock.rule_created_at, before=unlock.at)
    return Removal(*(removal and (removal.account, removal.action)) or (None, None), rule=unlock.rule)


def forget(connection: Connection, row: Row[Any]) -> None:
    """Drop what was kept to explain the deletion that *row* tells of, once its trace is registered."""
    unlocked = tables(connection.dialect.name).unlocked
    connection.execute(delete(unlocked).where(_same_replica(unlocked, row), unlocked.c.at <= row.at))


def prune(connection: Connection, limit: int = PRUNE_ROWS) -> int:
    """Drop up to *limit* notes of each kind that no deletion to come can need; returns how many."""
    return _prune_unlocked(connection, limit) + _prune_intentions(connection, limit)


def _prune_unlocked(connection: Connection, limit: int) -> int:
    """Of the locks of one replica only the last to go tells anything."""
    unlocked = tables(connection.dialect.name).unlocked
    later = unlocked.alias()
    outdated = (
        select(unlocked.c.id)
        .where(
            exists().where(
                later.c.scope == unlocked.c.scope,
                later.c.name == unlocked.c.name,
                later.c.rse_id == unlocked.c.rse_id,
                later.c.id > unlocked.c.id,
            )
        )
        .limit(limit)
    )
    return _delete(connection, unlocked, outdated)


def _prune_intentions(connection: Connection, limit: int) -> int:
    """A day old, its rule or DID is gone, and no replica is left that it let go."""
    from rucio.db.sqla.models import DataIdentifier, ReplicationRule

    ours = tables(connection.dialect.name)
    wish, outbox = ours.intentions.c, ours.outbox.c
    rule_id = type_coerce(ReplicationRule.id, Text)
    if connection.dialect.name == "postgresql":  # a UUID there, in our tables 32 digits
        rule_id = func.replace(cast(ReplicationRule.id, Text), "-", "", type_=Text)
    elif connection.dialect.name == "mysql":  # 16 bytes
        rule_id = func.lower(func.hex(ReplicationRule.id), type_=Text)
    # Joins, for both databases to look at each table once: none of these columns has an index for us.
    rules = select(ours.unlocked.c.rule).distinct().subquery()
    dids = select(ours.unlocked.c.rule_scope, ours.unlocked.c.rule_name).distinct().subquery()
    did = (type_coerce(DataIdentifier.scope, Text) == wish.scope) & (DataIdentifier.name == wish.name)
    useless = (
        select(wish.id)
        .outerjoin(ReplicationRule, rule_id == wish.rule)
        .outerjoin(rules, rules.c.rule == wish.rule)
        .outerjoin(DataIdentifier, did)
        .outerjoin(dids, (dids.c.rule_scope == wish.scope) & (dids.c.rule_name == wish.name))
        .where(ReplicationRule.id.is_(None), rules.c.rule.is_(None))
        .where(DataIdentifier.name.is_(None), dids.c.rule_name.is_(None))
        .where(~exists().where(outbox.scope == wish.scope, outbox.name == wish.name))
        .where(wish.at < datetime.now(UTC) - _KEPT)
        .limit(limit)
    )
    return _delete(connection, ours.intentions, useless)


def _delete(connection: Connection, table: Table, ids: Select[tuple[int]]) -> int:
    """Within a table of its own: MariaDB takes no other query with a limit, MySQL none on the table that it changes."""
    chosen = select(ids.subquery().c.id)
    return connection.execute(delete(table).where(table.c.id.in_(chosen))).rowcount


def _same_replica(unlocked: Any, row: Row[Any]) -> Any:
    return (unlocked.c.scope == row.scope) & (unlocked.c.name == row.name) & (unlocked.c.rse_id == row.rse_id)


def _last_unlock(connection: Connection, row: Row[Any]) -> Row[Any] | None:
    unlocked = tables(connection.dialect.name).unlocked
    query = select(unlocked).where(_same_replica(unlocked, row), unlocked.c.at <= row.at)
    if row.generation is not None:
        query = query.where(unlocked.c.at >= row.generation)
    return connection.execute(query.order_by(unlocked.c.id.desc()).limit(1)).one_or_none()


def _stands(connection: Connection, rule: str) -> bool:
    from rucio.db.sqla.models import ReplicationRule

    return bool(connection.scalar(select(func.count()).where(ReplicationRule.id == rule)))


def _rule_removal(connection: Connection, unlock: Row[Any]) -> Removal | None:
    intentions = tables(connection.dialect.name).intentions
    query = select(intentions).where(intentions.c.rule == unlock.rule, intentions.c.at <= unlock.at)
    for intention in connection.execute(query.order_by(intentions.c.id.desc())):
        if intention.action != "del_rule" or _ended(unlock.rule_expires_at, intention.at):
            return Removal(intention.account, intention.action, unlock.rule)
    return None


def _ended(expires_at: datetime | None, asked_at: datetime) -> bool:
    return expires_at is not None and expires_at <= asked_at + _GRACE


def _erasure(
    connection: Connection, scope: str, name: str, *, after: datetime | None, before: datetime
) -> Removal | None:
    intentions = tables(connection.dialect.name).intentions
    query = select(intentions).where(intentions.c.scope == scope, intentions.c.name == name, intentions.c.at <= before)
    if after is not None:
        query = query.where(intentions.c.at >= after)
    intention = connection.execute(query.order_by(intentions.c.id.desc()).limit(1)).one_or_none()
    return None if intention is None else Removal(intention.account, intention.action)
