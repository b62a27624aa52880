"""Whose words on a file in no Rucio count for the product that they joined: what a status rests on."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rucio_trace.checking import Refused, check_trace
from rucio_trace.store.histories import anybody

if TYPE_CHECKING:
    from rucio_trace.service.app import Service
    from rucio_trace.store import Stored
    from rucio_trace.store.histories import MayJoin

__all__ = ["may_join"]


def may_join(service: Service) -> MayJoin:
    """As verdicts have it: signers whom the service trusts outside Rucio or in the product's scope, now."""
    trust, now = service.trust(), datetime.now(UTC)
    if trust is None:
        return anybody

    def believed(stored: Stored, scope: str | None) -> bool:
        try:
            check_trace(
                stored.trace,
                trust,
                now,
                registered_at=stored.registered_at,
                allow_stale_crl=service.allow_stale_crl,
                scope=scope,
            )
        except Refused:
            return False
        return True

    return lambda stored, scope: believed(stored, None) or believed(stored, scope)
