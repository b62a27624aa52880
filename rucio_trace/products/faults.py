"""What is wrong with a product by its own manifest, as values: each fault names what, expected, found.

`Uncertain` faults leave open whether the product is whole; a `Remark` is told and decides nothing.
"""

from rucio_trace.faults import Fault, Remark, Uncertain

__all__ = [
    "ForbiddenPath",
    "ListedTwice",
    "ManifestUnreadable",
    "MissingFile",
    "NoChecksum",
    "NoManifest",
    "ProductFault",
    "UnknownChecksum",
    "UnlistedFile",
    "Unvouched",
    "WrongChecksum",
    "WrongSize",
]


class ProductFault(Fault):
    """The product is not what its manifest says."""


class MissingFile(ProductFault):
    """The manifest lists a file that the product lacks."""

    wording = "{what} is missing"


class UnlistedFile(ProductFault):
    """The product holds a file that the manifest does not list, and no producer leaves out."""

    wording = "{what} is not in the manifest"


class WrongSize(ProductFault):
    """A file has not the size that the manifest says."""

    wording = "{what} should have {expected} bytes, has {found}"


class WrongChecksum(ProductFault):
    """A file has not the checksum that the manifest says."""


class ForbiddenPath(ProductFault):
    """The manifest points out of the product."""

    wording = "the manifest lists {what}: {found}"


class ListedTwice(ProductFault):
    """The manifest says two things of one file."""

    wording = "{what} is listed more than once"


class NoManifest(Uncertain):
    """There is nothing to check by."""

    wording = "there is no manifest ({expected}) in its top folder"


class ManifestUnreadable(Uncertain):
    """The manifest is no XML, a dangerous one, or lists nothing."""

    wording = "{what} should be {expected}, found {found}"


class UnknownChecksum(Uncertain):
    """A file's checksum is by an algorithm we do not know."""

    wording = "{what} has a checksum by {found}; known are {expected}"


class NoChecksum(Uncertain):
    """The manifest lists a file without a checksum."""

    wording = "{what} is listed without a checksum"


class Unvouched(Remark):
    """A file that producers do not list: what it holds is nobody's word."""

    wording = "{what} is in no product's manifest: {expected}"
