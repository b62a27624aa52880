"""`rucio-trace-xrootd-cks` where an XRootD server can run it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from .errors import SandboxError
from .processes import first_user, wrapper
from .xrootd import ACCOUNTS

__all__ = ["strong_checksums"]

_PACKAGES = ("rucio_trace", "blake3", "isal")
_PROGRAM = """\
#!/bin/sh
PYTHONPATH={packages} exec {python} -m rucio_trace.xrootd_cks "$@"
"""


def strong_checksums(folder: Path) -> str:
    """The `checksums` of a server in *folder* that reads each file anew: ADLER32 for Rucio, BLAKE3 for the recorder."""
    program = Path(sys.executable).with_name("rucio-trace-xrootd-cks")
    if not _runs(program):
        program = _copied(folder / "program")
        if not _runs(program):
            raise SandboxError(f"{program}: the account of the XRootD server cannot run it")
    return f"max 8 adler32 blake3 {program} --localroot {folder}/data"


def _runs(program: Path) -> bool:
    """Whether the server's account can run *program*; asked by a shell, since setpriv itself reaches what root does."""
    asked = [*wrapper(first_user(*ACCOUNTS)), "sh", "-c", '"$0" --help', program]
    return subprocess.run(asked, check=False, capture_output=True).returncode == 0


def _copied(folder: Path) -> Path:
    """The program in *folder*, for the system's Python: ours lies where only we may go, below /root perhaps."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    python = shutil.which(name, path="/usr/local/bin:/usr/bin")
    if python is None:
        raise SandboxError(f"the XRootD server cannot run {sys.executable}, and the system has no {name}")
    for package in _PACKAGES:
        spec = find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        shutil.copytree(Path(spec.origin).parent, folder / package, dirs_exist_ok=True)
    program = folder / "rucio-trace-xrootd-cks"
    program.write_text(_PROGRAM.format(packages=folder, python=python))
    program.chmod(0o755)
    return program
