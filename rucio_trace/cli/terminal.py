"""What commands print: data on stdout, talk on stderr, hostile text made harmless."""

from __future__ import annotations

from datetime import UTC, datetime
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["MAX_NAME_CHARACTERS", "json_line", "printable", "say", "show_table", "utc_moment"]

MAX_NAME_CHARACTERS = 300
"""Longer names are shortened in their middle: a line stays readable, both ends tell names apart."""


def printable(text: str, *, limit: int | None = MAX_NAME_CHARACTERS) -> str:
    """*text* on one line with nothing in it that a terminal would act on.

    Control, bidirectional, zero-width and undecodable characters and odd spaces become `\\n`, `\\x1b`, `\\u202e` …;
    a backslash stays as it is, so the result is for people: machines read `--json`.
    """
    if not text.isprintable():
        text = "".join(c if c.isprintable() else _escaped(c) for c in text)
    if limit is not None and len(text) > limit:
        half = (limit - 1) // 2
        text = f"{text[:half]}…{text[-half:]}"
    return text


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # a byte that is no UTF-8, as os.fsdecode keeps it
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def utc_moment(text: str) -> datetime:
    """The date or time that somebody typed; UTC unless it says otherwise.

    Raises:
        ValueError: it is none; the message can be shown.
    """
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"{printable(text)}: expected 2026-05-31 or 2026-05-31T12:00:00Z") from None


def say(message: str) -> None:
    """Print *message*, already harmless, for a person: on stderr, apart from the data."""
    click.echo(message, err=True)


def json_line(value: Any) -> None:
    """Print *value* as one line of JSON; ASCII only, so that no name can act on a terminal."""
    import json

    click.echo(json.dumps(value, separators=(",", ":")))


def show_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, styles: Mapping[str, str] | None = None
) -> None:
    """Print *rows* under *columns* on stdout, every cell made harmless; `styles`: a cell's text to its rich style.

    Where the terminal is too narrow, long cells are folded before short ones: names and times stay whole. Where it is
    too narrow for that too, each row becomes a paragraph with a cell a line.
    """
    from rich import box
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(soft_wrap=False)
    if not console.is_terminal:
        # A pipe has no width: nothing is cut or folded there.
        console = Console(width=10_000)
    cells = [["" if cell is None else printable(str(cell)) for cell in row] for row in rows]
    texts = [[Text(cell, style=(styles or {}).get(cell, "")) for cell in row] for row in cells]
    whole = _whole([max(map(cell_len, column)) for column in zip(columns, *cells, strict=True)], console.width)
    if whole is None:
        for row in texts:
            paragraph = Table.grid("", "", padding=(0, 2))
            for column, text in zip(columns, row, strict=True):
                if text:
                    paragraph.add_row(Text(column, style="bold"), text)
            console.print(paragraph, "")
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=number in whole)
    for row in texts:
        table.add_row(*row)
    console.print(table)


def _whole(widths: Sequence[int], room: int) -> set[int] | None:
    """The columns that are not folded, the narrowest first: as many as leave each of the others a few characters.

    None if there is no room for a few characters of each.
    """
    few, between = 10, 3
    room -= between * len(widths) + sum(min(few, width) for width in widths)
    if room < 0:
        return None
    whole = set()
    for number, width in sorted(enumerate(widths), key=itemgetter(1)):
        room -= max(0, width - few)
        if room >= 0:
            whole.add(number)
    return whole
