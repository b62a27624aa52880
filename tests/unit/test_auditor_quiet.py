"""Quiet hours: when an auditor reads nothing."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from rucio_trace_daemons.auditor.quiet import Quiet

from rucio_trace.errors import ConfigurationError


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"2026-03-01T{text}:00").replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("hours", "quiet", "loud"),
    [
        ("", [], ["00:00", "12:00", "23:59"]),
        ("08:00-18:00", ["08:00", "17:59"], ["07:59", "18:00"]),
        ("22:00-06:00", ["22:00", "23:59", "00:00", "05:59"], ["06:00", "21:59"]),
        ("08:00-09:30, 20:00-24:00", ["09:29", "20:00", "23:59"], ["09:30", "00:00"]),
        ("00:00-24:00", ["00:00", "23:59"], []),
    ],
)
def test_hours_are_quiet_from_their_first_minute_to_before_their_last(
    hours: str, quiet: list[str], loud: list[str]
) -> None:
    parsed = Quiet.parse(hours, "option")
    assert [text for text in quiet if not parsed.covers(at(text))] == []
    assert [text for text in loud if parsed.covers(at(text))] == []


@pytest.mark.parametrize("hours", ["8-18", "08:00", "25:00-26:00", "08:00-24:01", "08:00-18:60", "noon"])
def test_what_is_no_hour_is_refused_by_the_option_s_name(hours: str) -> None:
    with pytest.raises(ConfigurationError, match=r"auditor\.quiet_hours"):
        Quiet.parse(hours, "auditor.quiet_hours")
