"""How fast an audit reads and when it will be done. Pure: moments and counts in, moments and rates out."""

from __future__ import annotations

import itertools
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["DAY", "DAYS", "daily_bytes", "pace", "round_end", "sweep_end"]

DAY = timedelta(days=1)
DAYS = 30
"""How many days back reading is counted: long enough for monthly rounds, short enough to follow a change."""


def round_end(begin: datetime, now: datetime, *, replicas: tuple[int, int], size: tuple[int, int]) -> datetime | None:
    """When a round ends if it goes on as it went since *begin*; None while nothing of it is done.

    *replicas* and *size* (bytes) are (done, all). The one that is further behind decides: many small files may follow
    a few large ones, and a few large ones many small files.
    """
    share = min((done / of for done, of in (replicas, size) if of > 0), default=1.0)
    return _later(now, now - begin, (1 - share) / share) if share > 0 else None


def daily_bytes(rounds: Iterable[tuple[datetime, datetime, int]], now: datetime) -> list[int]:
    """The bytes read in each of the last `DAYS` times 24 hours, the oldest first.

    *rounds* are (begin, end, bytes) of rounds that have ended; each is taken to have read evenly.
    """
    edges = [now - DAY * (DAYS - day) for day in range(DAYS + 1)]
    days = [0.0] * DAYS
    for begin, end, read in rounds:
        lasted = max(end - begin, timedelta(seconds=1))
        for day, (since, until) in enumerate(itertools.pairwise(edges)):
            within = min(begin + lasted, until) - max(begin, since)
            days[day] += read * max(within / lasted, 0.0)
    return [round(day) for day in days]


def pace(daily: Sequence[int], days: int, first: datetime | None, now: datetime) -> float:
    """Bytes per day over the last *days* of *daily*, or since *first*, when reading began, if that is later.

    On the first day it is what has been read: an hour's reading is no measure of a day, which may have one round.
    """
    if first is None or first >= now:
        return 0.0
    return sum(daily[-days:]) / min(float(days), max(1.0, (now - first) / DAY))


def sweep_end(left: int, bytes_per_day: float, now: datetime) -> datetime | None:
    """When *left* bytes will have been read; None if nothing is being read."""
    if left == 0:
        return now
    return _later(now, DAY, left / bytes_per_day) if bytes_per_day > 0 else None


def _later(now: datetime, duration: timedelta, times: float) -> datetime | None:
    """None beyond the end of the calendar: one replica of a million in a day is no forecast."""
    try:
        return now + duration * times
    except OverflowError:
        return None
