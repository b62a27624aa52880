"""Reading replicas where they lie: as Rucio's own daemons would, but as a stream.

`Storage.open` gives the bytes of a replica as a binary stream: in place by one of the `readers`, or where there is
none, fetched by Rucio's own protocol into a bounded staging folder. Where a replica lies and with which credentials it
is read is asked of Rucio's code, once per RSE and minute, and again after a failure. Every failure is one of the typed
errors of `storage_errors`.

A `Storage` is safe to share between threads: it is what holds them together to an RSE's `trace_streams` and
`trace_bytes_per_second`.
"""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from rucio.common import exception as rucio_errors
from rucio.common.exception import RucioException
from rucio.rse import rsemanager
from sqlalchemy.exc import SQLAlchemyError

from rucio_trace.errors import StorageError, TraceabilityError
from rucio_trace_daemons import metrics
from rucio_trace_daemons.readers import reader_for
from rucio_trace_daemons.staging import fetched
from rucio_trace_daemons.storage_errors import Busy, LeaseLost, NotFound, PrefixMissing, Refused, Stopping, Unavailable
from rucio_trace_daemons.streams import Throttle, local_pieces, paced

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from rucio.rse.protocols.protocol import RSEProtocol

    from rucio_trace_daemons.readers import Reader, StorageDigest
    from rucio_trace_daemons.rses import Rse
    from rucio_trace_daemons.staging import Staging
    from rucio_trace_daemons.streams import Pieces

__all__ = ["Replica", "Storage"]

_T = TypeVar("_T")

# Long enough to cost nothing per file, short enough that a protocol changed in Rucio is followed soon.
ACCESS_SECONDS = 60.0
# How long a reader waits for its turn on an RSE whose `trace_streams` are all busy.
TURN_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Replica:
    """One file on one RSE, with what Rucio knows of it; `path` only where Rucio keeps one (non-deterministic RSEs)."""

    rse: Rse
    scope: str
    name: str
    size: int | None = None
    path: str | None = None

    def __str__(self) -> str:
        return f"{self.scope}:{self.name} on {self.rse.name}"


@dataclass(slots=True)
class Access:
    """How one RSE is read; valid for `ACCESS_SECONDS`. Without a reader its files are fetched whole."""

    protocol: RSEProtocol
    since: float
    folder: str
    reader: Reader | None

    def pfn(self, replica: Replica) -> str:
        """Where the replica lies, by Rucio's own code. Private: never logged, never signed."""
        lfn = {"scope": replica.scope, "name": replica.name, "path": replica.path}
        if replica.path is None:
            del lfn["path"]
        with _rucio_errors(str(replica)):
            pfns = self.protocol.lfns2pfns([lfn])  # type: ignore[list-item]
        try:
            return str(next(iter(pfns.values())))
        except StopIteration:  # what Rucio answers for a non-deterministic RSE without a path
            raise Unavailable(str(replica), "Rucio knows no path for it") from None


class _Lane:
    """What all readers of one RSE share."""

    def __init__(self, streams: int | None, bytes_per_second: int | None) -> None:
        self.limits = (streams, bytes_per_second)
        self.turns = threading.BoundedSemaphore(streams) if streams else None
        self.throttle = Throttle(bytes_per_second) if bytes_per_second else None


