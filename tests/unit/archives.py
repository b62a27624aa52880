"""Archives made for tests, and how the tests read them."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from pathlib import Path

import blake3

from rucio_trace.archive import (
    ArchiveDigests,
    ArchiveLimits,
    ArchivePass,
)

VECTORS = Path(__file__).parent.parent / "vectors" / "archives"
PRODUCT = "S2A_MSIL1C_20230420T100021_N0509_R122_T33UVP_20230420T120027.SAFE"
FILES = {
    "P.SAFE/manifest.safe": b"<xml/>" * 40,
    "P.SAFE/empty": b"",
    "P.SAFE/data/B01.jp2": blake3.blake3(b"B01").digest(length=200_000),
    "P.SAFE/data/zeros": bytes(300_000),
    "P.SAFE/ü.txt": b"name beyond ASCII",
}
PACKERS = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


def b3(data: bytes) -> str:
    return blake3.blake3(data).hexdigest()


def read(data: bytes, name: str = "a.zip", cut: int = 1 << 20, limits: ArchiveLimits | None = None) -> ArchiveDigests:
    """Digest *data* as a stream that comes in chunks of *cut* bytes, each in the same buffer."""
    reading = ArchivePass(name, ["BLAKE3"], limits=limits)
    buffer = bytearray(cut)
    for start in range(0, len(data), cut):
        chunk = data[start : start + cut]
        buffer[: len(chunk)] = chunk
        reading.update(memoryview(buffer)[: len(chunk)])
    return reading.finish()


def listed(found: ArchiveDigests) -> dict[str, str]:
    assert found.members is not None
    return {member.path: member.hashes["BLAKE3"] for member in found.members}


def zipped(
    files: dict[str, bytes] = FILES, method: int = zipfile.ZIP_DEFLATED, *, seekable: bool = True, folders: bool = True
) -> bytes:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return seekable

        def tell(self) -> int:
            if not seekable:
                raise OSError
            return super().tell()

        def seek(self, *args: int) -> int:
            if not seekable:
                raise OSError
            return super().seek(*args)

    out = Pipe()
    with zipfile.ZipFile(out, "w", method) as archive:
        if folders:
            archive.writestr("P.SAFE/", b"")
        for path, data in files.items():
            archive.writestr(path, data)
    return out.getvalue()


def tarred(files: dict[str, bytes] = FILES, tar_format: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tar_format) as archive:
        folder = tarfile.TarInfo("P.SAFE")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for path, data in files.items():
            info = tarfile.TarInfo(path)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


DIGESTS = {path: b3(data) for path, data in FILES.items()}


SMALL = {"P/a": b"alpha" * 30, "P/b": b"", "P/c": blake3.blake3(b"c").digest(length=150)}
SMALL_DIGESTS = {path: b3(data) for path, data in SMALL.items()}
SHAPES = {
    "stored.zip": zipped(SMALL, zipfile.ZIP_STORED),
    "deflated.zip": zipped(SMALL),
    "piped.zip": zipped(SMALL, seekable=False),
    "plain.tar": tarred(SMALL)[:-8_192],
    "packed.tar.gz": gzip.compress(tarred(SMALL), mtime=0),
    "packed.tar.bz2": bz2.compress(tarred(SMALL)),
    "packed.tar.xz": lzma.compress(tarred(SMALL)),
}
