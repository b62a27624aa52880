"""Copies from storage to storage, with their checksums: what the stand-in for FTS3 does for a living."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import zlib
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from .processes import program, wrapper

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Copier", "CopyFailed"]

_BLOCK_BYTES = 1 << 20
_COPY_SECONDS = 300
# The client's own defaults wait half an hour for a server that is gone.
_XROOTD = {
    "XRD_CONNECTIONRETRY": "1",
    "XRD_CONNECTIONWINDOW": "5",
    "XRD_REQUESTTIMEOUT": "60",
    "XRD_STREAMERRORWINDOW": "0",
}


class CopyFailed(Exception):
    """A copy that did not come about; the text is FTS3's `reason`."""


class Copier:
    """Copies `file` to `file` and `root` to `root`; `kill` ends what is under way, as a crash would."""

    def __init__(self) -> None:
        self.killed = False
        self._running: set[subprocess.Popen[str]] = set()

    def copy(self, source: str, destination: str, *, overwrite: bool, half_way: Callable[[], None]) -> None:
        """Copy one file; *half_way* is called when some of the bytes are over."""
        schemes = (urlsplit(source).scheme, urlsplit(destination).scheme)
        if schemes == ("file", "file"):
            self._copy_file(_path(source), _path(destination), overwrite=overwrite, half_way=half_way)
        elif schemes == ("root", "root"):
            self._copy_xrootd(source, destination, overwrite=overwrite, half_way=half_way)
        else:
            raise CopyFailed(f"TRANSFER [93] no third-party copy from {schemes[0]} to {schemes[1]}")

    def adler32(self, url: str) -> str:
        """The checksum of a file, from its bytes (`file`) or from its server (`root`)."""
        parts = urlsplit(url)
        if parts.scheme == "file":
            return _adler32(_path(url))
        answer = self._run(
            program("xrdfs", "xrootd-client"), parts.netloc, "query", "checksum", f"/{parts.path.lstrip('/')}"
        )
        name, value = answer.split()[:2]
        if name != "adler32":
            raise CopyFailed(f"CHECKSUM [95] {url}: the server gave {name}")
        return value

    def remove(self, url: str) -> None:
        """Remove what a failed copy left; nothing there is as well."""
        parts = urlsplit(url)
        if parts.scheme == "file":
            _path(url).unlink(missing_ok=True)
        else:
            with contextlib.suppress(CopyFailed):
                self._run(program("xrdfs", "xrootd-client"), parts.netloc, "rm", f"/{parts.path.lstrip('/')}")

    def kill(self) -> None:
        self.killed = True
        for process in list(self._running):
            process.kill()

    def _copy_file(self, source: Path, destination: Path, *, overwrite: bool, half_way: Callable[[], None]) -> None:
        if destination.exists() and not overwrite:
            raise CopyFailed("TRANSFER [17] Destination file exists and overwrite is not enabled")
        try:
            destination.parent.mkdir(parents=True, exist_ok=True)
            half = source.stat().st_size // 2
            with source.open("rb") as reader, destination.open("wb") as writer:
                writer.write(reader.read(half))
                writer.flush()
                half_way()
                if self.killed:
                    raise CopyFailed("the agent died")
                shutil.copyfileobj(reader, writer, _BLOCK_BYTES)
        except OSError as error:
            raise CopyFailed(f"TRANSFER [{error.errno}] {error.strerror}: {error.filename}") from error

    def _copy_xrootd(self, source: str, destination: str, *, overwrite: bool, half_way: Callable[[], None]) -> None:
        options = ["--tpc", "only", "--nopbar", "--path", *(["--force"] if overwrite else [])]
        self._run(program("xrdcp", "xrootd-client"), *options, source, destination, half_way=half_way)

    def _run(self, *argv: str, half_way: Callable[[], None] | None = None) -> str:
        process = subprocess.Popen(
            [*wrapper(None), *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **_XROOTD},
            start_new_session=True,
        )
        self._running.add(process)
        try:
            if half_way is not None:
                half_way()
            if self.killed:
                process.kill()
            output, errors = process.communicate(timeout=_COPY_SECONDS)
        except subprocess.TimeoutExpired as error:
            process.kill()
            process.communicate()
            raise CopyFailed(f"TRANSFER [110] {argv[0]}: nothing within {_COPY_SECONDS} s") from error
        finally:
            self._running.discard(process)
        if process.returncode:
            raise CopyFailed(f"TRANSFER [5] {' '.join(errors.split()) or f'status {process.returncode}'}")
        return output


def _path(url: str) -> Path:
    return Path(urlsplit(url).path)


def _adler32(path: Path) -> str:
    value = 1
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                value = zlib.adler32(block, value)
    except OSError as error:
        raise CopyFailed(f"CHECKSUM [{error.errno}] {error.strerror}: {path}") from error
    return f"{value:08x}"
