"""The verdict on a file: what the traces of it that we believe amount to.

`check_trace` decides which traces count, `history` what those of one product say together; here
a file in hand is matched to a product and judged. Traces that do not count are reported and never
turn a verdict: they only name the reason when nothing else is left (docs/format.md, section 7).
Pure: no file, no network, no clock. Safe to call concurrently.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from rucio_trace import faults
from rucio_trace.checking import CLOCK_SKEW, Accepted, Refused, check_trace
from rucio_trace.envelope import Trace
from rucio_trace.faults import Altered, Expired, Fault, Uncertain, Untrusted
from rucio_trace.identity import Trust
from rucio_trace.matching import COPERNICUS_ALGORITHMS, Candidate, Index, Verdict
from rucio_trace.statement import ALGORITHMS, ProductKey

__all__ = [
    "CLOCK_SKEW",
    "EXIT_CODES",
    "Accepted",
    "Candidate",
    "CheckedEvidence",
    "Evidence",
    "Fault",
    "Judgement",
    "Refused",
    "Verdict",
    "algorithms_for",
    "check_evidence",
    "check_trace",
    "judge",
    "worst",
]

EXIT_CODES: Mapping[Verdict, int] = {
    Verdict.GENUINE: 0,
    Verdict.TAMPERED: 1,
    Verdict.DISPUTED: 1,
    Verdict.REVOKED: 1,
    Verdict.UNTRUSTED: 1,
    Verdict.EXPIRED: 1,
    Verdict.UNKNOWN: 3,
    Verdict.UNDECIDED: 3,
    Verdict.OBSOLETE: 4,
}
_GRAVITY = (1, 3, 4, 0)  # which exit code speaks for several files


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict that speaks for all of *verdicts*; of none, UNKNOWN."""
    return min(verdicts, key=lambda v: _GRAVITY.index(EXIT_CODES[v]), default=Verdict.UNKNOWN)


