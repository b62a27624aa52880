"""Decompressors with one manner: feed bytes, get output in bounded portions, learn where the data ended."""

from __future__ import annotations

import bz2
import lzma
import zlib
from typing import TYPE_CHECKING, Protocol

from isal import isal_zlib

if TYPE_CHECKING:
    from collections.abc import Callable

    from rucio_trace.digest import Buffer

__all__ = ["BAD_DATA", "PACKED_STARTS", "PORTION_BYTES", "Bzip2", "Decoder", "Deflate", "Gzip", "Xz", "decoder_for"]

PORTION_BYTES = 256 << 10
"""Output at a time: a bomb is noticed long before it fills memory, and real data stays in the cache."""

_XZ_MEMORY_BYTES = 100 << 20  # `xz -9` needs 65 MiB to unpack; a file may demand up to 4 GiB

# What the libraries raise for bytes that are not theirs. bz2 says OSError.
BAD_DATA: tuple[type[Exception], ...] = (
    zlib.error,
    isal_zlib.error,  # type: ignore[assignment] # its stub calls the class an instance
    lzma.LZMAError,
    OSError,
    EOFError,
    ValueError,
)


class Decoder(Protocol):
    """One compressed stream; at its end `ended` is True and further bytes belong to what follows."""

    ended: bool

    def feed(self, data: memoryview, sink: Callable[[bytes], object]) -> int:
        """Decode *data* into *sink*; the number of bytes used, all of them unless the stream has ended."""
        ...


class Deflate:
    """Raw deflate, as in zip."""

    _WINDOW = -15

    def __init__(self) -> None:
        self.ended = False
        self._decompress = isal_zlib.decompressobj(self._WINDOW)

    def feed(self, data: memoryview, sink: Callable[[bytes], object]) -> int:
        rest: Buffer = data
        while True:
            out = self._decompress.decompress(rest, PORTION_BYTES)
            if out:
                sink(out)
            if self._decompress.eof:
                self.ended = True
                return len(data) - len(self._decompress.unused_data)
            rest = self._decompress.unconsumed_tail
            if not rest and len(out) < PORTION_BYTES:
                return len(data)


class Gzip(Deflate):
    """Deflate in a gzip member, whose CRC and length are checked."""

    _WINDOW = 31


class _Pulled:
    """The manner of bz2 and lzma, which keep what they could not yet use."""

    def __init__(self, decompressor: bz2.BZ2Decompressor | lzma.LZMADecompressor) -> None:
        self.ended = False
        self._decompressor = decompressor

    def feed(self, data: memoryview, sink: Callable[[bytes], object]) -> int:
        rest: Buffer = data
        while True:
            out = self._decompressor.decompress(rest, PORTION_BYTES)
            if out:
                sink(out)
            if self._decompressor.eof:
                self.ended = True
                return len(data) - len(self._decompressor.unused_data)
            if self._decompressor.needs_input:
                return len(data)
            rest = b""


class Bzip2(_Pulled):
    def __init__(self) -> None:
        super().__init__(bz2.BZ2Decompressor())


class Xz(_Pulled):
    def __init__(self) -> None:
        super().__init__(lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_BYTES))


_DECODERS: dict[bytes, Callable[[], Decoder]] = {b"\x1f\x8b\x08": Gzip, b"BZh": Bzip2, b"\xfd7zXZ\0": Xz}

PACKED_STARTS = tuple(_DECODERS)
"""How compressed files begin."""


def decoder_for(head: bytes) -> Callable[[], Decoder]:
    """What unpacks a file that begins with *head*, one of PACKED_STARTS."""
    return next(decoder for start, decoder in _DECODERS.items() if head.startswith(start))