class Storage:
    """Reads replicas of any RSE. `pause` waits that many seconds and returns True when the process should stop."""

    def __init__(self, staging: Staging, pause: Callable[[float], bool]) -> None:
        self._staging, self._pause = staging, pause
        self._lock = threading.Lock()
        self._lanes: dict[str, _Lane] = {}
        self._accesses = threading.local()  # Rucio's protocol objects promise nothing about threads

    @contextlib.contextmanager
    def open(self, replica: Replica, watch: Callable[[int], None] = lambda _: None) -> Iterator[Pieces]:
        """The bytes of *replica*; `watch` is called with the size of each piece and may raise to give up.

        A stream that ends before the size its storage promised raises `ShortRead`, one that is written while it
        is read `Changed`: neither is evidence of anything.
        """

        def watch_and_count(count: int) -> None:
            metrics.bytes_read(replica.rse.label, count)
            watch(count)

        with (
            _counting_failures(replica, "read"),
            self.turn(replica, watch),
            self._source(replica, watch) as source,
        ):
            yield paced(source, self._lane(replica.rse).throttle, self._pause, watch_and_count)
        metrics.reading_ended(replica.rse.label, "read")

    def turn(self, replica: Replica, watch: Callable[[int], None]) -> contextlib.AbstractContextManager[None]:
        """One of the streams of the replica's RSE, once there is one; `watch` is called meanwhile and may raise."""
        return _turn(self._lane(replica.rse), replica, watch)

    def exists(self, replica: Replica) -> bool:
        """Whether storage has such a file, without reading it."""
        with self._asking(replica.rse) as access:
            if access.reader is not None:
                return access.reader.exists(str(replica), access.pfn(replica))
            with _rucio_errors(str(replica)):
                return rsemanager.exists(replica.rse.info(), [_lfn(replica)]) is True  # type: ignore[list-item]

    def check_prefix(self, rse: Rse) -> bool:
        """Look into the folder all files of *rse* lie in; False where the protocol has no folder to look into.

        Raises:
            PrefixMissing: it is not there (an unmounted file system).
            Refused, Unavailable: it could not be looked into.
        """
        with self._asking(rse) as access:
            if access.reader is None:
                return False
            try:
                return access.reader.check_folder(f"the folder of {rse.name}", access.folder)
            except NotFound as error:
                raise PrefixMissing(rse.name) from error

    def digest(
        self, replica: Replica, algorithms: Sequence[str], watch: Callable[[int], None] = lambda _: None
    ) -> StorageDigest | None:
        """What the storage itself says about *replica*: the first of *algorithms* that it knows, None if none.

        It may have to read the whole file for that; `watch` is called meanwhile and may raise to give up.
        """
        with _counting_failures(replica, "storage"), self.turn(replica, watch), self._asking(replica.rse) as access:
            if access.reader is None:
                return None
            answer = _watched(partial(access.reader.digest, str(replica), access.pfn(replica), algorithms), watch)
        if answer is not None:
            metrics.reading_ended(replica.rse.label, "storage")
        return answer

    def _lane(self, rse: Rse) -> _Lane:
        with self._lock:
            lane = self._lanes.get(rse.id)
            if lane is None or lane.limits != (rse.streams, rse.bytes_per_second):
                lane = self._lanes[rse.id] = _Lane(rse.streams, rse.bytes_per_second)
            return lane

    @contextlib.contextmanager
    def _source(self, replica: Replica, watch: Callable[[int], None]) -> Iterator[Pieces]:
        with self._asking(replica.rse) as access:
            pfn = access.pfn(replica)
            if access.reader is not None:
                with access.reader.pieces(str(replica), pfn, replica.size) as pieces:
                    yield pieces
                return
            with (
                self._staging.reserved(str(replica), replica.size or 0, self._pause) as path,
                _fetched_pieces(access, replica, pfn, path, watch) as pieces,
            ):
                yield pieces

    @contextlib.contextmanager
    def _asking(self, rse: Rse) -> Iterator[Access]:
        """The access to *rse*, made anew after it failed: its token may have ended, its server moved."""
        access = self._access(rse)
        try:
            yield access
        except NotFound:
            raise
        except StorageError as error:
            self._accesses.by_rse.pop(rse.id, None)
            if isinstance(error, Refused):
                self._accesses.refused.add(rse.id)
            raise

    def _access(self, rse: Rse) -> Access:
        known: dict[str, Access] = self._accesses.__dict__.setdefault("by_rse", {})
        refused: set[str] = self._accesses.__dict__.setdefault("refused", set())
        access = known.get(rse.id)
        if access is None or time.monotonic() - access.since > ACCESS_SECONDS:
            with _rucio_errors(rse.name):
                access = known[rse.id] = _connect(rse, renew=rse.id in refused)
        return access


@contextlib.contextmanager
def _counting_failures(replica: Replica, method: str) -> Iterator[None]:
    """Count by class what went wrong; that we gave it up ourselves did not."""
    try:
        yield
    except (LeaseLost, Stopping):
        raise
    except StorageError as error:
        metrics.reading_ended(replica.rse.label, method, type(error).__name__)
        raise


@contextlib.contextmanager
def _turn(lane: _Lane, replica: Replica, watch: Callable[[int], None]) -> Iterator[None]:
    """Wait for one of the lane's streams; `watch` is called meanwhile."""
    if lane.turns is None:
        yield
        return
    deadline = time.monotonic() + TURN_SECONDS
    while not lane.turns.acquire(timeout=1.0):
        watch(0)
        if time.monotonic() > deadline:
            raise Busy(str(replica), f"all {lane.limits[0]} streams of the RSE stayed busy (trace_streams)")
    try:
        yield
    finally:
        lane.turns.release()


