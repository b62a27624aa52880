"""Verdicts on what somebody says of a file that is elsewhere: its digest, its name, its DID, or several of them.

The rules are those for a file in hand (`matching`). Without a digest the answer is that to a file which is what its
name's only product was created as. Pure; safe to call concurrently.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rucio_trace import faults
from rucio_trace.envelope import Trace
from rucio_trace.history import agree
from rucio_trace.matching import COPERNICUS_ALGORITHMS, Answer, Candidate, Index, Product, Verdict, newest
from rucio_trace.statement import HEX_DIGITS, STRONG

__all__ = ["Question", "ask"]


@dataclass(frozen=True, slots=True)
class Question:
    """What is said of one file. A *digest* without its *algorithm* is held against all that it could be of.

    With *did* ("scope:name") the name is not asked.
    """

    digest: str | None = None
    algorithm: str | None = None
    name: str | None = None
    did: str | None = None

    def candidate(self, algorithms: Iterable[str] = ()) -> Candidate:
        """The file, as far as it is known, with its digest by these algorithms."""
        hashes = dict.fromkeys(algorithms, self.digest) if self.digest is not None else {}
        known = {algorithm: digest for algorithm, digest in hashes.items() if digest is not None}
        return Candidate(file="", base_name=self.name or "", size=None, hashes=known, did=self.did)

    @property
    def algorithms(self) -> tuple[str, ...]:
        """Those that the digest could be of."""
        if self.algorithm is not None:
            return (self.algorithm,)
        return tuple(a for a in STRONG if self.digest is not None and HEX_DIGITS[a] == len(self.digest))


def ask(index: Index, question: Question) -> Answer:
    """What the products of *index* say of the file."""
    if question.digest is None:
        return _of_name(index, question)
    claimed = _algorithms(question.digest, index.of_digest(question.digest))
    if question.algorithm is not None or not claimed:
        return index.answer(question.candidate(question.algorithms))
    # A digest is of one algorithm: where traces name several, at least one is wrong, and all must lead to one verdict.
    answers = [index.answer(question.candidate([algorithm])) for algorithm in claimed]
    if len({answer.verdict for answer in answers}) == 1:
        return answers[0]
    fault = faults.SeveralProducts("digest", "of one algorithm", ", ".join(claimed))
    return Answer(Verdict.UNDECIDED, faults=(fault,))


def _of_name(index: Index, question: Question) -> Answer:
    """The verdict on the one product that bears the name, or is of the DID."""
    products = newest(index.of_did(question.did) if question.did is not None else index.of_name(question.name or ""))
    claiming = [p for p in products if p.claims]
    told = claiming or [p for p in products if p.history.withdrawn_origins]
    if not told:
        silent = [faults.NobodyVouches("product", "a CREATE, COPY or VERIFY", p.label) for p in products]
        return Answer(Verdict.UNKNOWN, faults=tuple(silent), silent=not products)
    said = [trace for p in told for trace in _claims(p)]
    if len(told) > 1 and not all(agree(said[0].statement, trace.statement) for trace in said):
        several = [faults.AmbiguousName("product", "one of this name", p.label) for p in told]
        return Answer(Verdict.UNDECIDED, faults=tuple(several))
    s = said[0].statement
    hashes = s.digests or dict.fromkeys(_algorithms(s.hash, told) or COPERNICUS_ALGORITHMS, s.hash)
    candidate = Candidate(file="", base_name=told[0].name, size=s.size, hashes=hashes, did=question.did)
    return index.answer(candidate)


def _claims(product: Product) -> Sequence[Trace]:
    return product.claims or product.history.withdrawn_origins


def _algorithms(digest: str, products: Iterable[Product]) -> list[str]:
    """By which algorithms traces of *products* name *digest*, their own or a member's."""
    found: set[str] = set()
    for product in products:
        for trace in (*product.history.deciding, *product.history.withdrawn_origins):
            s = trace.statement
            found.update(algorithm for algorithm, known in s.digests.items() if known == digest)
            if s.hash_algorithm and any(content.hash == digest for content in s.contents or ()):
                found.add(s.hash_algorithm)
    return [algorithm for algorithm in STRONG if algorithm in found]