@dataclass(frozen=True, slots=True)
class Evidence:
    """A trace as found. `registered_at` is set by the verifier's own store, and by nobody else."""

    trace: Trace
    registered_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict, and everything it rests on.

    `time` is the time of judgement of the trace that carried the verdict and `time_source` where
    it was taken from: "registered" in the own store, or "now". `subject` and `signer` are that
    trace's certificate and member. `member` is the file's path in the product's archive, if it is
    one. `missing` names digests without which the file could not be compared: compute and judge
    again.
    """

    verdict: Verdict
    product: ProductKey | None
    origin: Trace | None
    faults: tuple[Fault, ...]
    time: datetime
    time_source: str
    subject: str | None = None
    signer: str | None = None
    member: str | None = None
    missing: frozenset[str] = frozenset()

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.verdict]


def judge(
    candidate: Candidate,
    evidence: Sequence[Evidence],
    trust: Trust,
    now: datetime,
    *,
    allow_stale_crl: bool = False,
) -> Judgement:
    """Judge one file. For many files against the same evidence use `check_evidence` once."""
    return check_evidence(evidence, trust, now, allow_stale_crl=allow_stale_crl).judge(candidate)


def check_evidence(
    evidence: Iterable[Evidence], trust: Trust, now: datetime, *, allow_stale_crl: bool = False
) -> "CheckedEvidence":
    """Check every trace, once, at one moment; the result judges any number of files."""
    accepted: dict[_Word, Accepted] = {}
    refused: list[Refused] = []
    for item in evidence:
        word = _word(item.trace)
        try:
            found = check_trace(
                item.trace, trust, now, registered_at=item.registered_at, allow_stale_crl=allow_stale_crl
            )
        except Refused as error:
            refused.append(error)
        else:
            accepted[word] = min(found, accepted.get(word, found), key=_by_judgement)
    return CheckedEvidence(tuple(accepted.values()), tuple(refused), now)


_Word = tuple[str, bytes]


def _word(trace: Trace) -> _Word:
    """A text and who signed it: several members may have signed one text of the Traceability Service."""
    return trace.message, trace.certificate


def _by_judgement(accepted: Accepted) -> tuple[bool, datetime]:
    """Of one trace found twice, the earliest registered finding counts."""
    return not accepted.registered, accepted.judged_at


class CheckedEvidence:
    """Traces that count, traces that do not, and those of which it could not be found out."""

    def __init__(self, accepted: tuple[Accepted, ...], refused: tuple[Refused, ...], now: datetime) -> None:
        self.accepted, self.refused, self.now = accepted, refused, now
        self._uncertain = [r for r in refused if r.family is Uncertain and not _newer(r)]
        self._by_word = {_word(a.trace): a for a in accepted}
        self._speakers = {word: a.member for word, a in self._by_word.items()}
        self._speakers.update((_word(r.trace), r.member) for r in self._uncertain)
        traces = [a.trace for a in accepted]
        self._index = Index(traces, self._speaker)
        self._index_if = (
            Index([*traces, *(r.trace for r in self._uncertain)], self._speaker) if self._uncertain else None
        )

    def _speaker(self, trace: Trace) -> str:
        return self._speakers[_word(trace)]

    def judge(self, candidate: Candidate) -> Judgement:
        """The verdict on one file.

        A trace whose revocation list is out of date is neither believed nor dropped: if believing
        it would change the verdict, there is none.
        """
        answer = self._index.answer(candidate)
        verdict = answer.verdict
        if self._index_if is not None and self._index_if.answer(candidate).verdict is not verdict:
            verdict = Verdict.UNDECIDED
        elif answer.silent:
            verdict = self._nothing_left(candidate)
        decisive = self._by_word.get(_word(answer.decisive)) if answer.decisive else None
        return Judgement(
            verdict=verdict,
            product=answer.product,
            origin=answer.origin,
            faults=(*answer.faults, *(fault for r in self.refused for fault in r.faults)),
            time=decisive.judged_at if decisive else self.now,
            time_source="registered" if decisive and decisive.registered else "now",
            subject=decisive.subject if decisive else None,
            signer=decisive.member if decisive else None,
            member=answer.member,
            missing=answer.missing,
        )

    def _nothing_left(self, candidate: Candidate) -> Verdict:
        """Why no trace of the file counts; the first reason that any dropped trace gives."""
        families = {_family(r) for r in self.refused if _concerns(r.trace, candidate)}
        for family, verdict in _LEFT:
            if family in families:
                return verdict
        return Verdict.UNKNOWN


_LEFT: tuple[tuple[type[Fault], Verdict], ...] = (
    (Uncertain, Verdict.UNDECIDED),
    (Expired, Verdict.EXPIRED),
    (Untrusted, Verdict.UNTRUSTED),
    (Altered, Verdict.TAMPERED),
)


def _family(refused: Refused) -> type[Fault]:
    return refused.family


def _newer(refused: Refused) -> bool:
    """Made by a newer version: what it would say is unknown, so it cannot be weighed as if."""
    return any(isinstance(fault, faults.NewerSchema) for fault in refused.faults)


def _concerns(trace: Trace, candidate: Candidate) -> bool:
    """Whether a dropped trace claims to be about the file."""
    s = trace.statement
    if candidate.did is not None:
        return s.did == candidate.did
    return s.name == candidate.base_name or s.hash in candidate.hashes.values()


def algorithms_for(traces: Iterable[Trace]) -> tuple[str, ...]:
    """The digests to compute before judging a file by *traces*, in the usual order.

    Of a CDSE trace that is what its unsigned envelope claims, as a first guess: if it does not
    match, `Judgement.missing` names the others.
    """
    wanted: set[str] = set()
    for trace in traces:
        named = trace.statement.hash_algorithm or trace.claimed_hash_algorithm
        wanted.add(named if named in ALGORITHMS else COPERNICUS_ALGORITHMS[0])
    return tuple(a for a in ALGORITHMS if a in wanted)
