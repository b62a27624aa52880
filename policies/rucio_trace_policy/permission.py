"""Permissions: the decision is the wrapped package's or Rucio's own; ours is to write down who acts.

For the few actions in `OWNED` an allowed request is named in its transaction, where the triggers find it. If that
cannot be done the answer is a refusal with a reason: a removal nobody can be named for is worse than one to repeat.
Everything else passes through untouched, and no question that only reads ever writes.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import TYPE_CHECKING, Any

from . import acting
from .provenance import check_provenance
from .wrapping import is_multi_vo, wrapped_permission

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

    from rucio.common.types import InternalAccount
    from rucio.core.permission import PermissionResult
    from sqlalchemy.orm import Session

__all__ = ["OWNED", "check_provenance", "has_permission", "tag_transaction"]

_logger = logging.getLogger("policy")

# Actions that write `replicas`, or what is in a dataset, in the transaction they are asked in.
_WRITING = frozenset(
    {
        "add_replicas",
        "update_replicas_states",
        "delete_replicas",
        "declare_bad_file_replicas",
        "add_bad_pfns",  # also asked for bad replicas named by DID
        "add_rule",
        "set_status",
        "detach_dids",
    }
)
# Actions after which a rule goes away, at once or later. Rucio asks `del_rule` outside the transaction of the action.
_REPLACING_RULES = frozenset({"reduce_rule", "move_rule"})
_REMOVING_RULES = frozenset({"del_rule"})
# Erasing a DID is giving it a lifetime.
_METADATA = frozenset({"set_metadata", "set_metadata_bulk"})
OWNED = _WRITING | _REPLACING_RULES | _REMOVING_RULES | _METADATA


@cache
def decider(vo: str) -> ModuleType:
    """The permission module that decides for *vo*: the wrapped package's or Rucio's own; "" is a Rucio's only VO."""
    return wrapped_permission(vo)


if not is_multi_vo():
    decider("")  # what cannot be loaded stops Rucio now, and not at the first request


def _decider(issuer: InternalAccount) -> ModuleType:
    return decider(issuer.vo if is_multi_vo() else "")


def has_permission(
    issuer: InternalAccount, action: str, kwargs: dict[str, Any], *, session: Session
) -> PermissionResult | bool | None:
    """Decide as the wrapped package does; if it allows an action of ours, note who acts."""
    if not _is_owned(action, kwargs):
        return _decider(issuer).has_permission(issuer, action, kwargs, session=session)
    result = _decide(issuer, action, kwargs, session)
    if not result:
        return result
    refusal = _note(issuer, action, kwargs, session)
    return result if refusal is None else refusal  # a refusal is false, so no `or` here


def tag_transaction(
    session: Session, account: InternalAccount, action: str, kwargs: Mapping[str, Any] | None = None
) -> None:
    """Note that *account* is allowed to do *action*, for the traces of what *session*'s transaction changes.

    To be called from another policy package's `has_permission`, once it has decided to allow the action, with
    the arguments Rucio gave it. Actions that are not in `OWNED` are ignored.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: it could not be written; the action should be refused.
    """
    kwargs = kwargs or {}
    if not _is_owned(action, kwargs):
        return
    if action in _REMOVING_RULES:
        # Rucio passes a session it will only roll back: this one commits by itself.
        with session.get_bind().engine.begin() as connection:
            acting.intend_rule_removal(connection, account.internal, action, kwargs["rule_id"])
        return
    if action in _METADATA:
        _note_lifetime(session, account, action, kwargs)
        return
    acting.tag(session, account.internal, action)
    if action in _REPLACING_RULES:
        acting.intend_rule_removal(session.connection(), account.internal, action, kwargs["rule_id"])


def _is_owned(action: str, kwargs: Mapping[str, Any]) -> bool:
    if action in _METADATA:
        return kwargs.get("key") == "lifetime" or "lifetime" in (kwargs.get("meta") or ())
    return action in OWNED


def _decide(
    issuer: InternalAccount, action: str, kwargs: dict[str, Any], session: Session
) -> PermissionResult | bool | None:
    """The answer Rucio would have got without us, its own fallback included."""
    from rucio.core.permission import generic

    try:
        result = _decider(issuer).has_permission(issuer, action, kwargs, session=session)
    except TypeError:  # how a package says that it does not know an action
        result = None
    return generic.has_permission(issuer, action, kwargs, session=session) if result is None else result


def _note(issuer: InternalAccount, action: str, kwargs: Mapping[str, Any], session: Session) -> PermissionResult | None:
    """A refusal when it could not be written down who acts, else None."""
    from rucio.core.permission import PermissionResult

    try:
        tag_transaction(session, issuer, action, kwargs)
    except Exception as error:
        _logger.exception("traceability: %s by %s could not be noted", action, issuer)
        return PermissionResult(False, f"The acting account could not be noted ({type(error).__name__}).")
    return None


def _note_lifetime(session: Session, account: InternalAccount, action: str, kwargs: Mapping[str, Any]) -> None:
    lifetime = kwargs.get("value") if kwargs.get("key") == "lifetime" else (kwargs.get("meta") or {})["lifetime"]
    scope = kwargs["scope"].internal
    if lifetime is None:
        acting.forget_erasure(session.connection(), scope, kwargs["name"])
    else:
        acting.intend_erasure(session.connection(), account.internal, action, scope, kwargs["name"])
