"""Signed traces to measure with, and a service to send them to: those of the tests."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from integration.service_kit import Running, serving
from samples import authority, batch, digest, line, product, signer, statement, trace
from unit.authority import signed_raw

from rucio_trace.batch import write_lines
from rucio_trace.identity import Trust
from rucio_trace.statement import Content, Event

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rucio_trace.envelope import Trace
    from rucio_trace.statement import ProductKey

__all__ = [
    "Running",
    "batch_of",
    "creations",
    "digest",
    "product",
    "serving",
    "signed_raw",
    "signer",
    "statement",
    "trust",
]


def creations(first: int, count: int, contents: int = 15) -> list[Trace]:
    """CREATE traces of *count* products, each an archive of *contents* members."""
    return [
        trace(
            Event.CREATE,
            product(number),
            contents=tuple(Content(f"GRANULE/IMG_DATA/B{m:02}.jp2", digest(f"{number}/{m}")) for m in range(contents))
            or None,
        )
        for number in range(first, first + count)
    ]


def batch_of(keys: Sequence[ProductKey]) -> tuple[Trace, bytes]:
    """The VERIFY of a replica of each of *keys*, and its list."""
    lines = [line(key) for key in keys]
    return batch(lines), write_lines(lines)


def trust() -> Trust:
    return Trust.from_anchors([authority().pem])
