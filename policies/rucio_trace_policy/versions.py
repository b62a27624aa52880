"""What our triggers are called, and the version that each declares in its source."""

from __future__ import annotations

import re

VERSION = 3  # raise with every change of a trigger's text or a table

REPLICAS_TRIGGER = "traceability_replicas"
LOCKS_TRIGGER = "traceability_locks"
DIDS_TRIGGER = "traceability_dids"
MARK = f"rucio-trace hooks version {VERSION}"
_PATTERN = re.compile(r"rucio-trace hooks version (\d+)")


def version_of(source: str) -> int | None:
    """The version a trigger's source declares, or None when it declares none."""
    match = _PATTERN.search(source)
    return int(match.group(1)) if match else None
