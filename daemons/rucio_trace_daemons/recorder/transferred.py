"""What a transfer tool compared before it called a transfer done (docs/adr/0066).

Rucio keeps no record of what it asked FTS to compare. It decides that by the attributes of the RSEs on the way, and so
do we.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rucio.common.constants import RseAttr
from rucio.core.rse import get_rse_supported_checksums_from_attributes

from rucio_trace_daemons.recorder.prove import checksums
from rucio_trace_daemons.recorder.resolve import DONE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rucio_trace_daemons.recorder.resolve import Transfer
    from rucio_trace_daemons.rses import Rse

__all__ = ["compared"]

# The tool that Rucio hands the checksum in its catalogue to. Globus compares what it sent with what arrived, by
# digests nobody is told; others compare nothing.
COMPARING_TOOL = "fts3"


def compared(transfer: Transfer, transfers: Sequence[Transfer], rses: Mapping[str, Rse]) -> dict[str, str]:
    """The checksum, one at most, that the tool held the destination's own against; empty if there was none.

    *transfers* are all of the product: one job may bring a file over several RSEs, and compares on each what all can.
    """
    if transfer.state != DONE or transfer.tool != COMPARING_TOOL:
        return {}
    path = [hop for hop in transfers if hop.job is not None and hop.job == transfer.job] or [transfer]
    ends = [(rses.get(hop.source_rse_id or ""), rses.get(hop.rse_id)) for hop in path]
    sides = [(_supported(source), _supported(destination)) for source, destination in ends if source and destination]
    if len(sides) < len(path) or not all(destination for _, destination in sides):
        return {}
    source, destination = sides[path.index(transfer)]
    possible = source & destination if all(s & d for s, d in sides) else destination
    known = checksums(transfer.adler32, transfer.md5)
    algorithm = next((name for name in known if name.lower() in possible), None)  # ADLER32 first, as Rucio does
    return {algorithm: known[algorithm]} if algorithm else {}


def _supported(rse: Rse) -> set[str]:
    """The checksums, in Rucio's words, that FTS may ask of *rse*."""
    if not rse.attributes.get(RseAttr.VERIFY_CHECKSUM, True):
        return set()
    return set(get_rse_supported_checksums_from_attributes(dict(rse.attributes)))
