"""Who acts in a transaction: written where the triggers of the same transaction can read it.

On PostgreSQL these are settings local to the transaction; on SQLite one row of a table of ours, which is gone again
before the transaction commits; on MariaDB variables of the session, emptied when the transaction ends, however it ends.
Either way nothing outlives the transaction, and no other one sees it.
Nobody named means Rucio itself: its daemons ask no permission.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import delete, event, func, insert, select, text

from . import ddl
from .tables import SCHEMA, tables

if TYPE_CHECKING:
    from typing import Any

    from sqlalchemy.engine import Connection, Engine
    from sqlalchemy.orm import Session

__all__ = ["forget_erasure", "intend_erasure", "intend_rule_removal", "tag"]

_TAGGED = "rucio_trace_policy.tagged"  # in Session.info: our row is in this session's transaction

_TAG_MYSQL = text(f"SET @{SCHEMA}_account = :account, @{SCHEMA}_action = :action, @{SCHEMA}_rule = :rule")
_UNTAG_MYSQL = f"SET @{SCHEMA}_account = NULL, @{SCHEMA}_action = NULL, @{SCHEMA}_rule = NULL"

# One statement, and only where no action is named yet: of nested checks the first one counts.
_TAG_POSTGRESQL = text(
    "SELECT set_config('traceability.account', :account, true), set_config('traceability.action', :action, true), "
    "set_config('traceability.rule', :rule, true) "
    "WHERE coalesce(current_setting('traceability.action', true), '') = ''"
)


def tag(session: Session, account: str, action: str, rule: str | None = None) -> None:
    """Name who acts in *session*'s present transaction, unless somebody is named already."""
    connection = session.connection()
    if connection.dialect.name == "postgresql":
        connection.execute(_TAG_POSTGRESQL, {"account": account, "action": action, "rule": rule or ""})
        return
    if connection.dialect.name == "mysql":
        _tag_mysql(connection, account, action, rule)
        return
    acting = tables(connection.dialect.name).acting
    if connection.scalar(select(func.count()).select_from(acting)):
        if session.info.get(_TAGGED):
            return
        # Nobody else's uncommitted row can be seen: this one was left behind by a program that ended in between.
        connection.execute(delete(acting))
    connection.execute(insert(acting).values(account=account, action=action, rule=rule))
    _untag_before_commit(session)


def _tag_mysql(connection: Connection, account: str, action: str, rule: str | None) -> None:
    """The mark in `Connection.info` stays with the session of the database that holds the variables."""
    if connection.info.get(_TAGGED):
        return
    _watch_ends(connection.engine)
    connection.info[_TAGGED] = True  # first: better emptied in vain than not at all
    connection.execute(_TAG_MYSQL, {"account": account, "action": action, "rule": rule})


def _watch_ends(engine: Engine) -> None:
    """Savepoints have events of their own, so they end nothing here. To listen twice is to listen once."""
    event.listen(engine, "commit", _untag_committing)
    event.listen(engine, "rollback", _untag_rolled_back)
    event.listen(engine.pool, "reset", _untag_returned)


def _untag_committing(connection: Connection) -> None:
    if connection.info.get(_TAGGED):
        _empty(connection.connection)  # an error here makes a rollback of it
        connection.info[_TAGGED] = False


def _untag_rolled_back(connection: Connection) -> None:
    if connection.invalidated or not connection.info.get(_TAGGED):
        return
    try:
        _empty(connection.connection)
        connection.info[_TAGGED] = False
    except connection.dialect.loaded_dbapi.Error:  # type: ignore[misc,union-attr]
        connection.invalidate()  # its variables go with it, and nobody gets it from the pool again


def _untag_returned(driver_connection: Any, record: Any, _state: Any) -> None:
    # An error here makes the pool throw the connection away.
    if record is not None and record.info.get(_TAGGED):
        _empty(driver_connection)
        record.info[_TAGGED] = False


def _empty(driver_connection: Any) -> None:
    cursor = driver_connection.cursor()
    try:
        cursor.execute(_UNTAG_MYSQL)
    finally:
        cursor.close()


def _untag_before_commit(session: Session) -> None:
    if _TAGGED not in session.info:
        event.listen(session, "before_commit", _untag)
    session.info[_TAGGED] = True


def _untag(session: Session) -> None:
    # Not cleared by a rollback, which may be of a savepoint only: then an empty table is emptied, which costs little.
    if not session.info[_TAGGED] or session.in_nested_transaction():  # only a savepoint is released
        return
    session.info[_TAGGED] = False
    session.flush()  # what is still to be written was asked for by the same account
    session.connection().execute(delete(tables(session.get_bind().dialect.name).acting))


def intend_rule_removal(connection: Connection, account: str, action: str, rule: str) -> None:
    """Note that *account* asked for the end of *rule*; it counts once the rule is really gone."""
    intentions = tables(connection.dialect.name).intentions
    values = {"account": account, "action": action, "rule": rule.replace("-", "").lower()}
    connection.execute(insert(intentions).values(**values, at=ddl.now(connection.dialect.name)))


def intend_erasure(connection: Connection, account: str, action: str, scope: str, name: str) -> None:
    """Note that *account* set an end to a DID; it counts once Rucio has removed the DID or its rules."""
    intentions = tables(connection.dialect.name).intentions
    values = {"account": account, "action": action, "scope": scope, "name": name}
    connection.execute(insert(intentions).values(**values, at=ddl.now(connection.dialect.name)))


def forget_erasure(connection: Connection, scope: str, name: str) -> None:
    """Forget earlier intentions to erase a DID: its lifetime was taken back."""
    intentions = tables(connection.dialect.name).intentions
    connection.execute(delete(intentions).where(intentions.c.scope == scope, intentions.c.name == name))
