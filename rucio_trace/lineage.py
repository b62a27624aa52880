"""What a product was made from, and what was made from it: a graph of products, known by their bytes.

An edge is an input that a CREATE names: the digest decides, the name beside it is a hint. Products are one where a
CREATE says that two digests are of the same bytes. What is wrong with a product (it is obsolete, revoked, disputed or
tampered with) is told of everything that was made from it. Where to look is the caller's: see `Records`. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from rucio_trace.errors import Refuted
from rucio_trace.statement import HEX_DIGITS, STRONG
from rucio_trace.status import Status

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from rucio_trace.statement import Input, Statement
    from rucio_trace.store.records import Stored

__all__ = ["MAX_PRODUCTS", "TROUBLES", "Circular", "Lineage", "Product", "Records", "explore", "strong_digests"]

MAX_PRODUCTS: Final = 10_000
"""CREATEs that one question looks at: about a second. Nobody reads a longer tree; `complete` tells."""

TROUBLES: Final = (Status.DISPUTED, Status.REVOKED, Status.TAMPERED, Status.OBSOLETE)
"""What is told of all descendants, the gravest first."""

_STRONG_DIGITS: Final = frozenset(HEX_DIGITS[algorithm] for algorithm in STRONG)


class Circular(Refuted):
    """Traces say that a product was made from itself: at least one of them is wrong, and no tree shows it."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        path = " <- ".join(names)
        super().__init__("lineage", expected="no product made from itself", found=f"a circle of inputs: {path}")


class Records(Protocol):
    """Where traces are looked for."""

    def creating(self, digests: Collection[str], most: int) -> list[Stored]:
        """The CREATEs of files with one of these digests; of more than *most* it is enough to give one more."""

    def using(self, digests: Collection[str], most: int) -> list[Stored]:
        """The CREATEs that name one of these digests as an input; as many as above."""

    def troubles(self, creates: Collection[Stored]) -> Mapping[int, Status]:
        """What is wrong with the products of *creates*, by position; one of `TROUBLES`, nothing for the others."""


@dataclass(frozen=True, slots=True)
class Product:
    """One product, by its bytes. `key` is one of its digests; of an unknown one, the one it was named by.

    `name` is signed by its maker, that of an unknown product by who used it. `beyond` says that there is more in the
    direction asked for, at which nobody looked.
    """

    key: str
    name: str
    did: str | None
    known: bool
    trouble: Status | None
    beyond: bool


@dataclass(frozen=True, slots=True)
class Lineage:
    """The products reached from `start`, by key, and what each was made from.

    `because_of` names for each product those of its ancestors that are in trouble. It is complete, as the rest, only
    where nothing is `beyond` and `complete` holds.
    """

    start: str
    products: Mapping[str, Product]
    inputs: Mapping[str, tuple[str, ...]]
    because_of: Mapping[str, tuple[str, ...]]
    complete: bool

    def as_object(self, *, up: bool) -> dict[str, Any]:
        """For machines: one object a product, and the keys of what each was made from."""
        products = []
        for key, product in self.products.items():
            told: dict[str, Any] = {"digest": key, "name": product.name, "did": product.did, "known": product.known}
            told |= {"trouble": product.trouble, "beyond": product.beyond}
            told |= {"inputs": self.inputs.get(key, ()), "because_of": self.because_of.get(key, ())}
            products.append(told)
        direction = "up" if up else "down"
        return {"product": self.start, "direction": direction, "complete": self.complete, "products": products}

    def outputs(self) -> dict[str, tuple[str, ...]]:
        """What was made from each product."""
        found: dict[str, list[str]] = {key: [] for key in self.products}
        for key, given in self.inputs.items():
            for each in given:
                found[each].append(key)
        return {key: tuple(made) for key, made in found.items()}


def strong_digests(statement: Statement) -> set[str]:
    """By which digests a product is the same as another; a CDSE trace does not say of which algorithm its one is."""
    named = {digest for algorithm, digest in statement.digests.items() if algorithm in STRONG}
    return named if statement.schema is not None else {statement.hash}


