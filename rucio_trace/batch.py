"""Many replicas verified, one signature: the list that a VERIFY with `batch` speaks of, and proofs of its lines.

An auditor reads replicas by the thousand. It signs one statement per RSE and batch; what it found is the list, a file
of one line per replica, whose size, digest, number of lines and Merkle root the statement holds. So the list is kept
once, and a single line can be shown and checked without the others (docs/format.md, section 12).

    {"did":"s2:a.zip","generation":"2026-05-22T12:00:00.000000Z","digest":"BLAKE3:0c4a…","time":"2026-05-31T12:00:00.000000Z"}

Who signed the statement, and whether that counts, is decided as for every trace (`checking`). Pure.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from blake3 import blake3

from rucio_trace import strictjson
from rucio_trace.envelope import Trace, from_json, to_json
from rucio_trace.errors import Malformed, Refuted
from rucio_trace.fields import READERS
from rucio_trace.merkle import check_inclusion, root
from rucio_trace.statement import (
    DEFAULT_VO,
    HEX_DIGITS,
    LIST_SUFFIX,
    MAX_LINES,
    STRONG,
    Batch,
    Event,
    ProductKey,
    Statement,
)

__all__ = [
    "MAX_LIST_BYTES",
    "Line",
    "LineProof",
    "check_line",
    "check_list",
    "list_fields",
    "list_name",
    "needs_list",
    "parse_proof",
    "product_of",
    "proof_to_json",
    "read_line",
    "read_lines",
    "write_line",
    "write_lines",
]

MAX_LIST_BYTES = strictjson.MAX_BYTES  # 10,000 lines of names as long as Rucio allows


@dataclass(frozen=True, slots=True)
class Line:
    """One replica, read and found good: its product, the digest it has, and when it was read.

    `digest` is `ALGORITHM:hex` with a strong algorithm; times are as `format_time` writes them.
    """

    did: str
    generation: str
    digest: str
    time: str


_KEYS = tuple(Line.__dataclass_fields__)


def write_line(line: Line) -> bytes:
    """The line's bytes, without a line feed: the entry of the Merkle tree."""
    return strictjson.write({key: getattr(line, key) for key in _KEYS}, "line").encode("utf-8", "surrogatepass")


def write_lines(lines: Sequence[Line]) -> bytes:
    """The list of *lines* in their order, each ended by a line feed.

    Raises:
        Malformed: no line, too many, one of them is none, or two are of one product.
    """
    data = _written(lines)
    read_lines(data)
    return data


def read_line(data: bytes) -> Line:
    """The reverse of `write_line`, and of nothing else.

    Raises:
        Malformed: anything else; no other error escapes.
    """
    line = _line(strictjson.read(data, "line"))
    if write_line(line) != data:
        raise Malformed("line", expected="a line as it is written", found="another spelling")
    return line


def read_lines(data: bytes) -> tuple[Line, ...]:
    """The reverse of `write_lines`, and of nothing else: every list has one spelling.

    Raises:
        Malformed: anything else than such a list; no other error escapes.
    """
    if len(data) > MAX_LIST_BYTES:
        raise Malformed("list", expected=f"at most {MAX_LIST_BYTES} bytes", found=f"{len(data)}")
    entries = data.split(b"\n")
    if not 1 < len(entries) <= MAX_LINES + 1 or entries.pop():
        raise Malformed("list", expected=f"1 to {MAX_LINES} lines, each ended", found=f"{len(entries)} parts")
    values = strictjson.read(b"[" + b",".join(entries) + b"]", "list", max_bytes=MAX_LIST_BYTES + 2)
    lines = tuple(map(_line, values))
    if _written(lines) != data:
        raise Malformed("list", expected="lines as they are written", found="another spelling")
    if len({(line.did, line.generation) for line in lines}) != len(lines):
        raise Malformed("list", expected="every product once", found="one twice")
    return lines


def _written(lines: Iterable[Line]) -> bytes:
    return b"".join(write_line(line) + b"\n" for line in lines)


_DIGEST = re.compile(r"([A-Z0-9]+):([0-9a-f]+)")


def _line(value: Any) -> Line:
    if type(value) is not dict or tuple(value) != _KEYS:
        raise Malformed("line", expected=f"an object of {', '.join(_KEYS)}", found=repr(value))
    digest = _DIGEST.fullmatch(value["digest"]) if type(value["digest"]) is str else None
    if digest is None or digest[1] not in STRONG or len(digest[2]) != HEX_DIGITS[digest[1]]:
        raise Malformed(
            "line.digest", expected=f"one of {', '.join(STRONG)}, with its name", found=repr(value["digest"])
        )
    for key in ("did", "generation", "time"):
        READERS[key](f"line.{key}", value[key])
    return Line(**value)


