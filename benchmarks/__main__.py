"""Run every `bench_*.py` beside this file, or the named ones, and print one table."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from benchmarks.harness import markdown


def main(wanted: list[str]) -> None:
    found = sorted(file.stem.removeprefix("bench_") for file in Path(__file__).parent.glob("bench_*.py"))
    if unknown := set(wanted) - set(found):
        sys.exit(f"no benchmark named {', '.join(sorted(unknown))}; there are {', '.join(found)}")
    rows = []
    for name in wanted or found:
        print(f"measuring: {name}", file=sys.stderr)
        for row in importlib.import_module(f"benchmarks.bench_{name}").rows():
            print(f"  {row.name}: {row.ours}", file=sys.stderr)
            rows.append(row)
    print(markdown(rows))


if __name__ == "__main__":
    main(sys.argv[1:])
