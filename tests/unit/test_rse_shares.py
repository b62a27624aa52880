"""Several processes keep to an RSE's bounds together."""

from __future__ import annotations

import pytest
from rucio_trace_daemons.methods import Method
from rucio_trace_daemons.rses import ALONE, Rse, Share


@pytest.mark.parametrize("streams", [None, 1, 2, 3, 7])
@pytest.mark.parametrize("processes", [1, 2, 3, 5])
def test_shares_add_up_to_the_bounds_and_no_stream_is_left_over(streams: int | None, processes: int) -> None:
    rse = Rse("id", "RSE", "def", Method.READ, streams=streams, bytes_per_second=1_000_000)
    shares = [share for share in (Share(index, processes) for index in range(processes)) if share.reads(rse)]
    parts = [share.bounds(rse) for share in shares]
    assert 0.99 * 1_000_000 < sum(part.bytes_per_second or 0 for part in parts) <= 1_000_000
    if streams is None:
        assert [part.streams for part in parts] == [None] * processes
    else:
        assert sum(part.streams or 0 for part in parts) == streams
        assert all(part.streams for part in parts)


def test_alone_the_bounds_are_as_they_are() -> None:
    rse = Rse("id", "RSE", "def", Method.READ, streams=3, bytes_per_second=7)
    assert ALONE.reads(rse)
    assert ALONE.bounds(rse) == rse
    without = Rse("id", "RSE", "def", Method.READ)
    assert ALONE.bounds(without) == without
