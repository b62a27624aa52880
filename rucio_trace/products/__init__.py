"""What products say of themselves: by their names, and by the manifests in them.

Attributes describe, they prove nothing: no fault here ever costs a trace.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rucio_trace.products.manifest import MANIFEST_NAMES, attributes_of_manifest
from rucio_trace.products.names import attributes_of_name

if TYPE_CHECKING:
    from rucio_trace.products.names import Attributes

__all__ = ["MANIFEST_NAMES", "attributes_of", "attributes_of_manifest", "attributes_of_name"]

_FINER_IN_MANIFEST = ("beginningDateTime", "endingDateTime")  # a name has whole seconds


def attributes_of(name: str, manifest: bytes | None) -> Attributes:
    """What the product's name and its manifest, if it was read, say together.

    Names follow the catalogue more closely than manifests, whose `productType` is half of it at times; only times
    are finer in the manifest.
    """
    said = attributes_of_manifest(manifest) if manifest else {}
    finer = {key: said[key] for key in _FINER_IN_MANIFEST if key in said}
    return said | attributes_of_name(name) | finer
