"""Uploads of 1 GiB to a POSIX RSE, whole processes: ours reads the file once for its digests, Rucio's client twice."""

from __future__ import annotations

import itertools
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from benchmarks.harness import compared

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rucio_trace_sandbox.rest import Rest

    from benchmarks.harness import Row

_SIZE = 1 << 30
_LIMIT = 0.8
_SETTINGS = """\
[trust]
federation = "../federation/federation.toml"
[producer]
key = "../federation/PRODUCER.key.pem"
certificate = "../federation/PRODUCER.pem"
"""


def rows() -> Iterator[Row]:
    from rucio_trace_policy import hooks
    from rucio_trace_policy.database import GUARDED_JSON, PLUGIN
    from rucio_trace_sandbox.embedded import EmbeddedRucio, bootstrap, sqlite_url
    from rucio_trace_sandbox.home import RucioHome, claim_process
    from rucio_trace_sandbox.pki import SandboxAuthority
    from rucio_trace_sandbox.rest import gunicorn
    from rucio_trace_sandbox.workspace import workspace

    with ExitStack() as stack:
        folder = stack.enter_context(workspace())
        url = sqlite_url(folder / "rucio.db")
        home = RucioHome.server(folder / "rucio", url)
        claim_process(home)
        bootstrap(home)
        rucio = EmbeddedRucio(home, url, folder)
        hooks.install(rucio.engine)
        rucio.configure(metadata={"plugins": f"{PLUGIN},{GUARDED_JSON}"})
        SandboxAuthority(folder / "federation").admit("PRODUCER", rses=(), create=("test",))
        settings = folder / "rucio-trace" / "rucio-trace.toml"
        settings.parent.mkdir()
        settings.write_text(_SETTINGS)
        os.environ["XDG_CONFIG_HOME"] = str(folder)  # for the server and for those who upload
        # In memory: the disk would be most of what both take, and another one each time.
        disk = Path(stack.enter_context(TemporaryDirectory(dir="/dev/shm")))
        rucio.add_posix_rse("DISK", disk)
        rest = stack.enter_context(gunicorn(home, folder / "gunicorn"))
        yield _row(rest, _file(folder), disk)


def _file(folder: Path) -> Path:
    path = folder / "large.dat"
    with path.open("wb") as file:
        for _ in range(_SIZE >> 24):
            file.write(os.urandom(1 << 24))
    return path


def _row(rest: Rest, path: Path, disk: Path) -> Row:
    numbers = itertools.count()

    def ours() -> None:
        program = "import sys; from rucio_trace.cli import main; main()"
        _done(sys.executable, "-c", program, "upload", path, number=next(numbers))

    def stock() -> None:
        _done("rucio", "upload", path, number=next(numbers))

    def _done(*argv: object, number: int) -> None:
        words = [str(word) for word in argv]
        done = rest.home.run(*words, "--rse", "DISK", "--scope", "test", "--lfn", f"large-{number}.dat")
        if done.returncode:
            raise RuntimeError(done.stdout + done.stderr)
        for file in disk.rglob("large-*.dat"):
            file.unlink()

    return compared(
        "upload 1 GiB to POSIX, with hash and trace", ours, stock, peer_name="rucio upload", limit=_LIMIT, rounds=3
    )
