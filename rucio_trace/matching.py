"""Which product a file is: by digest first, then by base name, or by its DID alone.

`Index` holds the histories of all products that accepted traces speak of and answers for one file
at a time, in time that does not grow with the number of products. Pure; safe to call concurrently.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeVar

from rucio_trace import faults
from rucio_trace.envelope import Trace
from rucio_trace.faults import Fault
from rucio_trace.history import History, agree, history_of
from rucio_trace.joining import join
from rucio_trace.statement import ALGORITHMS, STRONG, ProductKey, Statement, base_name

__all__ = [
    "COPERNICUS_ALGORITHMS",
    "Answer",
    "Candidate",
    "Index",
    "Product",
    "Verdict",
    "compare",
    "newest",
    "speaking",
    "state_of",
    "with_faults",
]

# The digests a trace of the Traceability Service may hold, which does not sign which one it is.
COPERNICUS_ALGORITHMS = ("BLAKE3", "SHA256", "SHA3")


class Verdict(StrEnum):
    """What can be said of a file."""

    GENUINE = "GENUINE"
    OBSOLETE = "OBSOLETE"
    TAMPERED = "TAMPERED"
    DISPUTED = "DISPUTED"
    REVOKED = "REVOKED"
    UNTRUSTED = "UNTRUSTED"
    EXPIRED = "EXPIRED"
    UNKNOWN = "UNKNOWN"
    UNDECIDED = "UNDECIDED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A file or a folder in hand, measured by ourselves.

    `hashes` holds a file's digests by algorithm; `size` is None where it is not known. With `did`
    ("scope:name") the file is held against that product alone. `contents`, the digests of an
    archive's members by path in the algorithm `contents_algorithm`, serve to name what differs.
    `product_digest` is that of a folder, which has `contents` in BLAKE3 and no `hashes`, or of an
    archive's members. `base_name` is empty where the file's name is not known.
    """

    file: str
    base_name: str
    size: int | None
    hashes: Mapping[str, str]
    did: str | None = None
    contents: Mapping[str, str] | None = None
    contents_algorithm: str = "BLAKE3"
    product_digest: str | None = None

    @property
    def is_folder(self) -> bool:
        return self.product_digest is not None and not self.hashes


@dataclass(frozen=True, slots=True)
class Answer:
    """What the accepted traces say of one file. `decisive` is the trace that carried the verdict.

    `silent` tells that no accepted trace concerns the file; `missing` names the digests without
    which the file could not be compared.
    """

    verdict: Verdict
    product: ProductKey | None = None
    origin: Trace | None = None
    decisive: Trace | None = None
    faults: tuple[Fault, ...] = ()
    member: str | None = None
    missing: frozenset[str] = frozenset()
    silent: bool = False


def compare(candidate: Candidate, s: Statement) -> bool | None:
    """Whether the file has the digests of *s*; None when no common strong digest was computed."""
    if candidate.size not in (None, s.size):
        return False
    return _same(candidate.hashes, s)


def _same(hashes: Mapping[str, str], s: Statement) -> bool | None:
    if s.hash_algorithm is None:
        measured = {hashes[a] for a in COPERNICUS_ALGORITHMS if a in hashes}
        if s.hash in measured:
            return True
        return False if len(measured) == len(COPERNICUS_ALGORITHMS) else None
    common = {a: digest for a, digest in s.digests.items() if a in hashes}
    if any(hashes[a] != digest for a, digest in common.items()):
        return False
    return True if any(a in STRONG for a in common) else None


# A product in Rucio; a file outside it is what its name, size and digest say.
_Key = ProductKey | tuple[str, int, str]


def _key(s: Statement) -> _Key:
    return s.product or (s.name, s.size, s.hash)


