"""The history of a product: its own traces, and those of files in no Rucio that joined it. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from rucio_trace.joining import join
from rucio_trace.store.records import Stored

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rucio_trace.envelope import Trace
    from rucio_trace.statement import ProductKey

__all__ = ["MayJoin", "anybody", "assemble"]

MayJoin = Callable[[Stored, str], bool]
"""Whether the signer of a trace of a file in no Rucio may speak for products of a scope."""


def anybody(_stored: Stored, _scope: str) -> bool:
    return True


def assemble(
    own: Mapping[ProductKey, Sequence[Stored]], strangers: Sequence[Stored], may_join: MayJoin = anybody
) -> dict[ProductKey, list[Stored]]:
    """*own* traces of each product with those of *strangers* that joined it, in the order of their positions."""
    of_trace = {id(stored.trace): stored for stored in strangers}

    def allowed(trace: Trace, scope: str) -> bool:
        return may_join(of_trace[id(trace)], scope)

    found: dict[ProductKey, list[Stored]] = {}
    for key, traces in own.items():
        joining = join([s.trace for s in traces], [s.trace for s in strangers], allowed) if strangers else []
        together = [*traces, *(of_trace[id(trace)] for trace in joining)]
        found[key] = sorted(together, key=lambda stored: stored.position)
    return found
