"""`rucio-trace-recorder`: the daemon, with the habits of Rucio's own."""

from __future__ import annotations

import sys
from typing import Any

from rucio_trace_daemons.program import Program

__all__ = ["PROGRAM", "main"]


def _parts() -> tuple[Any, Any]:
    from rucio_trace_daemons.recorder.options import Options
    from rucio_trace_daemons.recorder.service import Recorder

    return Options, Recorder


PROGRAM = Program(
    name="rucio-trace-recorder",
    executable="traceability-recorder",
    description="Sign a trace for every replica that comes, goes or is doubted in Rucio.",
    example="--rses 'site=A' --threads 4",
    once="handle what is due, then end",
    bulk="due rows a batch",
    parts=_parts,
)
main = PROGRAM.main


if __name__ == "__main__":
    sys.exit(main())
