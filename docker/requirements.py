"""Print the requirements of rucio-trace with the extras named as arguments, without building it.

So the layer of an image that holds the dependencies depends on `pyproject.toml` and `constraints.txt` alone.
"""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text())["project"]


def of(extra: str) -> list[str]:
    """The requirements of an extra; it may name others as `rucio-trace[other,another]`."""
    found = []
    for line in project["optional-dependencies"][extra]:
        own = line.removeprefix(f"{project['name']}[")
        names = [] if own == line else own.removesuffix("]").split(",")
        found += [each for name in names for each in of(name)] or [line]
    return found


print(*project["dependencies"], *(line for extra in sys.argv[1:] for line in of(extra)), sep="\n")  # noqa: T201
