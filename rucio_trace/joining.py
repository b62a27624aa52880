"""Which traces of files in no Rucio belong to the history of a product in Rucio (docs/format.md, 1.9).

A producer signs before there is a DID, and archives take products from elsewhere with traces of their own. Such a
trace joins a product when a site that looked at the product says so: a COPY or CORRUPT of it that stands names the
trace as its source, and both speak of the same file. What else was said of that file, outside Rucio, joins with it.

Whether those who signed may speak for the product is asked through `may_join`. Pure; the order never matters.
"""

from collections.abc import Callable, Iterable, Sequence

from rucio_trace.envelope import Trace
from rucio_trace.history import agree, standing
from rucio_trace.statement import STRONG, Event, Statement

__all__ = ["join", "linked", "same_file"]

_LINKING = (Event.COPY, Event.CORRUPT)


def join(
    own: Sequence[Trace],
    outside: Iterable[Trace],
    may_join: Callable[[Trace, str], bool] = lambda _trace, _scope: True,
) -> list[Trace]:
    """Those of *outside* that join the one product that all of *own* speaks of, in the order they are given.

    *may_join* says of a trace and the product's scope whether its signer may speak there.
    """
    if not any(linked(trace.statement) for trace in own):
        return []  # which spares most products the question of what stands
    links = [trace.statement for trace in standing(own)[0] if linked(trace.statement)]
    if not links:
        return []
    product = links[0].product
    assert product is not None
    strangers = [trace for trace in outside if trace.statement.outside and may_join(trace, product.scope)]
    named = [
        trace.statement
        for trace in strangers
        if any(linked(link) == trace.id and same_file(link, trace.statement) for link in links)
    ]
    return [trace for trace in strangers if any(same_file(trace.statement, s) for s in named)]


def linked(s: Statement) -> str | None:
    """The id of the trace of a file outside Rucio that *s* names as what its product was before, if it does."""
    if s.event not in _LINKING or s.product is None or s.source is None or s.source.rse is not None:
        return None
    return s.source.trace


def same_file(a: Statement, b: Statement) -> bool:
    """Whether both speak of one file: same base name and size, no digest differs, a strong one is the same."""
    if a.name != b.name or not agree(a, b):
        return False
    if not a.digests or not b.digests:
        return True  # a CDSE trace, whose only digest is a strong one
    return bool(a.digests.keys() & b.digests.keys() & set(STRONG))
