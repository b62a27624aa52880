"""A demo in a process of its own, and eyes on every process that belongs to it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

PROGRAM = Path(sys.executable).with_name("rucio-trace")


class Demo:
    """A demo that runs in a process of its own."""

    def __init__(self, *options: str | Path, environment: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [PROGRAM, "demo", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
        self.output = ""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self.output += line

    @property
    def folder(self) -> Path:
        return Path(re.search(r"^Everything of this demo lies in (.*)$", self.output, re.MULTILINE)[1])

    def wait(self) -> int:
        status = self.process.wait(580)  # as long as the test may take
        self._reader.join()
        return status


def processes_of(folder: Path) -> list[str]:
    """The processes that know *folder*, by their command line or environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            texts = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
        except OSError:
            continue
        if int(process.name) != os.getpid() and any(os.fsencode(folder) in text for text in texts):
            found.append(texts[0].replace(b"\0", b" ").decode(errors="replace"))
    return found