# ------------------------------------------------------------------- the statement and its list


def list_name(rse: str, time: str) -> str:
    """What the list of a batch is called: its RSE, and when it was signed."""
    return f"{rse}.{time.replace(':', '')}{LIST_SUFFIX}"


def list_fields(data: bytes) -> dict[str, Any]:
    """The statement's fields that commit to the list *data*: `Statement(**list_fields(data), name=…, …)`."""
    entries = data.split(b"\n")[:-1]
    return {
        "size": len(data),
        "hash": blake3(data).hexdigest(),
        "hash_algorithm": "BLAKE3",
        "batch": Batch(len(entries), root(entries).hex()),
    }


def needs_list(statement: Statement) -> bool:
    """Whether *statement* speaks of a list that belongs with it; the REVOKE of a batch does not."""
    return statement.batch is not None and statement.event is Event.VERIFY


def check_list(statement: Statement, data: bytes) -> tuple[Line, ...]:
    """Accept *data* as the list that *statement* speaks of.

    Raises:
        Refuted: it is another list, or a line is younger than the statement.
        Malformed: it is that list, and none that `write_lines` would have written.
    """
    if statement.batch is None:
        raise Refuted("statement", expected="one of a batch", found=statement.event)
    for key, found in list_fields(data).items():
        if (expected := getattr(statement, key)) != found:
            raise Refuted(f"list {statement.name}, {key}", expected=str(expected), found=str(found))
    lines = read_lines(data)
    for line in lines:
        _check_time(statement, line)
    return lines


def _check_time(statement: Statement, line: Line) -> None:
    """Nothing can have been read after the statement was made: it would be taken for proven for ever."""
    if line.time > (statement.time or ""):
        raise Refuted(f"line of {line.did}, time", expected=f"at most {statement.time}", found=line.time)


def product_of(statement: Statement, line: Line) -> ProductKey:
    """The product that a line of the statement's list speaks of."""
    scope, _, name = line.did.partition(":")
    return ProductKey(statement.rucio or "", statement.vo or DEFAULT_VO, scope, name, line.generation)


# ------------------------------------------------------------------------------ a single line


@dataclass(frozen=True, slots=True)
class LineProof:
    """A line, not yet checked, with the trace of its batch and the path that leads to the signed root.

    `index` counts from 0; `path` holds hashes of 32 bytes, the deepest first.
    """

    trace: Trace
    line: Line
    index: int
    path: tuple[bytes, ...]


def check_line(proof: LineProof) -> Line:
    """Accept the proof's line as one of the list that its trace speaks of.

    The trace itself is judged as any other: by `checking.check_trace`.

    Raises:
        Refuted: the line is not in that list.
    """
    s = proof.trace.statement
    if proof.trace.faults or s.batch is None:
        raise Refuted(f"trace {proof.trace.id}", expected="one of a batch", found="another one")
    check_inclusion(write_line(proof.line), proof.index, s.batch.count, proof.path, bytes.fromhex(s.batch.root))
    _check_time(s, proof.line)
    return proof.line


def proof_to_json(proof: LineProof) -> dict[str, Any]:
    """What is shown to others: the trace as it was signed, the line, its place and its path."""
    return {
        "trace": to_json(proof.trace),
        "line": {key: getattr(proof.line, key) for key in _KEYS},
        "index": proof.index,
        "path": [node.hex() for node in proof.path],
    }


_PROOF_KEYS = {"trace", "line", "index", "path"}
_NODE = re.compile(r"[0-9a-f]{64}")
_MAX_PATH = 64  # nodes; a batch has 14


def parse_proof(data: bytes) -> LineProof:
    """Read the JSON text of a proof. Its trace may have faults, which `check_trace` tells.

    Raises:
        Malformed: anything else; no other error escapes.
    """
    value = strictjson.read(data, "proof")
    if type(value) is not dict or value.keys() != _PROOF_KEYS:
        raise Malformed("proof", expected=f"an object of {', '.join(sorted(_PROOF_KEYS))}", found=repr(value))
    index, path = value["index"], value["path"]
    if type(index) is not int or index < 0:
        raise Malformed("proof.index", expected="the number of a line", found=repr(index))
    if type(path) is not list or len(path) > _MAX_PATH or not all(_is_node(node) for node in path):
        raise Malformed("proof.path", expected="hashes of 32 bytes, hexadecimal", found=repr(path))
    return LineProof(from_json(value["trace"]), _line(value["line"]), index, tuple(map(bytes.fromhex, path)))


def _is_node(value: Any) -> bool:
    return type(value) is str and _NODE.fullmatch(value) is not None