@dataclass(frozen=True, slots=True)
class Product:
    """A product that accepted traces speak of, and its history."""

    key: _Key
    history: History

    @property
    def rucio(self) -> ProductKey | None:
        return self.key if isinstance(self.key, ProductKey) else None

    @property
    def name(self) -> str:
        return (self.history.traces or tuple(t for t, _ in self.history.withdrawn))[0].statement.name

    @property
    def claims(self) -> tuple[Trace, ...]:
        """The traces that say which bytes the product has: the origin, or all that dispute it."""
        return (self.history.origin,) if self.history.origin else self.history.rivals

    @property
    def label(self) -> str:
        if self.rucio is None:
            return f"{self.name} (in no Rucio)"
        return f"{self.rucio.did} of {self.rucio.rucio}, generation {self.rucio.generation}"


@dataclass(frozen=True, slots=True)
class _Members:
    """The members of a product that have one digest: a path by signed algorithm and base name, which may be empty."""

    product: Product
    paths: dict[tuple[str | None, str], str]

    def path(self, algorithm: str, name: str) -> str | None:
        of_copernicus = self.paths.get((None, name)) if algorithm in COPERNICUS_ALGORITHMS else None
        return self.paths.get((algorithm, name), of_copernicus)


_Index = TypeVar("_Index", str, int)


