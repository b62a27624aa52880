"""What `/api/v2` is asked and answers, for the OpenAPI document; `records` writes the answers."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from rucio_trace.statement import ProductKey
from rucio_trace.status import Status

__all__ = ["Fault", "Histories", "History", "Known", "Line", "Question", "Record", "Records", "RucioProduct"]


def _encodable(value: Any) -> Any:
    """A file's name that is no UTF-8 is known by lone surrogates: no trace has it, and no harm is in asking."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


Text = Annotated[str, BeforeValidator(_encodable), Field(max_length=4096)]
"""Rucio's names have 500 characters at most, and nobody's file has more than this."""


class Question(BaseModel):
    """A body; a key that it does not know is a mistake."""

    model_config = ConfigDict(extra="forbid")


class Fault(BaseModel):
    """One thing that is not as it should be; `kind` is stable, the rest is for people."""

    kind: str
    what: str
    expected: str
    found: str
    trace: str | None


class Record(BaseModel):
    """A trace as the service knows it. Only what is signed within `trace` is anybody's word."""

    id: str
    position: int
    registered_at: str
    trace: dict[str, Any]


class Records(BaseModel):
    traces: list[Record]


class RucioProduct(Question):
    """A product in Rucio: one generation of one DID of one instance."""

    rucio: Text
    vo: Text = "def"
    did: Annotated[str, Field(max_length=4096, pattern="^[^:]+:[^\0]+$")]
    generation: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$")]

    @property
    def key(self) -> ProductKey:
        scope, _, name = self.did.partition(":")
        return ProductKey(self.rucio, self.vo, scope, name, self.generation)


class ListLine(BaseModel):
    """One replica, as it was signed."""

    did: str
    generation: str
    digest: str
    time: str


class Line(BaseModel):
    """A line of a batch's list, the `index`-th from 0; `position` is of the last trace to say if it `stands`."""

    batch: Record
    line: ListLine
    index: int
    position: int
    stands: bool


class Known(BaseModel):
    """A product's own traces, in the order of positions, and the lines of batches on its replicas."""

    product: RucioProduct
    traces: list[Record]
    lines: list[Line]


class History(Known):
    """The same, with the traces of files in no Rucio that joined it; `replicas` are "proven/all"."""

    status: Status
    replicas: str


class Histories(BaseModel):
    products: list[History]
