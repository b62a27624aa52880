"""The RSEs a daemon was told to look at, by an RSE expression of Rucio's."""

from __future__ import annotations

import threading
import time

from rucio_trace_daemons.rses import matching

__all__ = ["Chosen"]

# RSEs that come to match an expression are followed within this time.
FOLLOW_SECONDS = 60.0


class Chosen:
    """The ids of the RSEs that the expression of *option* names, asked at most once a minute; None for all."""

    def __init__(self, option: str, expression: str) -> None:
        self._option, self._expression, self._lock = option, expression, threading.Lock()
        self._until, self._ids = 0.0, set[str]()

    def __call__(self) -> set[str] | None:
        if self._expression.strip() == "*":
            return None
        with self._lock:
            if time.monotonic() > self._until:
                self._ids = matching(self._expression, self._option)
                self._until = time.monotonic() + FOLLOW_SECONDS
            return self._ids
