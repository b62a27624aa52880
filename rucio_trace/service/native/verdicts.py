"""`POST /verdicts`: what is to be thought of many files, by digest, name or DID (docs/format.md, section 7).

What 2,000 items on 2,000 products cost on one core (cProfile, SQLite): 1 s where nothing was seen before, half of it
for ECDSA and the parsing of messages; 0.4 s once signatures and rows are remembered: a quarter each for reading rows,
for validity, rights and revocation, for histories, and for answers. Time grows with traces and with items, not with
their product.
"""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field, model_validator
from starlette.responses import Response

from rucio_trace.errors import StorageError
from rucio_trace.identity import Trust
from rucio_trace.service.access import Reads
from rucio_trace.service.intake import trusted
from rucio_trace.service.native.examples import TRACE
from rucio_trace.service.native.models import Fault, RucioProduct, Text
from rucio_trace.service.native.models import Question as Body
from rucio_trace.service.native.packed import ASKED, Packed, json_response
from rucio_trace.service.native.records import product
from rucio_trace.service.problems import described
from rucio_trace.statement import HEX_DIGITS, base_name, format_time
from rucio_trace.store import Store, TooMuchEvidence, evidence
from rucio_trace.verify import EXIT_CODES, Evidence, Judgement, Question, Verdict, check_evidence

__all__ = ["MAX_ITEMS", "judge_many", "router"]

MAX_ITEMS = 10_000
_TOLD_FAULTS = 100  # a name may have thousands of traces that do not count
_LOOKS = 100  # in vain that cost as much as reading all: to find that there are too many takes a hundredth of that

router = APIRouter(prefix="/api/v2", tags=["verdicts"], route_class=Packed)


class Item(Body):
    """What is known of one file: at least one of these. With `did` the name is not asked."""

    digest: Annotated[
        str | None,
        Field(
            description="A strong digest, as `hex` or as `ALGORITHM:hex`. Without its algorithm it condemns no file "
            "unless traces name it: it may be right, by another algorithm than was signed.",
            pattern=r"^((BLAKE3|SHA256|SHA3):)?[0-9a-fA-F]{64}$|^(SHA512:)?[0-9a-fA-F]{128}$",
        ),
    ] = None
    name: Annotated[Text | None, Field(description="The file's name; folders before it are not asked.")] = None
    did: Annotated[Text | None, Field(pattern="^[^:]+:.+$")] = None

    @model_validator(mode="after")
    def _something(self) -> "Item":
        if self.digest is None and not self.name and self.did is None:
            raise ValueError("one of digest, name, did is needed")
        return self

    @property
    def question(self) -> Question:
        algorithm, _, digest = (self.digest or "").rpartition(":")
        name = base_name(self.name) if self.name else None
        return Question(digest=digest.lower() or None, algorithm=algorithm or None, name=name, did=self.did)


class Items(Body):
    items: Annotated[
        list[Item],
        Field(
            max_length=MAX_ITEMS,
            examples=[[{"digest": TRACE["product"]["hash"], "name": TRACE["product"]["name"]}]],
        ),
    ]


class Told(BaseModel):
    """A verdict, and what it rests on; `exit_code` is that of `rucio-trace verify`."""

    verdict: Verdict
    exit_code: int
    product: RucioProduct | None
    trace: Annotated[str | None, Field(description="The trace that says what the bytes are.")]
    time: Annotated[str, Field(description="Of judgement.")]
    time_source: str
    subject: str | None
    signer: str | None
    member: Annotated[str | None, Field(description="The file's path, if it is a member of an archive.")]
    missing: Annotated[list[str], Field(description="Digests without which it could not be compared.")]
    faults: Annotated[list[Fault], Field(description=f"At most {_TOLD_FAULTS}.")]


class Verdicts(BaseModel):
    verdicts: list[Told]


@router.post("/verdicts", response_model=Verdicts, responses=described(*ASKED))
def verdicts(asked: Items, request: Request, store: Reads) -> Response:
    """One verdict for each item, in their order, by whom this service trusts.

    With a digest the file is judged as if it were in hand, but for its size. Without, the answer is for a file that is
    what the only product of that name was created as: none is UNKNOWN, several are UNDECIDED.
    """
    service = request.app.state.service
    questions = [item.question for item in asked.items]
    told = judge_many(store, trusted(service), questions, datetime.now(UTC), service.allow_stale_crl)
    return json_response({"verdicts": told})


def judge_many(
    store: Store, trust: Trust, questions: Sequence[Question], now: datetime, allow_stale_crl: bool
) -> list[dict[str, Any]]:
    """The answers to *questions*, from one look at the store; in halves where there is too much to look at.

    Of all looks together no more traces are read than of one: what then is not answered is UNDECIDED.
    """
    answers: dict[Question, dict[str, Any]] = {}
    waiting = [list(dict.fromkeys(questions))]
    left = evidence.MAX_TRACES
    while waiting:
        part = waiting.pop()
        try:
            found = _look(store, part, left)
        except TooMuchEvidence as error:
            left -= max(error.read, evidence.MAX_TRACES // _LOOKS)
            if len(part) == 1 or left <= 0:
                answers |= dict.fromkeys(part, _undecided(error, now))
            else:
                half = len(part) // 2
                waiting += [part[half:], part[:half]]
        else:
            left -= len(found)
            checked = check_evidence(found, trust, now, allow_stale_crl=allow_stale_crl)
            answers |= {question: _told(checked.ask(question)) for question in part}
    return [answers[question] for question in questions]


def _look(store: Store, questions: Collection[Question], most: int) -> list[Evidence]:
    if most <= 0:
        raise TooMuchEvidence(evidence.MAX_TRACES)
    return store.candidates_of_many(
        {q.digest for q in questions if q.digest is not None},
        {q.name for q in questions if q.name is not None and q.did is None},
        {q.did for q in questions if q.did is not None},
        most,
    )


def _told(judgement: Judgement) -> dict[str, Any]:
    return {
        "verdict": judgement.verdict,
        "exit_code": judgement.exit_code,
        "product": product(judgement.product) if judgement.product else None,
        "trace": judgement.origin.id if judgement.origin else None,
        "time": format_time(judgement.time),
        "time_source": judgement.time_source,
        "subject": judgement.subject,
        "signer": judgement.signer,
        "member": judgement.member,
        "missing": sorted(judgement.missing, key=list(HEX_DIGITS).index),
        "faults": [fault.as_dict() for fault in judgement.faults[:_TOLD_FAULTS]],
    }


def _undecided(error: StorageError, now: datetime) -> dict[str, Any]:
    fault = {"kind": type(error).__name__, "what": error.subject, "expected": error.expected, "found": error.found}
    nothing = dict.fromkeys(("product", "trace", "subject", "signer", "member"))
    told = {"verdict": Verdict.UNDECIDED, "exit_code": EXIT_CODES[Verdict.UNDECIDED], "missing": []}
    told |= {"time": format_time(now), "time_source": "now", "faults": [fault | {"trace": None}]}
    return nothing | told
