"""`rucio-trace-auditor`: the daemon, with the habits of Rucio's own."""

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
    from rucio_trace_daemons.auditor.service import Auditor

__all__ = ["PROGRAM", "main"]


def _open(settings: Settings, overrides: Mapping[str, Any], engine: Engine, stop: threading.Event) -> Auditor:
    from rucio_trace_daemons.auditor.options import Options
    from rucio_trace_daemons.auditor.service import Auditor

    return Auditor.open(settings, replace(Options.of(settings), **overrides), engine, stop)


PROGRAM = Program(
    name="rucio-trace-auditor",
    executable="traceability-auditor",
    description="Read every replica again in its turn, sign what is good, and have Rucio replace what is not.",
    example="--rses 'site=A' --threads 4",
    once="read what is due, then end",
    bulk="replicas a claim",
    open=_open,
    switches={"declare": "declare bad replicas in Rucio, which replaces them"},
)
main = PROGRAM.main


if __name__ == "__main__":
    sys.exit(main())
