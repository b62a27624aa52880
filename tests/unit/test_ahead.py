"""Files read while something else gets ready."""

from __future__ import annotations

from typing import TYPE_CHECKING

from samples import signer

from rucio_trace.producer.ahead import Declarations
from rucio_trace.producer.declare import Producer

if TYPE_CHECKING:
    from pathlib import Path


def test_a_file_is_read_once_by_whatever_path_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    file, read = tmp_path / "folder" / "product.dat", list[int]()
    file.write_bytes(b"x" * 1000)
    around = tmp_path / "folder" / ".." / "folder" / "product.dat"
    with Declarations({around: "product.dat"}, Producer(signer(), "PRODUCER"), read.append) as declarations:
        declared = declarations.take(file, "product.dat")
        assert declarations.take(around, "product.dat") is declared
    assert sum(read) == 1000
