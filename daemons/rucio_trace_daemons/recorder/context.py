"""What every step of a batch needs and none of them owns."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine

    from rucio_trace_daemons.keys import Keys
    from rucio_trace_daemons.recorder.compose import Composer
    from rucio_trace_daemons.recorder.options import Options
    from rucio_trace_daemons.recorder.prove import Prover
    from rucio_trace_daemons.storage import Storage

__all__ = ["Clock", "Context"]


@dataclass(slots=True)
class Clock:
    """The database's clock, carried on by the process's own steady one between two looks at it."""

    _at: datetime = field(default_factory=lambda: datetime.now(UTC))
    _since: float = field(default_factory=time.monotonic)

    def set(self, now: datetime) -> None:
        self._at, self._since = now, time.monotonic()

    def __call__(self) -> datetime:
        return self._at + timedelta(seconds=time.monotonic() - self._since)


@dataclass(frozen=True, slots=True)
class Context:
    """One worker's tools."""

    options: Options
    engine: Engine
    storage: Storage
    prover: Prover
    composer: Composer
    keys: Keys
    clock: Clock
    watch: Callable[[int], None]  # told of every piece read; raises to give up
