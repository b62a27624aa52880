"""Streaming from WebDAV and S3 with all digests taken, against the bare client of each (XRootD: bench_recorder)."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from rucio_trace_daemons.readers.credentials import Nobody, S3Keys
from rucio_trace_daemons.readers.http import HttpReader
from rucio_trace_daemons.readers.s3 import S3Reader
from rucio_trace_sandbox.s3 import ACCESS_KEY, SECRET_KEY, Moto
from rucio_trace_sandbox.tls import LoopbackTls
from rucio_trace_sandbox.webdav import Nginx
from rucio_trace_sandbox.workspace import workspace

from benchmarks.harness import Row, at_most, interleaved
from rucio_trace.digest import DigestPass

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rucio_trace_daemons.readers.base import Reader

WEBDAV_BYTES, S3_BYTES = 1 << 30, 256 << 20
SHARE, MEMORY_MB = 0.8, 200
ALGORITHMS = ("BLAKE3", "ADLER32")
PIECE = 1 << 20


def rows() -> Iterator[Row]:
    with ExitStack() as stack:
        folder = stack.enter_context(workspace())
        tls = LoopbackTls.make(folder / "tls")
        os.environ["REQUESTS_CA_BUNDLE"] = str(tls.ca)
        nginx = stack.enter_context(Nginx.start(folder / "nginx", tls))
        moto = stack.enter_context(Moto.start(folder / "moto", tls))
        file = nginx.make_folder("data") / "large"
        with file.open("wb") as out:
            for _ in range(WEBDAV_BYTES >> 20):
                out.write(os.urandom(1 << 20))
        url = f"https://127.0.0.1:{nginx.port}/data/large"
        name = "streaming, WebDAV over TLS: 1 GiB, BLAKE3 and ADLER32, against requests"
        yield _row(name, WEBDAV_BYTES, HttpReader(Nobody()), url, lambda: _requests(url, str(tls.ca)))
        yield at_most("streaming, memory: a process that reads that file", _peak_mb(url), MEMORY_MB, "MB")
        moto.client.create_bucket(Bucket="bucket")
        moto.client.put_object(Bucket="bucket", Key="large", Body=bytes(S3_BYTES))
        keys = S3Keys(ACCESS_KEY, SECRET_KEY, "us-east-1")
        url_s3 = f"s3s://127.0.0.1:{moto.port}/bucket/large"
        name = "streaming, S3 (moto): 256 MiB, BLAKE3 and ADLER32, against boto3"
        yield _row(name, S3_BYTES, S3Reader(keys, host_style=False), url_s3, lambda: _boto3(moto))


def _row(name: str, size: int, reader: Reader, url: str, bare: Callable[[], None]) -> Row:
    own, other = interleaved(lambda: read(reader, url), bare)
    share = other / own
    speeds = [f"{size / seconds / 1e6:.0f} MB/s" for seconds in (own, other)]
    return Row(name, *speeds, f"{share:.2f}", f">= {SHARE}x", share >= SHARE)


def read(reader: Reader, url: str) -> None:
    """What the recorder does with a file."""
    with reader.pieces("the file", url) as pieces, DigestPass(ALGORITHMS) as digests:
        for piece in pieces:
            digests.update(piece)
        digests.finish()


def _requests(url: str, ca: str) -> None:
    import requests

    with requests.get(url, stream=True, verify=ca, timeout=60) as answer:
        assert sum(len(piece) for piece in answer.iter_content(PIECE)) == WEBDAV_BYTES


def _boto3(moto: Moto) -> None:
    body = moto.client.get_object(Bucket="bucket", Key="large")["Body"]
    assert sum(len(piece) for piece in body.iter_chunks(PIECE)) == S3_BYTES


def _peak_mb(url: str) -> float:
    code = "import sys, benchmarks.bench_streaming as b; print(b.peak_mb(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", code, url], capture_output=True, text=True, check=True)
    return float(done.stdout)


def peak_mb(url: str) -> float:
    """The most memory this process held, once it has read *url*."""
    read(HttpReader(Nobody()), url)
    # A child's getrusage begins with its parent's memory; the process's own mark does not.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
