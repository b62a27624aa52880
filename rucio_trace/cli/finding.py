"""What people may call a product: its DID, a file of it, a digest."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rucio_trace.cli.terminal import printable
from rucio_trace.digest import digest_file
from rucio_trace.lineage import strong_digests
from rucio_trace.trace import HEX_DIGITS, STRONG, Event

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rucio_trace.store import Stored, TraceStore

__all__ = ["digests_of", "is_digest", "newest_generation"]

_DIGEST = re.compile("|".join(f"[0-9a-f]{{{digits}}}" for digits in sorted({HEX_DIGITS[a] for a in STRONG})))


def is_digest(text: str) -> bool:
    """Whether *text*, in lower case, can be a strong digest."""
    return _DIGEST.fullmatch(text.lower()) is not None


def digests_of(what: str, store: TraceStore) -> Iterator[set[str]]:
    """The digests that *what* (FILE, SCOPE:NAME or a digest) may be known by, one set after another until one is.

    A file is read for the digest that recorders sign, and for all others only if nobody knows that one.
    """
    if (path := Path(what)).is_file():
        yield set(digest_file(path, ["BLAKE3"]).hashes.values())
        yield set(digest_file(path, [a for a in STRONG if a != "BLAKE3"]).hashes.values())
    elif is_digest(what):
        yield {what.lower()}
    else:
        scope, colon, name = what.partition(":")
        if not (scope and colon and name):
            raise click.UsageError(f"{printable(what)}: expected SCOPE:NAME, a file or a digest")
        found = newest_generation(store.by_did(scope, name))
        creates = [s.trace.statement for s in found if s.trace.statement.event is Event.CREATE]
        yield {digest for s in creates or [s.trace.statement for s in found] for digest in strong_digests(s)}


def newest_generation(found: list[Stored]) -> list[Stored]:
    """Of the traces of one DID those of the product that bears the name now."""
    newest = max((key.generation for s in found if (key := s.trace.statement.product) is not None), default=None)
    return [s for s in found if s.trace.statement.generation == newest]
