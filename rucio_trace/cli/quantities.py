"""Amounts as people type and read them: sizes, durations, shares."""

from __future__ import annotations

import math
import re
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import click

from rucio_trace.cli.terminal import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["seconds", "share", "shown_age", "shown_size", "size"]

_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)", re.IGNORECASE | re.ASCII)
_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_BYTES = {"": 1, "b": 1} | {
    f"{prefix}{ending}": base**power
    for power, prefix in enumerate("kmgtpe", start=1)
    for ending, base in (("", 1_000), ("b", 1_000), ("i", 1_024), ("ib", 1_024))
}


def seconds(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """A callback of options: a duration in seconds, which are kept in 32 bits."""
    return _amount(ctx, param, value, _SECONDS, 2**31 - 1, "a duration of up to 68 years, as 90min, 6h, 1d or 2w")


def size(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """A callback of options: an amount of data in bytes, which are kept in 64 bits."""
    return _amount(ctx, param, value, _BYTES, 2**63 - 1, "bytes, as 500GB, 2TB or 2TiB")


def _amount(
    ctx: click.Context, param: click.Parameter, value: str | None, units: Mapping[str, int], most: int, example: str
) -> int | None:
    """Rounded to whole units of 1."""
    if value is None:
        return None
    found = _AMOUNT.fullmatch(value.strip())
    amount = Decimal(found[1]) * units.get(found[2].lower(), 0) if found else 0
    if not 1 <= amount <= most:
        raise click.BadParameter(f"{printable(value)}: expected {example}", ctx, param)
    return round(amount)


def share(ctx: click.Context, param: click.Parameter, value: str) -> float:
    """A callback of options: a part of the whole."""
    try:
        part = float(value.removesuffix("%")) / (100 if value.endswith("%") else 1)
    except ValueError:
        part = math.nan
    if not 0 < part <= 1:
        raise click.BadParameter(f"{printable(value)}: expected more than 0 and up to 1, as 0.3 or 30%", ctx, param)
    return part


def shown_size(bytes_: float) -> str:
    """Bytes in the unit that reads best; decimal, as storage is bought."""
    from rich.filesize import decimal

    return decimal(round(bytes_))


def shown_age(moment: datetime | None, now: datetime) -> str | None:
    """How long ago *moment* is, in the largest unit that it fills."""
    if moment is None:
        return None
    age = max((now - moment) // timedelta(seconds=1), 0)
    for unit in ("d", "h", "min"):
        if age >= _SECONDS[unit]:
            return f"{age // _SECONDS[unit]} {unit}"
    return f"{age} s"