class Index:
    """All products that accepted traces speak of, ready to be asked about files."""

    def __init__(
        self,
        traces: Iterable[Trace],
        speaker: Callable[[Trace], str] = lambda _trace: "",
        may_join: Callable[[Trace, str], bool] = lambda _trace, _scope: True,
        only_joining: Iterable[Trace] = (),
    ) -> None:
        """*only_joining* count as traces of the products in Rucio that they join, and not by themselves.

        `joined` tells which trace joined a product of which scope.
        """
        by_key: dict[_Key, list[Trace]] = {}
        for trace in traces:
            by_key.setdefault(_key(trace.statement), []).append(trace)
        outside: dict[str, list[Trace]] = {}
        for trace in (*(t for key, of in by_key.items() if not isinstance(key, ProductKey) for t in of), *only_joining):
            outside.setdefault(trace.statement.name, []).append(trace)
        self.joined: list[tuple[Trace, str]] = []
        for key, group in by_key.items():
            if isinstance(key, ProductKey) and (strangers := outside.get(base_name(key.name))):
                joining = join(group, strangers, may_join)
                self.joined += [(trace, key.scope) for trace in joining]
                group.extend(joining)
        products = [Product(key, history_of(group, speaker)) for key, group in by_key.items()]
        products.sort(key=lambda p: (p.rucio is None, str(p.key)))
        self.products = tuple(products)
        self._by_digest: dict[str, dict[_Key, Product]] = {}
        self._by_name: dict[str, dict[_Key, Product]] = {}
        self._by_did: dict[str, dict[_Key, Product]] = {}
        self._by_size: dict[int, dict[_Key, Product]] = {}
        self._by_content: dict[str, list[tuple[Product, str | None, str]]] = {}
        self._members: dict[str, dict[_Key, _Members]] = {}
        self._algorithms: dict[str, tuple[str, ...]] = {}
        for product in products:
            self._enter(product)

    def _enter(self, product: Product) -> None:
        def enter(index: dict[_Index, dict[_Key, Product]], key: _Index) -> None:
            index.setdefault(key, {})[product.key] = product

        for trace in (*product.history.deciding, *product.history.withdrawn_origins):
            for digest in (trace.statement.hash, *trace.statement.digests.values()):
                enter(self._by_digest, digest)
            for algorithm, digest in trace.statement.digests.items():
                self._call(digest, algorithm)
            enter(self._by_size, trace.statement.size)
        for trace in product.claims:
            named = trace.statement.hash_algorithm
            for content in trace.statement.contents or ():
                self._by_content.setdefault(content.hash, []).append((product, named, content.path))
                if named is not None:
                    self._call(content.hash, named)
        enter(self._by_name, product.name)
        if product.rucio is not None:
            enter(self._by_did, product.rucio.did)

    def _call(self, digest: str, algorithm: str) -> None:
        known = self._algorithms.get(digest, ())
        if algorithm not in known:
            self._algorithms[digest] = (*known, algorithm)

    def algorithms_of(self, digest: str) -> list[str]:
        """The strong algorithms by which the traces of products name it, a file's or a member's."""
        return [algorithm for algorithm in STRONG if algorithm in self._algorithms.get(digest, ())]

    def of_name(self, name: str) -> list[Product]:
        return list(self._by_name.get(name, {}).values())

    def of_did(self, did: str) -> list[Product]:
        return list(self._by_did.get(did, {}).values())

    def answer(self, candidate: Candidate) -> Answer:
        """What the products known here say of the file."""
        if candidate.did is not None:
            return self._held_against(candidate, candidate.did)
        if matched := newest(self._matched(candidate)):
            return self._of_digest(candidate, matched)
        if members := self._as_member(candidate):
            return members
        answer = _of_name(candidate, self._named(candidate))
        if not answer.silent:
            return answer
        return _incomparable(candidate, self._of_size(candidate.size)) or answer

    def _of_size(self, size: int | None) -> Iterable[Product]:
        return () if size is None else self._by_size.get(size, {}).values()

    def _matched(self, candidate: Candidate) -> list[Product]:
        found: dict[_Key, Product] = {}
        for digest in candidate.hashes.values():
            found.update(self._by_digest.get(digest, {}))
        return [product for product in found.values() if verdict_on(candidate, product.history)]

    def _named(self, candidate: Candidate) -> list[Product]:
        return newest(self._by_name.get(candidate.base_name, {}).values())

    def _held_against(self, candidate: Candidate, did: str) -> Answer:
        """By its DID alone: the newest generation there is, whatever else the bytes may be."""
        products = newest(self._by_did.get(did, {}).values())
        if matched := [p for p in products if verdict_on(candidate, p.history)]:
            return self._agreed(candidate, matched)
        answer = _of_name(candidate, products)
        strangers = [p for p in self._matched(candidate) if p not in products]
        if answer.verdict is Verdict.TAMPERED and strangers:
            return with_faults(answer, faults.ContentUnderOtherName("content", f"of {did}", f"of {strangers[0].label}"))
        return answer

    def _of_digest(self, candidate: Candidate, matched: list[Product]) -> Answer:
        """The bytes are a product's. Prefer the one of the file's name, and one in Rucio."""
        named = [p for p in matched if p.name == candidate.base_name]
        if not named:
            others = [p for p in self._named(candidate) if p.claims]
            if unsure := _incomparable(candidate, others):
                return unsure
            if others:
                fault = faults.ContentUnderOtherName("content", f"of {others[0].label}", f"of {matched[0].label}")
                answer = speaking(candidate, matched[0], Verdict.TAMPERED)
                return with_faults(answer, fault)
        pool = named or matched
        in_rucio = [p for p in pool if p.rucio is not None]
        answer = self._agreed(candidate, in_rucio or pool)
        outside = [p for p in pool if in_rucio and p.rucio is None]
        return with_faults(answer, *(remark for p in outside for remark in _obsolete(p)))

    def _as_member(self, candidate: Candidate) -> Answer | None:
        """The file as a member of an archive, under its own name there."""
        found: dict[_Key, tuple[Product, str]] = {}
        for algorithm, digest in candidate.hashes.items():
            for key, members in self._members_with(digest).items():
                if path := members.path(algorithm, candidate.base_name):
                    found.setdefault(key, (members.product, path))
        if not found:
            return None
        paths = {product.key: path for product, path in found.values()}
        products = newest(product for product, _ in found.values())
        answer = self._agreed(candidate, products, member=True)
        return replace(answer, member=paths[products[0].key])

    def _members_with(self, digest: str) -> dict[_Key, _Members]:
        """By product; made when first asked for, since hardly any member is."""
        found = self._members.get(digest)
        if found is None:
            found = {}
            for product, named, path in self._by_content.get(digest, ()):
                members = found.setdefault(product.key, _Members(product, {}))
                for name in ("", base_name(path)):
                    members.paths.setdefault((named, name), path)
            if found:
                self._members[digest] = found
        return found

    def _agreed(self, candidate: Candidate, pool: Sequence[Product], *, member: bool = False) -> Answer:
        """The one verdict of several products with these bytes; none, if they differ."""
        verdicts = {p.key: state_of(p.history) if member else verdict_on(candidate, p.history) for p in pool}
        if len(set(verdicts.values())) > 1:
            told = [faults.SeveralProducts("product", "one verdict", f"{p.label}: {verdicts[p.key]}") for p in pool]
            return Answer(Verdict.UNDECIDED, faults=tuple(told))
        first = pool[0]
        answer = speaking(candidate, first, verdicts[first.key] or Verdict.UNKNOWN)
        return with_faults(answer, *self._newer(first))

    def _newer(self, product: Product) -> list[Fault]:
        if product.rucio is None:
            return []
        generations = newest(self._by_did[product.rucio.did].values())
        return [
            faults.NewerGeneration("generation", p.rucio.generation, product.rucio.generation)
            for p in generations
            if p.rucio and (p.rucio.rucio, p.rucio.vo) == (product.rucio.rucio, product.rucio.vo) and p != product
        ]


