"""Between the JSON of a trace service and our values.

Every trace is read anew from its envelope, and one that has faults is refused: nothing is believed that is not signed
but where it stands and when it was registered.
"""

from __future__ import annotations

import base64
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from rucio_trace import faults
from rucio_trace.batch import Line, needs_list, product_of, read_line, write_line
from rucio_trace.envelope import from_json, to_json
from rucio_trace.errors import Malformed
from rucio_trace.lineage import Lineage, Product
from rucio_trace.statement import ProductKey
from rucio_trace.status import Status
from rucio_trace.store.records import BatchLine, Outcome, Registration, Stored

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rucio_trace.envelope import Trace

__all__ = [
    "item_to_json",
    "key_of",
    "key_to_json",
    "line_of",
    "lineage_of",
    "record_of",
    "records_of",
    "registration_of",
    "typed",
]

T = TypeVar("T")


def typed(value: Any, key: str, kind: type[T]) -> T:
    """`value[key]`, which must be of *kind* exactly: JSON's true is no integer.

    Raises:
        Malformed: it is something else, or not there.
    """
    found = value[key] if isinstance(value, dict) and key in value else None
    if type(found) is not kind:
        raise Malformed(key, expected=kind.__name__, found=type(found).__name__)
    return found


def record_of(value: Any) -> Stored:
    """A trace as the service knows it.

    Raises:
        Malformed: it is none, or the trace was altered on its way.
    """
    position, id_ = typed(value, "position", int), typed(value, "id", str)
    trace = from_json(typed(value, "trace", dict))
    if trace.faults or not trace.message:
        found = "; ".join(str(fault) for fault in trace.faults) or "no signed text"
        raise Malformed(f"trace at position {position}", expected="as it was signed", found=found)
    if trace.id != id_:
        raise Malformed(f"trace at position {position}", expected=f"trace {id_}", found=f"trace {trace.id}")
    return Stored(id_, trace, position, moment_of(typed(value, "registered_at", str)))


def records_of(values: Iterable[Any]) -> list[Stored]:
    return [record_of(value) for value in values]


def moment_of(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise Malformed("time", expected="one with a zone", found=text)
    return moment


def key_to_json(key: ProductKey) -> dict[str, str]:
    return {"rucio": key.rucio, "vo": key.vo, "did": key.did, "generation": key.generation}


def key_of(value: Any) -> ProductKey:
    scope, colon, name = typed(value, "did", str).partition(":")
    if not colon:
        raise Malformed("did", expected="scope:name", found=scope)
    rucio, vo, generation = (typed(value, key, str) for key in ("rucio", "vo", "generation"))
    return ProductKey(rucio, vo, scope, name, generation)


def line_of(value: Any, key: ProductKey, batches: dict[str, Stored]) -> BatchLine:
    """A line on *key* of a batch; *batches* keeps those met, which many lines share.

    Held against the batch's own statement: that it is a VERIFY with a list, of this product's Rucio, long enough, and
    younger than the line. That the line is on the list, and whether the batch stands, is the service's word: `list_of`
    and `line_proof` give what proves the first, `verify` never counts a line.

    Raises:
        Malformed: it is none, or not of *key*.
    """
    id_ = typed(value["batch"], "id", str)
    batch = batches[id_] if id_ in batches else batches.setdefault(id_, record_of(value["batch"]))
    statement, index = batch.trace.statement, typed(value, "index", int)
    line = read_line(write_line(Line(**value["line"])))
    if statement.batch is None or not needs_list(statement) or not 0 <= index < statement.batch.count:
        raise Malformed(f"line {index} of {id_}", expected="a VERIFY with a list that has it", found=statement.event)
    if product_of(statement, line) != key or line.time > (statement.time or ""):
        raise Malformed(f"line {index} of {id_}", expected=f"an older line of {key.did}", found=line.did)
    return BatchLine(batch, line, index, typed(value, "position", int), typed(value, "stands", bool))


def item_to_json(trace: Trace, scope: str | None, list_: bytes | None) -> dict[str, Any]:
    """A trace as it is handed in."""
    envelope = to_json(trace)
    if scope is None and list_ is None:
        return envelope
    item: dict[str, Any] = {"trace": envelope}
    if scope is not None:
        item["scope"] = scope
    if list_ is not None:
        item["list"] = base64.b64encode(list_).decode("ascii")
    return item


def registration_of(value: Any) -> Registration:
    position, reason = value["position"], value["reason"]
    if not isinstance(position, int | None) or not isinstance(reason, str | None):
        raise Malformed("result", expected="a position and a reason", found=f"{position!r}, {reason!r}")
    told = tuple(fault_of(fault) for fault in value.get("faults") or ())
    return Registration(value["id"] or "", position, Outcome(value["outcome"]), reason, told)


def fault_of(value: Any) -> faults.Fault:
    """A fault of the kind that is named; of a newer kind, one that belongs to no family."""
    named = typed(value, "kind", str)
    kind = getattr(faults, named, faults.Fault) if named in faults.__all__ else faults.Fault
    what, expected, found = (typed(value, key, str) for key in ("what", "expected", "found"))
    return kind(what, expected, found, value.get("trace"))


def lineage_of(value: Any) -> Lineage:
    """What `rucio-trace lineage --json` prints, read back."""
    products = {
        typed(each, "digest", str): Product(
            key=each["digest"],
            name=typed(each, "name", str),
            did=each["did"],
            known=typed(each, "known", bool),
            trouble=None if each["trouble"] is None else Status(each["trouble"]),
            beyond=typed(each, "beyond", bool),
        )
        for each in value["products"]
    }
    inputs = {each["digest"]: tuple(each["inputs"]) for each in value["products"] if each["inputs"]}
    because_of = {each["digest"]: tuple(each["because_of"]) for each in value["products"]}
    start = typed(value, "product", str)
    named = {start, *(key for of in (inputs, because_of) for keys in of.values() for key in keys)}
    if missing := named - products.keys():
        raise Malformed("lineage", expected="every product that it names", found=f"none for {min(missing)}")
    return Lineage(start, products, inputs, because_of, typed(value, "complete", bool))
