"""The words of a trace: the statement's parts and the product it speaks of, as plain values.

Nothing is checked here: `rucio_trace.trace` writes and reads statements and enforces every rule.
Import these names from there.
"""

import re
import secrets
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any, NamedTuple

from rucio_trace.errors import Malformed

__all__ = [
    "ALGORITHMS",
    "DEFAULT_VO",
    "HEX_DIGITS",
    "LIST_SUFFIX",
    "MAX_LINES",
    "METHODS",
    "SCHEMA",
    "STRONG",
    "Batch",
    "Cause",
    "Checkpoint",
    "Content",
    "Event",
    "Found",
    "Input",
    "ProductKey",
    "Service",
    "Source",
    "Statement",
    "base_name",
    "format_time",
    "new_event_id",
    "new_salt",
    "parse_time",
]

SCHEMA = "rucio-trace/1"
ALGORITHMS = ("BLAKE3", "SHA256", "SHA3", "SHA512", "MD5", "ADLER32")
STRONG = ("BLAKE3", "SHA256", "SHA3", "SHA512")
HEX_DIGITS = {"BLAKE3": 64, "SHA256": 64, "SHA3": 64, "SHA512": 128, "MD5": 32, "ADLER32": 8}
METHODS = ("read", "storage", "transfer", "none")
LIST_SUFFIX = (
    ".verify.jsonl"  # of the names of batches' lists: no such list passes for a product, and no product for one
)
MAX_LINES = 10_000  # of a batch: its list is about 3 MB
DEFAULT_VO = "def"  # Rucio's own name for the only VO of an instance that has one


class Event(StrEnum):
    """What happened to the product."""

    CREATE = "CREATE"
    COPY = "COPY"
    VERIFY = "VERIFY"
    CORRUPT = "CORRUPT"
    LOST = "LOST"
    DELETE = "DELETE"
    OBSOLETE = "OBSOLETE"
    REVOKE = "REVOKE"


@dataclass(frozen=True, slots=True, order=True)
class ProductKey:
    """A product: one generation of one DID of one Rucio.

    `generation` is `dids.created_at`, written by `format_time`.
    """

    rucio: str
    vo: str
    scope: str
    name: str
    generation: str

    @property
    def did(self) -> str:
        return f"{self.scope}:{self.name}"

    def fields(self) -> dict[str, Any]:
        """The statement's fields that name this product: `Statement(**key.fields(), …)`."""
        return {
            "rucio": self.rucio,
            "vo": None if self.vo == DEFAULT_VO else self.vo,
            "did": self.did,
            "generation": self.generation,
        }


class Content(NamedTuple):
    """A member of an archive; `hash` in the statement's `hash_algorithm`.

    A tuple: there are tens in each trace, and they are made in a third of the time.
    """

    path: str
    hash: str


@dataclass(frozen=True, slots=True)
class Input:
    """A product this one was made from."""

    name: str
    hash: str


@dataclass(frozen=True, slots=True)
class Found:
    """What a CORRUPT replica held instead of the origin's bytes."""

    size: int
    hashes: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Source:
    """Where a copy came from: the RSE, and the trace that proved it there, as far as known."""

    rse: str | None
    trace: str | None


@dataclass(frozen=True, slots=True)
class Batch:
    """Many replicas verified at once: the number of lines in the list, and their Merkle root (hex)."""

    count: int
    root: str


@dataclass(frozen=True, slots=True)
class Cause:
    """Who or what made it happen; accounts are pseudonyms unless the site keeps them."""

    account: str | None = None
    action: str | None = None
    rule: str | None = None
    request: str | None = None
    activity: str | None = None
    tool: str | None = None


@dataclass(frozen=True, slots=True)
class Service:
    """The service that handled the product, in the Traceability Service's terms."""

    context: str | None = None
    type: str | None = None
    provider: str | None = None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Reserved: size and root (hex) of a recent log head."""

    size: int
    root: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What is signed. `name`, `size`, `hash`, `contents` are always the origin's; with `batch` they are its list's.

    Times are RFC 3339 texts as `format_time` writes them; digests lower-case hex. The fields
    stand in the order in which they are written. `hash_algorithm`, `event_id`, `site`, `signer`,
    `time` and `salt` are None only when `schema` is None. With `members` the product is a dataset of so many files,
    `size` is theirs and `hash` that of their list (`rucio_trace.dataset`).
    """

    contents: tuple[Content, ...] | None = None
    hash: str
    inputs: tuple[Input, ...] | None = None
    name: str
    size: int
    event: Event
    schema: str | None = SCHEMA
    event_id: str | None = None
    hash_algorithm: str | None = None
    hashes: Mapping[str, str] | None = None
    rucio: str | None = None
    vo: str | None = None
    did: str | None = None
    generation: str | None = None
    members: int | None = None
    site: str | None = None
    signer: str | None = None
    rse: str | None = None
    time: str | None = None
    observed: str | None = None
    method: str | None = None
    adopted: bool | None = None
    unobserved: bool | None = None
    batch: Batch | None = None
    source: Source | None = None
    replaces: str | None = None
    cause: Cause | None = None
    service: Service | None = None
    attributes: Mapping[str, Any] | None = None
    found: Found | None = None
    obsolescence: str | None = None
    replaced_by: str | None = None
    revokes: str | None = None
    checkpoint: Checkpoint | None = None
    salt: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def product(self) -> ProductKey | None:
        """The product in Rucio, None for a file that is in no Rucio and for a batch, which speaks of many."""
        if self.rucio is None or self.did is None or self.generation is None:
            return None
        scope, _, name = self.did.partition(":")
        return ProductKey(self.rucio, self.vo or DEFAULT_VO, scope, name, self.generation)

    @property
    def outside(self) -> bool:
        """Whether it speaks of a file that is in no Rucio."""
        return self.product is None and self.batch is None

    @property
    def digests(self) -> dict[str, str]:
        """All digests of the origin that are signed by name; empty for a CDSE trace."""
        if self.hash_algorithm is None:
            return {}
        return {self.hash_algorithm: self.hash, **(self.hashes or {})}


def new_salt() -> str:
    """128 random bits: the digest of a statement gives nothing of it away."""
    return secrets.token_hex(16)


def new_event_id() -> str:
    return str(uuid.uuid4())


def base_name(did_name: str) -> str:
    """The file's own name in a DID's name, which may hold folders: what `Statement.name` must be."""
    return did_name.rstrip("/").rpartition("/")[2]


def format_time(moment: datetime) -> str:
    """RFC 3339 in UTC with microseconds; *moment* must be aware."""
    if moment.tzinfo is None:
        raise ValueError("a time without a zone names no moment")
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ").rjust(27, "0")


_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z")


@lru_cache(maxsize=1_024)  # a trace's times are asked for again and again while it is judged and stored
def parse_time(text: str) -> datetime:
    """The reverse of `format_time`, and of nothing else."""
    try:
        if not _TIME.fullmatch(text):
            raise ValueError(text)
        return datetime.fromisoformat(text)
    except ValueError:
        raise Malformed("time", expected="YYYY-MM-DDThh:mm:ss.ffffffZ", found=text) from None
