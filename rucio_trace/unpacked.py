"""Which product a folder is, or an archive that somebody packed anew: by its content (docs/format.md, section 10).

A folder has no bytes of its own. It is the content of a signed archive if its product digest is that of
the `contents` that the archive's traces sign. Pure; safe to call concurrently.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property

from rucio_trace import faults
from rucio_trace.asking import Question, ask
from rucio_trace.envelope import Trace
from rucio_trace.faults import Fault
from rucio_trace.history import History
from rucio_trace.matching import Answer, Candidate, Index, Product, Verdict, newest, speaking, state_of, with_faults
from rucio_trace.product_digest import digest_of_contents, relative, stem

__all__ = ["ContentIndex"]


class ContentIndex:
    """Answers for files and folders: for files as *index* does, and where that knows nothing, by their content."""

    def __init__(self, index: Index) -> None:
        self._index = index

    def ask(self, question: Question) -> Answer:
        """What they say of a file that is elsewhere."""
        return ask(self._index, question)

    def answer(self, candidate: Candidate) -> Answer:
        """What the products known here say of the file or folder."""
        if candidate.product_digest is None:
            return self._index.answer(candidate)
        if candidate.is_folder:
            return self._of_folder(candidate, candidate.product_digest)
        answer = self._index.answer(candidate)
        if answer.silent and candidate.did is None:
            return self._of_content(candidate, candidate.product_digest) or answer
        if answer.verdict is Verdict.TAMPERED:
            same = [p for p in self._by_digest.get(candidate.product_digest, ()) if p.history.origin is answer.origin]
            return with_faults(answer, *(_repacked(p) for p in same))
        return answer

    @cached_property
    def _by_digest(self) -> Mapping[str, Sequence[Product]]:
        """Products by each product digest that their CREATEs, standing or withdrawn, sign."""
        found: dict[str, list[Product]] = {}
        for product in self._index.products:
            speaking_of = (*product.history.deciding, *product.history.withdrawn_origins)
            for digest in {digest_of_contents(trace.statement) for trace in speaking_of} - {None}:
                found.setdefault(str(digest), []).append(product)
        return found

    @cached_property
    def _by_stem(self) -> Mapping[str, Sequence[Product]]:
        found: dict[str, list[Product]] = {}
        for product in self._index.products:
            found.setdefault(stem(product.name), []).append(product)
        return found

    def _of_folder(self, candidate: Candidate, digest: str) -> Answer:
        if candidate.did is None:
            if answer := self._of_content(candidate, digest):
                return answer
            return _unlike(candidate, newest(self._by_stem.get(stem(candidate.base_name), ())))
        products = newest(p for p in self._index.products if p.rucio and p.rucio.did == candidate.did)
        matched = [p for p in products if _verdict(p.history, digest)]
        if matched:
            return _agreed(matched, digest)
        answer = _unlike(candidate, products)
        strangers = newest(self._by_digest.get(digest, ()))
        if answer.verdict is Verdict.TAMPERED and strangers:
            fault = faults.ContentUnderOtherName("content", f"of {candidate.did}", f"of {strangers[0].label}")
            return with_faults(answer, fault)
        return answer

    def _of_content(self, candidate: Candidate, digest: str) -> Answer | None:
        """The content is a product's. Prefer the one of its name, and one in Rucio."""
        matched = newest(p for p in self._by_digest.get(digest, ()) if _verdict(p.history, digest))
        if not matched:
            return None
        name = stem(candidate.base_name)
        named = [p for p in matched if stem(p.name) == name]
        others = [p for p in newest(self._by_stem.get(name, ())) if p.claims]
        if not named and others:
            fault = faults.ContentUnderOtherName("content", f"of {others[0].label}", f"of {matched[0].label}")
            return with_faults(speaking(candidate, matched[0], Verdict.TAMPERED), fault)
        pool = named or matched
        return _agreed([p for p in pool if p.rucio is not None] or pool, digest)


def _verdict(history: History, digest: str) -> Verdict | None:
    """The verdict on this content as the product; None when none of its CREATEs signs this content."""
    said = {digest_of_contents(trace.statement) for trace in history.deciding} - {None}
    if digest in said:
        return Verdict.DISPUTED if history.rivals or len(said) > 1 else state_of(history)
    if digest in {digest_of_contents(trace.statement) for trace in history.withdrawn_origins}:
        return Verdict.REVOKED
    return None


def _agreed(pool: Sequence[Product], digest: str) -> Answer:
    """The one verdict of several products with this content; none, if they differ."""
    verdicts = {p.key: _verdict(p.history, digest) for p in pool}
    if len(set(verdicts.values())) > 1:
        told = [faults.SeveralProducts("product", "one verdict", f"{p.label}: {verdicts[p.key]}") for p in pool]
        return Answer(Verdict.UNDECIDED, faults=tuple(told))
    first = pool[0]
    verdict = verdicts[first.key] or Verdict.UNKNOWN
    answer = speaking(_NOBODY, first, verdict)
    if verdict is Verdict.REVOKED:
        gone = first.history.withdrawn_origins
        words = ("origin", "a CREATE that stands", "a withdrawn one")
        answer = with_faults(answer, *(faults.WithdrawnOrigin(*words, trace.id) for trace in gone))
    return with_faults(answer, faults.ContentOf("content", "the archive itself", first.label))


_NOBODY = Candidate(file="", base_name="", size=-1, hashes={})


def _repacked(product: Product) -> Fault:
    return faults.ContentOf("content", "the archive itself", f"{product.label}, packed otherwise")


def _unlike(candidate: Candidate, products: Sequence[Product]) -> Answer:
    """The content is nobody's; *products* bear the folder's name, or are its DID."""
    claiming = [p for p in products if p.claims]
    if not claiming:
        silent: list[Fault] = [faults.NobodyVouches("product", "a CREATE, COPY or VERIFY", p.label) for p in products]
        return Answer(Verdict.UNKNOWN, faults=tuple(silent), silent=not products)
    measured = relative((candidate.contents or {}).items())
    signed: dict[str, tuple[Product, Trace]] = {}
    for product in claiming:
        comparable = [t for t in product.history.deciding if _is_comparable(t, measured)]
        if not comparable:
            fault = faults.NoContents("content", "members' digests in BLAKE3", product.label)
            return Answer(Verdict.UNDECIDED, faults=(fault,))
        for trace in comparable:
            signed.setdefault(str(digest_of_contents(trace.statement)), (product, trace))
    if len(signed) > 1:
        told = [faults.AmbiguousName("product", "one of this name", p.label) for p, _ in signed.values()]
        return Answer(Verdict.UNDECIDED, faults=tuple(told))
    ((product, trace),) = signed.values()
    answer = speaking(candidate, product, Verdict.TAMPERED)
    return replace(answer, faults=(*_differences(trace, measured), *answer.faults))


def _is_comparable(trace: Trace, measured: Mapping[str, str]) -> bool:
    """Whether the signed members are in BLAKE3, so that a difference is one of content.

    A text of the Traceability Service does not say: one member that is the same proves it.
    """
    s = trace.statement
    if digest_of_contents(s) is None:
        return False
    found = set(measured.values())
    return s.hash_algorithm is not None or any(c.hash in found for c in s.contents or ())


def _differences(trace: Trace, measured: Mapping[str, str]) -> list[Fault]:
    signed = relative((content.path, content.hash) for content in trace.statement.contents or ())
    return [
        faults.DifferentContent(path, signed.get(path, "no such member"), measured.get(path, "none"), trace.id)
        for path in sorted(signed.keys() | measured.keys())
        if signed.get(path) != measured.get(path)
    ]
