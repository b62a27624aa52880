"""How a replica can be proven (docs/format.md, section 3)."""

from enum import StrEnum

__all__ = ["Method"]


class Method(StrEnum):
    """How a replica is proven."""

    READ = "read"
    STORAGE = "storage"
    TRANSFER = "transfer"
    NONE = "none"
    EXCLUDED = "excluded"  # no trace at all: a cache
    UNKNOWN = "unknown"  # the attribute holds a word we do not know: nothing is signed until it is mended