def newest(products: Iterable[Product]) -> list[Product]:
    """Of each DID the newest generation; files outside Rucio all."""
    found: dict[object, Product] = {}
    for product in products:
        r = product.rucio
        name = product.key if r is None else (r.rucio, r.vo, r.scope, r.name)
        known = found.get(name)
        if known is None or (r and known.rucio and known.rucio.generation < r.generation):
            found[name] = product
    return list(found.values())


# ------------------------------------------------------------------------- one file, one product


def state_of(history: History) -> Verdict | None:
    """What the product is, for a file that is what its claims say."""
    if history.rivals:
        return Verdict.DISPUTED
    if history.origin is None:
        return None
    return Verdict.OBSOLETE if history.obsolete else Verdict.GENUINE


def verdict_on(candidate: Candidate, history: History) -> Verdict | None:
    """The verdict on the file as this product; None when its digest is none of the product's."""
    compared = [compare(candidate, trace.statement) for trace in history.deciding]
    if any(compared) and (history.rivals or False in compared):
        # they may agree wherever they can be compared, and the file shows where they do not
        return Verdict.DISPUTED
    if compared and compared[0]:  # the origin's own digest: what agrees with it may be of lower rank
        return state_of(history)
    if any(compare(candidate, trace.statement) for trace in history.withdrawn_origins):
        return Verdict.REVOKED
    return None


def speaking(candidate: Candidate, product: Product, verdict: Verdict) -> Answer:
    """An answer that rests on *product*, with everything worth telling about it."""
    history = product.history
    told: list[Fault] = []
    if verdict is Verdict.DISPUTED:
        for trace in history.rivals or history.deciding:
            claim = f"{trace.statement.hash_algorithm or 'digest'} {trace.statement.hash}"
            told.append(faults.DisputedOrigin("origin", "one set of digests", claim, trace.id))
    if verdict is Verdict.REVOKED:
        told += [
            faults.WithdrawnOrigin("origin", "a CREATE that stands", "a withdrawn one", trace.id)
            for trace in history.withdrawn_origins
            if compare(candidate, trace.statement)
        ]
    if verdict is Verdict.OBSOLETE:
        told += _obsolete(product)
    decisive = history.origin or next(iter(history.rivals or history.withdrawn_origins), None)
    return Answer(verdict, product.rucio, history.origin, decisive, (*told, *_remarks(history)))


