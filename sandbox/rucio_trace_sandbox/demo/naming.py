"""Names that Rucio takes."""

from __future__ import annotations

import re

__all__ = ["did_name"]

_MAX_CHARACTERS = 250  # of a DID's name in Rucio's database


def did_name(file_name: str) -> str:
    """The name under which a user's file goes into Rucio: its own, unless Rucio would refuse that."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", file_name).lstrip("._-")
    return (name or "product")[-_MAX_CHARACTERS:]
