"""The verdict on a file: what the traces of it that we believe amount to.

`check_trace` decides which traces count, `history` what those of one product say together; here
a file in hand is matched to a product and judged. Traces that do not count are reported and never
turn a verdict: they only name the reason when nothing else is left (docs/format.md, section 7).
Pure: no file, no network, no clock. Safe to call concurrently.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from rucio_trace import faults
from rucio_trace.asking import Question
from rucio_trace.checking import CLOCK_SKEW, Accepted, Refused, check_trace
from rucio_trace.envelope import Trace
from rucio_trace.faults import Altered, Expired, Fault, Uncertain, Untrusted
from rucio_trace.identity import Trust
from rucio_trace.matching import COPERNICUS_ALGORITHMS, Answer, Candidate, Index, Verdict
from rucio_trace.product_digest import same_stem
from rucio_trace.statement import ALGORITHMS, ProductKey
from rucio_trace.unpacked import ContentIndex

__all__ = [
    "CLOCK_SKEW",
    "EXIT_CODES",
    "Accepted",
    "Candidate",
    "CheckedEvidence",
    "Evidence",
    "Fault",
    "Judgement",
    "Question",
    "Refused",
    "Verdict",
    "algorithms_for",
    "check_evidence",
    "check_trace",
    "judge",
    "verdict_on_refusal",
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
    evidence: Iterable[Evidence],
    trust: Trust,
    now: datetime,
    *,
    allow_stale_crl: bool = False,
    scope: str | None = None,
) -> "CheckedEvidence":
    """Check every trace, once, at one moment; the result judges any number of files.

    *scope* is that of the product in Rucio which the file is known to be, as in `check_trace`.
    """
    accepted: dict[_Word, Accepted] = {}
    refused: list[Refused] = []
    scoped = _Scoped(trust, now, allow_stale_crl)
    for item in evidence:
        word = _word(item.trace)
        try:
            found = check_trace(
                item.trace,
                trust,
                now,
                registered_at=item.registered_at,
                allow_stale_crl=allow_stale_crl,
                scope=scope,
            )
        except Refused as error:
            refused.append(error)
            scoped.consider(item, error)
        else:
            accepted[word] = min(found, accepted.get(word, found), key=_by_judgement)
    return CheckedEvidence(tuple(accepted.values()), tuple(refused), now, scoped)


_Word = tuple[str, bytes]


def _word(trace: Trace) -> _Word:
    """A text and who signed it: several members may have signed one text of the Traceability Service."""
    return trace.message, trace.certificate


def _by_judgement(accepted: Accepted) -> tuple[bool, datetime]:
    """Of one trace found twice, the earliest registered finding counts."""
    return not accepted.registered, accepted.judged_at


class _Scoped:
    """Traces of files in no Rucio whose signers may not speak outside Rucio: they may where they join a product."""

    def __init__(self, trust: Trust, now: datetime, allow_stale_crl: bool) -> None:
        self._trust, self._now, self._allow_stale_crl = trust, now, allow_stale_crl
        self._items: dict[_Word, Evidence] = {}
        self._answers: dict[tuple[_Word, str], Accepted | Refused] = {}
        self.members: dict[_Word, str] = {}
        self.uncertain = False  # whether of any it could not be found out

    @property
    def traces(self) -> list[Trace]:
        return [item.trace for item in self._items.values()]

    def consider(self, item: Evidence, error: Refused) -> None:
        """Take *item* in, if it was refused for want of a right alone."""
        lacks = any(isinstance(fault, faults.OutsideRights) for fault in error.faults)
        if item.trace.statement.outside and lacks:
            word = _word(item.trace)
            if word not in self._items or item.registered_at is not None:
                self._items[word] = item
            self.members[word] = error.member
            self.uncertain |= any(isinstance(fault, Uncertain) for fault in error.faults)

    def answer(self, trace: Trace, scope: str) -> Accepted | Refused | None:
        """What it is in a product of *scope*; None for a trace that was not considered."""
        word = _word(trace)
        if word not in self._items:
            return None
        if (word, scope) not in self._answers:
            item = self._items[word]
            try:
                self._answers[word, scope] = check_trace(
                    item.trace,
                    self._trust,
                    self._now,
                    registered_at=item.registered_at,
                    allow_stale_crl=self._allow_stale_crl,
                    scope=scope,
                )
            except Refused as error:
                self._answers[word, scope] = error
        return self._answers[word, scope]

    def accepts(self, trace: Trace, scope: str) -> bool:
        return not isinstance(self.answer(trace, scope), Refused)

    def might_accept(self, trace: Trace, scope: str) -> bool:
        answer = self.answer(trace, scope)
        return not isinstance(answer, Refused) or _undecided(answer)


class CheckedEvidence:
    """Traces that count, traces that do not, and those of which it could not be found out.

    A trace of a dataset speaks of a list: it may count, and no file or folder in hand is judged by it.
    """

    def __init__(
        self, accepted: tuple[Accepted, ...], refused: tuple[Refused, ...], now: datetime, scoped: _Scoped
    ) -> None:
        self.now = now
        uncertain = [r for r in refused if _undecided(r) and _of_files(r.trace)]
        self._by_word = {_word(a.trace): a for a in accepted}
        self._speakers = scoped.members | {word: a.member for word, a in self._by_word.items()}
        self._speakers.update((_word(r.trace), r.member) for r in uncertain)
        traces = [a.trace for a in accepted if _of_files(a.trace)]
        index = Index(traces, self._speaker, scoped.accepts, scoped.traces)
        self._index = ContentIndex(index)
        answers = {_word(trace): scoped.answer(trace, scope) for trace, scope in index.joined}
        joined = {word: answer for word, answer in answers.items() if isinstance(answer, Accepted)}
        self._by_word |= joined
        self.accepted = tuple(self._by_word.values())
        self.refused = tuple(r for r in refused if _word(r.trace) not in joined)
        self._index_if = None
        if uncertain or scoped.uncertain:
            believed = [*traces, *(r.trace for r in uncertain)]
            self._index_if = ContentIndex(Index(believed, self._speaker, scoped.might_accept, scoped.traces))

    def _speaker(self, trace: Trace) -> str:
        return self._speakers[_word(trace)]

    def judge(self, candidate: Candidate) -> Judgement:
        """The verdict on one file.

        A trace whose revocation list is out of date is neither believed nor dropped: if believing
        it would change the verdict, there is none.
        """
        return self._judge(candidate, lambda index: index.answer(candidate), self.refused)

    def ask(self, question: Question) -> Judgement:
        """The verdict on one file that is elsewhere, one of many: of the faults only those of traces that name it."""
        candidate = question.candidate(question.algorithms)
        return self._judge(candidate, lambda index: index.ask(question), self._concerning(candidate))

    def _judge(
        self, candidate: Candidate, answer_of: Callable[[ContentIndex], Answer], refused: Iterable[Refused]
    ) -> Judgement:
        answer = answer_of(self._index)
        verdict = answer.verdict
        if self._index_if is not None and answer_of(self._index_if).verdict is not verdict:
            verdict = Verdict.UNDECIDED
        elif answer.silent:
            verdict = self._nothing_left(candidate)
        decisive = self._by_word.get(_word(answer.decisive)) if answer.decisive else None
        return Judgement(
            verdict=verdict,
            product=answer.product,
            origin=answer.origin,
            faults=(*answer.faults, *(fault for r in refused if _of_files(r.trace) for fault in r.faults)),
            time=decisive.judged_at if decisive else self.now,
            time_source="registered" if decisive and decisive.registered else "now",
            subject=decisive.subject if decisive else None,
            signer=decisive.member if decisive else None,
            member=answer.member,
            missing=answer.missing,
        )

    def _nothing_left(self, candidate: Candidate) -> Verdict:
        """Why no trace of the file counts; the first reason that any dropped trace gives."""
        families = {_family(r) for r in self._concerning(candidate)}
        for family, verdict in _LEFT:
            if family in families:
                return verdict
        return Verdict.UNKNOWN

    def _concerning(self, candidate: Candidate) -> list[Refused]:
        """The dropped traces that claim to be about the file; found without a look at all others, but for a folder."""
        pool: Iterable[Refused] = self.refused
        if not candidate.is_folder:
            keys = [candidate.base_name, *candidate.hashes.values()] if candidate.did is None else [candidate.did]
            pool = {id(r): r for key in keys for r in self._refused_by.get(key, ())}.values()
        return [r for r in pool if _concerns(r.trace, candidate)]

    @cached_property
    def _refused_by(self) -> Mapping[str, Sequence[Refused]]:
        """Dropped traces by the names, digests and DIDs that they claim."""
        found: dict[str, list[Refused]] = {}
        for refused in self.refused:
            s = refused.trace.statement
            for key in {s.name, s.hash, s.did or s.name}:
                found.setdefault(key, []).append(refused)
        return found


_LEFT: tuple[tuple[type[Fault], Verdict], ...] = (
    (Uncertain, Verdict.UNDECIDED),
    (Expired, Verdict.EXPIRED),
    (Untrusted, Verdict.UNTRUSTED),
    (Altered, Verdict.TAMPERED),
)


def verdict_on_refusal(refused: Refused) -> Verdict:
    """What a single trace that does not count makes of all that rests on it alone."""
    return dict(_LEFT)[refused.family]


def _family(refused: Refused) -> type[Fault]:
    return refused.family


def _undecided(refused: Refused) -> bool:
    return refused.family is Uncertain and not _newer(refused)


def _newer(refused: Refused) -> bool:
    """Made by a newer version: what it would say is unknown, so it cannot be weighed as if."""
    return any(isinstance(fault, faults.NewerSchema) for fault in refused.faults)


def _of_files(trace: Trace) -> bool:
    return trace.statement.members is None


def _concerns(trace: Trace, candidate: Candidate) -> bool:
    """Whether a dropped trace claims to be about the file."""
    s = trace.statement
    if not _of_files(trace):
        return False
    if candidate.did is not None:
        return s.did == candidate.did
    if candidate.is_folder:
        return same_stem(s.name, candidate.base_name)
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