@contextlib.contextmanager
def _fetched_pieces(
    access: Access, replica: Replica, pfn: str, path: Path, watch: Callable[[int], None]
) -> Iterator[Pieces]:
    """Fetch the file, which may take hours."""

    def fetch() -> None:
        with _rucio_errors(str(replica)):
            fetched(access.protocol, pfn, path)

    _watched(fetch, watch)
    with local_pieces(str(replica), path) as pieces:
        yield pieces


def _watched(work: Callable[[], _T], watch: Callable[[int], None]) -> _T:
    """Do *work*, which cannot be interrupted, while `watch` goes on being called."""
    results: list[_T] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - raised in the thread that waits for it
            failures.append(error)

    # A daemon: given up by a `watch` that raises, it must not keep the process from ending.
    thread = threading.Thread(target=run, name="storage", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(timeout=1.0)
        watch(0)
    if failures:
        raise failures[0]
    return results[0]


def _connect(rse: Rse, *, renew: bool) -> Access:
    """The protocol by which Rucio would read from *rse*: the best one for the wide area, else for the local one.

    With *renew* its token is no cached one: one like that was refused.
    """
    info = rse.info()
    protocol: Any = None
    for domain in ("wan", "lan"):
        try:
            protocol = rsemanager.create_protocol(info, "read", domain=domain)
            # As Rucio's reaper does.
            if protocol.attributes["scheme"] in ("davs", "https") and (token := rse.token(renew=renew)):
                protocol = rsemanager.create_protocol(info, "read", domain=domain, auth_token=token)
            break
        except rucio_errors.RSEProtocolNotSupported:
            continue
    if protocol is None:
        raise Unavailable(rse.name, "has no protocol that may read")
    attributes = protocol.attributes
    server = f"{attributes['scheme']}://{attributes['hostname']}:{attributes['port']}"
    folder = f"{server}/{str(attributes['prefix']).lstrip('/')}"
    reader = reader_for(protocol, rse)
    return Access(protocol, time.monotonic(), folder, _Contained(reader) if reader is not None else None)


class _Contained:
    """A reader whose every failure is one of ours: what one storage answers must not end the recorder of all others."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    @contextlib.contextmanager
    def pieces(self, what: str, url: str, size: int | None = None) -> Iterator[Pieces]:
        with contextlib.ExitStack() as stack:
            with _rucio_errors(what):
                pieces = stack.enter_context(self._reader.pieces(what, url, size))
            yield _contained(what, pieces)

    def exists(self, what: str, url: str) -> bool:
        with _rucio_errors(what):
            return self._reader.exists(what, url)

    def check_folder(self, what: str, url: str) -> bool:
        with _rucio_errors(what):
            return self._reader.check_folder(what, url)

    def digest(self, what: str, url: str, algorithms: Sequence[str]) -> StorageDigest | None:
        with _rucio_errors(what):
            return self._reader.digest(what, url, algorithms)


def _contained(what: str, pieces: Pieces) -> Pieces:
    iterator = iter(pieces)
    while True:
        with _rucio_errors(what):
            piece = next(iterator, None)
        if piece is None:
            return
        yield piece


def _lfn(replica: Replica) -> dict[str, str | None]:
    return {"scope": replica.scope, "name": replica.name, "path": replica.path}


@contextlib.contextmanager
def _rucio_errors(what: str) -> Iterator[None]:
    """Rucio's exceptions as ours; that its database is away is not an answer of the storage."""
    try:
        yield
    except rucio_errors.DatabaseException:
        raise
    except RucioException as error:
        raise _from_rucio(what, error) from error
    except (TraceabilityError, SQLAlchemyError):
        raise
    except Exception as error:
        # Protocols are plugins, and raise what their libraries do (gfal2 is not installed, a connection broke).
        # One RSE that cannot be read must not end the recorder of all others.
        raise Unavailable(what, f"its protocol failed: {type(error).__name__}") from error


def _from_rucio(what: str, error: RucioException) -> Exception:
    """Only what surely means "not there" or "not allowed" says so."""
    match error:
        case rucio_errors.SourceNotFound():
            return NotFound(what)
        case rucio_errors.RSEAccessDenied() | rucio_errors.SourceAccessDenied() | rucio_errors.CannotAuthenticate():
            return Refused(what)
        case rucio_errors.ErrorLoadingCredentials():
            return Refused(f"{what}, rse-accounts.cfg")
        case _:
            return Unavailable(what, type(error).__name__)