def explore(
    records: Records, start: Collection[str], *, up: bool, depth: int | None = None, most: int = MAX_PRODUCTS
) -> Lineage | None:
    """The lineage of the file with the digests *start*, up to its origins or down to what was made from it.

    At most *depth* edges away. Downwards, what else those products were made from is looked at for its troubles,
    without being shown. None if no trace speaks of the file at all.

    Raises:
        Circular: the traces contradict themselves.
    """
    walk = _Walk(records, most)
    if up:
        walk.up(start, depth)
    else:
        made = walk.down(start, depth)
        walk.up({*start, *(given.hash for stored in made for given in _inputs(stored))}, None)
    if not walk.creates:
        return None
    return _Graph(walk, records.troubles(list(walk.creates.values()))).lineage(start, up=up)


def _inputs(stored: Stored) -> tuple[Input, ...]:
    return stored.trace.statement.inputs or ()


class _Walk:
    """The CREATEs found, breadth first; no product is looked at twice, so a circle ends by itself."""

    def __init__(self, records: Records, most: int) -> None:
        self._records, self._most = records, most
        self.creates: dict[int, Stored] = {}
        self.followed: set[int] = set()  # positions of those whose inputs are part of the answer
        self.beyond: set[str] = set()  # digests of products with more below them
        self.complete = True
        self._asked: set[str] = set()

    def up(self, start: Collection[str], depth: int | None) -> None:
        level, frontier = 0, set(start)
        while frontier := frontier - self._asked:
            self._asked |= frontier
            found = self._add(self._records.creating(frontier, self._most))
            if level == depth:
                self.beyond |= {stored.trace.statement.hash for stored in found if _inputs(stored)}
            if level == depth or not self.complete:
                return
            self.followed |= {stored.position for stored in found}
            frontier = {given.hash for stored in found for given in _inputs(stored)}
            level += 1

    def down(self, start: Collection[str], depth: int | None) -> list[Stored]:
        made: list[Stored] = []
        seen: set[str] = set()
        own = self._records.creating(start, self._most)  # which may name more digests of the same bytes
        level, frontier = 0, {*start, *(digest for stored in own for digest in strong_digests(stored.trace.statement))}
        while frontier := frontier - seen:
            seen |= frontier
            found = self._records.using(frontier, self._most)
            if level == depth:
                self.beyond |= {given.hash for stored in found for given in _inputs(stored)} & frontier
                break
            made += self._add(found)
            if not self.complete:
                break
            frontier = {digest for stored in found for digest in strong_digests(stored.trace.statement)}
            level += 1
        self.followed |= {stored.position for stored in made}
        return made

    def _add(self, found: Iterable[Stored]) -> list[Stored]:
        """Take what is new, as far as the limit allows; the answer is what was taken."""
        new = [stored for stored in found if stored.position not in self.creates]
        if len(self.creates) + len(new) > self._most:
            self.complete = False
            new = new[: self._most - len(self.creates)]
        self.creates.update((stored.position, stored) for stored in new)
        return new