def _obsolete(product: Product) -> list[Fault]:
    return [
        faults.MarkedObsolete("product", "in use", t.statement.obsolescence or "obsolete", t.id)
        for t in product.history.obsolete
    ]


def _remarks(history: History) -> list[Fault]:
    withdrawn: list[Fault] = [
        faults.Withdrawn(trace.statement.event, "standing", f"withdrawn by {revoke.id}", trace.id)
        for trace, revoke in history.withdrawn
    ]
    expected = history.origin.statement.hash if history.origin else ""
    return withdrawn + [
        faults.Contradiction("digest of the origin", expected, t.statement.hash, t.id) for t in history.contradicting
    ]


def with_faults(answer: Answer, *more: Fault) -> Answer:
    return replace(answer, faults=(*answer.faults, *more)) if more else answer


# ------------------------------------------------------------------------------ no digest matches


def _of_name(candidate: Candidate, products: Sequence[Product]) -> Answer:
    """The bytes are nobody's; *products* bear the file's name, or are its DID."""
    claiming = [p for p in products if p.claims]
    if not claiming:
        silent: list[Fault] = [faults.NobodyVouches("product", "a CREATE, COPY or VERIFY", p.label) for p in products]
        return Answer(Verdict.UNKNOWN, faults=tuple(silent), silent=not products)
    if unsure := _incomparable(candidate, claiming):
        return unsure
    first = claiming[0]
    everything = [trace.statement for p in claiming for trace in p.claims]
    one_product = len(claiming) == 1 or all(agree(everything[0], s) for s in everything)
    if not one_product:
        told = [faults.AmbiguousName("product", "one of this name", p.label) for p in claiming]
        return Answer(Verdict.UNDECIDED, faults=tuple(told))
    answer = speaking(candidate, first, Verdict.TAMPERED)
    return replace(answer, faults=(*(f for t in first.claims for f in _differences(candidate, t)), *answer.faults))


def _incomparable(candidate: Candidate, products: Iterable[Product]) -> Answer | None:
    """Undecided, if some product could be the file for want of a digest."""
    missing: set[str] = set()
    for product in products:
        for trace in product.claims:
            if compare(candidate, trace.statement) is None:
                s = trace.statement
                missing.update([s.hash_algorithm] if s.hash_algorithm else COPERNICUS_ALGORITHMS)
    missing -= candidate.hashes.keys()
    if not missing:
        return None
    needed = ", ".join(sorted(missing, key=ALGORITHMS.index))
    fault = faults.MissingDigest("digest", needed, ", ".join(candidate.hashes) or "none")
    return Answer(Verdict.UNDECIDED, faults=(fault,), missing=frozenset(missing))


def _differences(candidate: Candidate, trace: Trace) -> list[Fault]:
    s = trace.statement
    found: list[Fault] = []
    if candidate.size not in (None, s.size):
        found.append(faults.DifferentSize("size", str(s.size), str(candidate.size), trace.id))
    expected = s.digests or dict.fromkeys(COPERNICUS_ALGORITHMS, s.hash)
    for algorithm, digest in expected.items():
        measured = candidate.hashes.get(algorithm, digest)
        if measured != digest:
            found.append(faults.DifferentDigest(algorithm, digest, measured, trace.id))
    return found + _different_contents(candidate, trace)


def _different_contents(candidate: Candidate, trace: Trace) -> list[Fault]:
    """Which members of the archive differ, when both sides know them in one algorithm."""
    s = trace.statement
    if candidate.contents is None or s.contents is None:
        return []
    if (s.hash_algorithm or trace.claimed_hash_algorithm) != candidate.contents_algorithm:
        return []
    signed = {content.path: content.hash for content in s.contents}
    return [
        faults.DifferentContent(
            path, signed.get(path, "no such member"), candidate.contents.get(path, "none"), trace.id
        )
        for path in sorted(signed.keys() | candidate.contents.keys())
        if signed.get(path) != candidate.contents.get(path)
    ]
