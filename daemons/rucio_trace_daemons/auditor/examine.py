"""One replica held against its product's origin, as the method of its RSE allows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rucio_trace_daemons.methods import Method
from rucio_trace_daemons.storage_errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from rucio_trace.trace import Statement
    from rucio_trace_daemons.recorder.prove import Prover
    from rucio_trace_daemons.storage import Replica

__all__ = ["Bad", "Good", "examine"]


@dataclass(frozen=True, slots=True)
class Good:
    """It holds the origin's bytes: `method` is how that is known, `digest` is `ALGORITHM:hex`."""

    method: str
    digest: str
    observed: datetime


@dataclass(frozen=True, slots=True)
class Bad:
    """It holds other bytes, or is not there."""

    reason: str


def examine(prover: Prover, replica: Replica, origin: Statement, watch: Callable[[int], None]) -> Good | Bad:
    """What *replica* holds. A storage is asked where it may answer for itself; what that does not prove is read.

    Raises:
        StorageError: nothing can be said: no answer, credentials refused, other bytes at each reading, or a file
            that is missing like the folder it should lie in.
    """
    if replica.rse.method is Method.STORAGE and (answer := prover.ask(replica, origin, watch)) is not None:
        return Good("storage", f"{answer.algorithm}:{answer.value}", prover.clock())
    try:
        reading, good = prover.prove_again(replica, origin, watch)
    except NotFound:
        prover.storage.check_prefix(replica.rse)
        return Bad("the storage says there is no such file")
    if not good:
        return Bad(f"holds {reading.size} bytes, {_digest(reading.hashes, origin)}")
    return Good("read", _digest(reading.hashes, origin), reading.observed)


def _digest(hashes: Mapping[str, str], origin: Statement) -> str:
    assert origin.hash_algorithm is not None
    return f"{origin.hash_algorithm}:{hashes[origin.hash_algorithm]}"
