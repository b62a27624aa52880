"""Importing a long file of traces of the Traceability Service: cut, read, verified, stored; and the memory it takes."""

from __future__ import annotations

import json
import tempfile
import time
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.harness import Row, at_least, at_most
from benchmarks.signed import digest, signed_raw, signer, trust
from rucio_trace.exchange.incoming import read_traces
from rucio_trace.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

TRACES = 20_000
CONTENTS = 15  # of a Sentinel-2 product's archive the field signs some sixty; the median product has fewer
TARGET = 2_000
MEMORY_MB = 200
_PIECE = 256 * 1024


def rows() -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = folder / "traces.json"
        _write(file)
        rates = []
        for turn in range(3):
            start = time.perf_counter()
            _import(file, folder / f"{turn}.db")
            rates.append(TRACES / (time.perf_counter() - start))
        size = file.stat().st_size >> 20
        yield at_least(f"import of {TRACES:,} traces, {size} MiB, ECDSA", sorted(rates)[1], TARGET, "traces/s")
        tracemalloc.start()
        for _ in read_traces(_pieces(file)):
            pass
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        yield at_most("import, memory for cutting and reading the same file", peak / 1e6, MEMORY_MB, "MB")


def _import(file: Path, database: Path) -> None:
    anchors = trust()
    stored = 0
    with Store.open(f"sqlite:///{database}") as store:
        for batch in read_traces(_pieces(file)):
            stored += sum(answer.outcome == "stored" for answer in store.register(batch, trust=anchors))
    assert stored == TRACES, stored


def _pieces(file: Path) -> Iterator[bytes]:
    with file.open("rb") as opened:
        while piece := opened.read(_PIECE):
            yield piece


def _write(file: Path) -> None:
    with file.open("w") as opened:
        opened.write("[")
        for number in range(TRACES):
            contents = [{"hash": digest(f"{number}/{m}"), "path": f"P/IMG_DATA/B{m:02}.jp2"} for m in range(CONTENTS)]
            members = {"contents": contents, "hash": digest(f"{number}"), "name": f"p{number}.zip", "size": 5}
            text = json.dumps({**members, "event": "CREATE"}, separators=(",", ":"))
            given = {"id": f"{number}", "timestamp": "2026-05-01T00:00:00.000000Z", "origin": "lta"}
            opened.write(("," if number else "") + json.dumps(signed_raw(text, signer(), **given)))
        opened.write("]")
