"""When an audit will be done, and amounts as operators type them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rucio_trace_daemons.auditor.forecast import DAY, DAYS, daily_bytes, pace, round_end, sweep_end

from rucio_trace.cli.quantities import seconds, share, shown_age, size

NOW = datetime(2026, 5, 31, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("replicas", "size_", "hours"),
    [
        ((50, 100), (10, 20), 2),
        ((50, 100), (5, 20), 6),  # large files are left
        ((25, 100), (10, 20), 6),  # small ones are
        ((50, 100), (0, 0), 2),  # all of them are empty
        ((100, 100), (20, 20), 0),
        ((0, 0), (0, 0), 0),
    ],
)
def test_a_round_ends_when_what_is_further_behind_is_done(
    replicas: tuple[int, int], size_: tuple[int, int], hours: int
) -> None:
    assert round_end(NOW - 2 * HOUR, NOW, replicas=replicas, size=size_) == NOW + hours * HOUR


def test_nothing_is_foretold_of_a_round_that_has_done_nothing_or_next_to_nothing() -> None:
    assert round_end(NOW - HOUR, NOW, replicas=(0, 10), size=(0, 10)) is None
    assert round_end(NOW - 9 * DAY, NOW, replicas=(1, 10**15), size=(1, 10**15)) is None


def test_a_round_over_several_days_is_read_evenly_on_each() -> None:
    found = daily_bytes([(NOW - 2.5 * DAY, NOW - 0.5 * DAY, 400)], NOW)
    assert found == [0] * (DAYS - 3) + [100, 200, 100]


def test_of_a_round_that_began_before_the_first_day_only_the_rest_counts() -> None:
    assert daily_bytes([(NOW - 35 * DAY, NOW - 25 * DAY, 1_000)], NOW) == [100] * 5 + [0] * 25
    assert sum(daily_bytes([(NOW - 40 * DAY, NOW - 31 * DAY, 1_000)], NOW)) == 0


def test_a_round_that_took_no_time_is_counted_all_the_same() -> None:
    assert daily_bytes([(NOW - HOUR, NOW - HOUR, 7)], NOW)[-1] == 7


@given(st.integers(0, 29 * 86_400), st.integers(1, 86_400), st.integers(0, 10**15))
def test_no_byte_is_lost_among_the_days(ago: int, lasted: int, read: int) -> None:
    end = NOW - timedelta(seconds=ago)
    assert abs(sum(daily_bytes([(end - timedelta(seconds=lasted), end, read)], NOW)) - read) <= 2  # rounded


def test_the_pace_counts_from_the_first_round_on() -> None:
    daily = [0] * 28 + [100, 300]
    assert pace(daily, 7, NOW - 2 * DAY, NOW) == 200
    assert pace(daily, 7, NOW - 100 * DAY, NOW) == pytest.approx(400 / 7)
    assert pace(daily, 7, NOW - HOUR, NOW) == 400  # at least a day: it may have no other round
    assert pace(daily, 7, None, NOW) == 0
    assert pace(daily, 7, NOW, NOW) == 0


def test_a_sweep_ends_at_its_pace_or_nobody_knows_when() -> None:
    assert sweep_end(500, 250.0, NOW) == NOW + 2 * DAY
    assert sweep_end(500, 0.0, NOW) is None
    assert sweep_end(0, 0.0, NOW) == NOW
    assert sweep_end(10**18, 1.0, NOW) is None


CONTEXT, OPTION = click.Context(click.Command("start")), click.Option(["--x"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1d", 86_400), ("90min", 5_400), ("6 h", 21_600), ("0.5h", 1_800), ("2W", 1_209_600), ("10s", 10), ("5m", 300)],
)
def test_durations_are_read(text: str, expected: int) -> None:
    assert seconds(CONTEXT, OPTION, text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("7", 7), ("2TB", 2 * 10**12), ("2TiB", 2 * 2**40), ("1.5 k", 1_500), ("1Mi", 2**20), ("9EB", 9 * 10**18)],
)
def test_sizes_are_read(text: str, expected: int) -> None:
    assert size(CONTEXT, OPTION, text) == expected


@pytest.mark.parametrize("text", ["", "1", "d", "-1d", "1y", "0d", "100w" * 9, "1d 2h", "999999d", "١d"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="expected a duration"):
        seconds(CONTEXT, OPTION, text)


@pytest.mark.parametrize("text", ["", "0", "2TX", "-5", "1e3", "nan", "10EB", "0.4"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="expected bytes"):
        size(CONTEXT, OPTION, text)


def test_a_share_is_a_part_of_the_whole() -> None:
    assert [share(CONTEXT, OPTION, text) for text in ("1", "0.3", "30%", "100%")] == [1.0, 0.3, 0.3, 1.0]
    for text in ("0", "1.1", "nan", "inf", "-1", "101%", "half", ""):
        with pytest.raises(click.BadParameter, match="expected more than 0"):
            share(CONTEXT, OPTION, text)


def test_an_age_is_told_in_the_largest_unit_it_fills() -> None:
    ages = [timedelta(days=40), 47 * HOUR, 23 * HOUR, timedelta(minutes=59), timedelta(seconds=3), -HOUR]
    assert [shown_age(NOW - age, NOW) for age in ages] == ["40 d", "1 d", "23 h", "59 min", "3 s", "0 s"]
    assert shown_age(None, NOW) is None
