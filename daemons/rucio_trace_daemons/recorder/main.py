"""`rucio-trace-recorder`: the daemon, with the habits of Rucio's own."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rucio_trace_daemons.program import Program

if TYPE_CHECKING:
    import threading
    from collections.abc import Mapping

    from sqlalchemy import Engine

    from rucio_trace.config import Settings
    from rucio_trace_daemons.recorder.service import Recorder

__all__ = ["PROGRAM", "main"]


def _open(settings: Settings, overrides: Mapping[str, Any], engine: Engine, stop: threading.Event) -> Recorder:
    from rucio_trace_daemons.recorder.options import Options
    from rucio_trace_daemons.recorder.service import Recorder

    return Recorder.open(settings, replace(Options.of(settings), **overrides), engine, stop)


PROGRAM = Program(
    name="rucio-trace-recorder",
    executable="traceability-recorder",
    description="Sign a trace for every replica that comes, goes or is doubted in Rucio.",
    example="--rses 'site=A' --threads 4",
    once="handle what is due, then end",
    bulk="due rows a batch",
    open=_open,
)
main = PROGRAM.main


if __name__ == "__main__":
    sys.exit(main())