class _Graph:
    """What was found, as products and edges."""

    def __init__(self, walk: _Walk, troubles: Mapping[int, Status]) -> None:
        self._walk, self._troubles = walk, troubles
        self._parent: dict[str, str] = {}
        for stored in walk.creates.values():
            first, *others = sorted(strong_digests(stored.trace.statement) or {stored.trace.statement.hash})
            for other in others:
                self._parent[self._root(other)] = self._root(first)
        self._beyond = {self._root(digest) for digest in walk.beyond}
        self._creates: dict[str, list[Stored]] = {}
        for stored in walk.creates.values():
            self._creates.setdefault(self._root(stored.trace.statement.hash), []).append(stored)

    def lineage(self, start: Collection[str], *, up: bool) -> Lineage:
        inputs: dict[str, tuple[str, ...]] = {}
        hints: dict[str, str] = {}
        for position in sorted(self._walk.followed):
            stored = self._walk.creates[position]
            own = self._root(stored.trace.statement.hash)
            for given in _inputs(stored):
                hints.setdefault(self._root(given.hash), given.name)
            made_from = (self._root(given.hash) for given in _inputs(stored))
            inputs[own] = tuple(dict.fromkeys((*inputs.get(own, ()), *made_from)))
        first = next((r for digest in sorted(start) if (r := self._root(digest)) in self._creates), None)
        begin = first or self._root(min(start))
        found = dict.fromkeys((begin, *self._creates, *(key for keys in inputs.values() for key in keys)))
        products = {root: self._product(root, hints.get(root, "")) for root in found}
        order = _in_order(products, inputs)
        because_of = _because_of(order, products, inputs)
        lineage = Lineage(begin, products, inputs, because_of, self._walk.complete)
        return _renamed(lineage if up else _below(lineage), {root: p.key for root, p in products.items()})

    def _root(self, digest: str) -> str:
        while (parent := self._parent.get(digest, digest)) != digest:
            digest = parent
        return digest

    def _product(self, root: str, hint: str) -> Product:
        creates = self._creates.get(root)
        if not creates:
            return Product(root, hint, None, known=False, trouble=None, beyond=root in self._beyond)
        s = max(creates, key=_speaks_first).trace.statement
        troubles = {self._troubles[c.position] for c in creates if c.position in self._troubles}
        return Product(
            key=s.hash,
            name=s.name,
            did=s.did,
            known=True,
            trouble=next((trouble for trouble in TROUBLES if trouble in troubles), None),
            beyond=root in self._beyond,
        )


def _speaks_first(stored: Stored) -> tuple[bool, str, int]:
    """Of several products with the same bytes one in Rucio gives the name, the newest."""
    s = stored.trace.statement
    return s.product is not None, s.generation or "", -stored.position


def _in_order(products: Mapping[str, Product], inputs: Mapping[str, tuple[str, ...]]) -> list[str]:
    """All products, each after what it was made from.

    Raises:
        Circular: there is no such order.
    """
    order: list[str] = []
    done: set[str] = set()
    for root in products:
        path: dict[str, None] = {}  # of products being looked at, in the order in which each uses the next
        todo = [(root, False)]
        while todo:
            key, finished = todo.pop()
            if finished:
                del path[key]
                done.add(key)
                order.append(key)
            elif key in path:
                circle = [*path, key]
                raise Circular([products[k].name for k in circle[circle.index(key) :]])
            elif key not in done:
                path[key] = None
                todo.append((key, True))
                todo += [(given, False) for given in reversed(inputs.get(key, ())) if given not in done]
    return order


def _because_of(
    order: Iterable[str], products: Mapping[str, Product], inputs: Mapping[str, tuple[str, ...]]
) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for key in order:
        above: dict[str, None] = {}
        for given in inputs.get(key, ()):
            if products[given].trouble is not None:
                above[given] = None
            above.update(dict.fromkeys(found[given]))
        found[key] = tuple(above)
    return found


def _below(lineage: Lineage) -> Lineage:
    """Only the products that were made from the first one; what they owe to others stays told."""
    outputs = lineage.outputs()
    reached: dict[str, None] = {}
    todo = [lineage.start]
    while todo:
        if (key := todo.pop()) not in reached:
            reached[key] = None
            todo += outputs[key]
    inputs = {k: tuple(i for i in given if i in reached) for k, given in lineage.inputs.items() if k in reached}
    blamed = {each for key in reached for each in lineage.because_of[key]}
    return Lineage(
        lineage.start,
        {k: p for k, p in lineage.products.items() if k in reached or k in blamed},
        inputs,
        {k: lineage.because_of[k] for k in reached},
        lineage.complete,
    )


def _renamed(lineage: Lineage, keys: Mapping[str, str]) -> Lineage:
    """The same by the digests that people know, instead of those that products were grouped by."""

    def lists(by_key: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        return {keys[k]: tuple(keys[each] for each in listed) for k, listed in by_key.items()}

    products = {keys[k]: product for k, product in lineage.products.items()}
    return Lineage(keys[lineage.start], products, lists(lineage.inputs), lists(lineage.because_of), lineage.complete)
