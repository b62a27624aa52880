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
from rucio_trace.statement import ALGORITHMS, HEX_DIGITS, STRONG

__all__ = ["Question", "ask"]


@dataclass(frozen=True, slots=True)
class Question:
    """What is said of one file. A *digest* without its *algorithm* is one of those that it could be of.

    Which one is what the traces say that name it. If none does, a file is not condemned for what may be its right
    digest by another algorithm than the one that was signed: the answer is UNDECIDED, and says what is missing.

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
    if len(question.algorithms) < 2:  # which is named, or told by the digest's length
        return index.answer(question.candidate(question.algorithms))
    # A digest is of one algorithm: of several that it could be, all must lead to one verdict.
    algorithms = index.algorithms_of(question.digest) or question.algorithms
    answers = [index.answer(question.candidate([algorithm])) for algorithm in algorithms]
    missing = frozenset[str]().union(*(answer.missing for answer in answers))
    if len({answer.verdict for answer in answers}) == 1 and (len(answers) == 1 or not missing):
        return answers[0]
    found = ", ".join(algorithms)
    fault: faults.Fault = faults.SeveralProducts("digest", "of one algorithm", found)
    if missing:
        needed = ", ".join(sorted(missing, key=ALGORITHMS.index))
        fault = faults.MissingDigest("digest", needed, f"one of {found}")
    return Answer(Verdict.UNDECIDED, faults=(fault,), missing=missing)


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
    hashes = s.digests or dict.fromkeys(index.algorithms_of(s.hash) or COPERNICUS_ALGORITHMS, s.hash)
    candidate = Candidate(file="", base_name=told[0].name, size=s.size, hashes=hashes, did=question.did)
    return index.answer(candidate)


def _claims(product: Product) -> Sequence[Trace]:
    return product.claims or product.history.withdrawn_origins
