"""Products as commands name them, and what of their traces counts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from rucio_trace.cli.terminal import printable, utc_moment
from rucio_trace.history import standing
from rucio_trace.joining import join
from rucio_trace.status import speaker
from rucio_trace.trace import parse_time
from rucio_trace.verify import Evidence, check_evidence

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rucio_trace.envelope import Trace
    from rucio_trace.identity import Trust
    from rucio_trace.store import Stored, TraceStore
    from rucio_trace.trace import ProductKey

__all__ = ["Believed", "believed", "keys_of", "of_generation", "split_did"]


def split_did(did: str, hint: str | None = None) -> tuple[str, str]:
    """Scope and name of what somebody typed; *hint* is the option it was typed for."""
    scope, colon, name = did.partition(":")
    if not (scope and colon and name):
        raise click.BadParameter(f"{printable(did)}: expected SCOPE:NAME", param_hint=hint or "SCOPE:NAME")
    return scope, name


def keys_of(store: TraceStore, did: str) -> list[ProductKey]:
    """The products that bear or bore the name *did*, the newest generation first."""
    found = {stored.trace.statement.product for stored in store.by_did(*split_did(did))}
    return sorted((key for key in found if key is not None), key=lambda key: key.generation, reverse=True)


def of_generation(keys: Iterable[ProductKey], generation: str | None) -> list[ProductKey]:
    """Those of *keys* that began at the moment somebody typed; all, if nothing was typed."""
    if generation is None:
        return list(keys)
    try:
        moment = utc_moment(generation)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--generation") from None
    return [key for key in keys if parse_time(key.generation) == moment]


@dataclass(frozen=True, slots=True)
class Believed:
    """The traces of one product: those that count, why others do not, and what withdrew some that do, by position."""

    counting: Sequence[Stored]
    refusals: Mapping[int, str]
    withdrawn: Mapping[int, Trace]

    @property
    def standing(self) -> list[Stored]:
        return [stored for stored in self.counting if stored.position not in self.withdrawn]


def believed(history: Sequence[Stored], trust: Trust | None, *, own_store: bool, allow_stale_crl: bool) -> Believed:
    """What of *history*, of one product or of a file in no Rucio, counts for those who trust *trust*, now.

    Without *trust* it is what the store took. *own_store*: what it says of the times of registration counts.
    """
    refusals: dict[int, str] = {}
    if trust is not None:
        evidence = [Evidence(stored.trace, stored.registered_at if own_store else None) for stored in history]
        checked = check_evidence(evidence, trust, datetime.now(UTC), allow_stale_crl=allow_stale_crl)
        accepted = {id(found.trace) for found in checked.accepted}
        why = {id(refused.trace): "; ".join(fault.told for fault in refused.faults) for refused in checked.refused}
        refusals = {s.position: why.get(id(s.trace), "") for s in history if id(s.trace) not in accepted}
    counting = [stored for stored in history if stored.position not in refusals]
    if any(stored.trace.statement.product is not None for stored in history):
        own = [s.trace for s in counting if s.trace.statement.product is not None]
        of_product = {id(trace) for trace in (*own, *join(own, (s.trace for s in counting)))}
        counting = [stored for stored in counting if id(stored.trace) in of_product]
    by = {id(trace): revoke for trace, revoke in standing([s.trace for s in counting], speaker)[1]}
    return Believed(counting, refusals, {s.position: by[id(s.trace)] for s in counting if id(s.trace) in by})
