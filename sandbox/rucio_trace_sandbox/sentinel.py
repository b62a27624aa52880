"""Products that look like Sentinel-2's: a `…SAFE.zip` with manifest, metadata and band files.

The bytes are random, but follow from the seed; the same seed gives the same file.
"""

from __future__ import annotations

import hashlib
import random
import zipfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["make_product"]

_BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12", "TCI")
# Pixels of a band relative to one of 10 m, which sets how the size is shared: 60 m, 20 m, 10 m; three colours in TCI.
_WEIGHTS = {"B01": 1, "B09": 1, "B10": 1, "B02": 36, "B03": 36, "B04": 36, "B08": 36, "TCI": 108}
_WEIGHT_20_M = 9
_SENSED, _MADE, _TILE = "20260115T101309", "20260115T120512", "T32TQM"
_JP2_SIGNATURE = bytes.fromhex("0000000c6a5020200d0a870a")
_BLOCK_BYTES = 1 << 20
_ZIP_TIME = (2026, 1, 15, 12, 5, 12)

_MANIFEST = """\
<?xml version="1.0" encoding="UTF-8"?>
<xfdu:XFDU xmlns:xfdu="urn:ccsds:schema:xfdu:1" version="esa/safe/sentinel/1.1">
  <dataObjectSection>
{objects}  </dataObjectSection>
</xfdu:XFDU>
"""
_OBJECT = """\
    <dataObject ID="{id}"><byteStream mimeType="{mime}" size="{size}">\
<fileLocation locatorType="URL" href="./{path}"/><checksum checksumName="SHA3-256">{digest}</checksum>\
</byteStream></dataObject>
"""
_METADATA = """\
<?xml version="1.0" encoding="UTF-8"?>
<Level-1C_User_Product>
  <Product_Info>
    <PRODUCT_URI>{name}</PRODUCT_URI>
    <PROCESSING_LEVEL>Level-1C</PROCESSING_LEVEL>
    <SPACECRAFT_NAME>Sentinel-2{unit}</SPACECRAFT_NAME>
  </Product_Info>
</Level-1C_User_Product>
"""


def make_product(folder: Path, megabytes: float = 50, *, seed: int = 1, unit: str = "B") -> Path:
    """Write a product of about *megabytes* (10⁶) bytes into *folder*; `unit` is the satellite's letter."""
    name = f"S2{unit}_MSIL1C_{_SENSED}_N0511_R{seed % 143 + 1:03d}_{_TILE}_{_MADE}.SAFE"
    path = folder / f"{name}.zip"
    image = f"{name}/GRANULE/L1C_{_TILE}_A000{seed:03d}_{_SENSED}/IMG_DATA/{_TILE}_{_SENSED}"
    weights = {band: _WEIGHTS.get(band, _WEIGHT_20_M) for band in _BANDS}
    unit_bytes = megabytes * 1e6 / sum(weights.values())
    source = random.Random(seed)  # noqa: S311 sample data, not secrets
    objects = []
    # JPEG 2000 does not shrink any more: stored, as the archives deliver it.
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        metadata = _METADATA.format(name=name, unit=unit).encode()
        objects.append(_add(archive, f"{name}/MTD_MSIL1C.xml", "text/xml", [metadata]))
        for band, weight in weights.items():
            size = max(int(unit_bytes * weight), 1)
            objects.append(_add(archive, f"{image}_{band}.jp2", "application/octet-stream", _band(source, size)))
        manifest = _MANIFEST.format(objects="".join(objects)).encode()
        _add(archive, f"{name}/manifest.safe", "text/xml", [manifest])
    return path


def _band(source: random.Random, size: int) -> list[bytes]:
    blocks = [source.randbytes(min(_BLOCK_BYTES, size - start)) for start in range(0, size, _BLOCK_BYTES)]
    return [_JP2_SIGNATURE, *blocks]


def _add(archive: zipfile.ZipFile, path: str, mime: str, blocks: list[bytes]) -> str:
    digest, size = hashlib.sha3_256(), 0
    entry = zipfile.ZipInfo(path, _ZIP_TIME)
    entry.external_attr = 0o644 << 16
    with archive.open(entry, "w") as member:
        for block in blocks:
            member.write(block)
            digest.update(block)
            size += len(block)
    inner = path.partition("/")[2]
    return _OBJECT.format(
        id=inner.rpartition("/")[2].partition(".")[0], mime=mime, size=size, path=inner, digest=digest.hexdigest()
    )
