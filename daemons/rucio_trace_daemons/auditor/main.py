"""`rucio-trace-auditor`: the daemon, with the habits of Rucio's own."""

from __future__ import annotations

import sys
from typing import Any

from rucio_trace_daemons.program import Program

__all__ = ["PROGRAM", "main"]


def _parts() -> tuple[Any, Any]:
    from rucio_trace_daemons.auditor.options import Options
    from rucio_trace_daemons.auditor.service import Auditor

    return Options, Auditor


PROGRAM = Program(
    name="rucio-trace-auditor",
    executable="traceability-auditor",
    description="Read every replica again in its turn, sign what is good, and have Rucio replace what is not.",
    example="--rses 'site=A' --threads 4",
    once="read what is due, then end",
    bulk="replicas a claim",
    parts=_parts,
    switches={"declare": "declare bad replicas in Rucio, which replaces them"},
)
main = PROGRAM.main


if __name__ == "__main__":
    sys.exit(main())
