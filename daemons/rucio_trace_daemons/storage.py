"""Reading replicas where they lie: as Rucio's own daemons would, but as a stream.

`Storage.open` gives the bytes of a replica as a binary stream: directories and `root://` servers are read in
place, anything else is fetched by Rucio's own protocol into a bounded staging folder. Where a replica lies is asked
of Rucio's protocol code, once per RSE and minute. Every failure is one of the typed errors of `storage_errors`.

A `Storage` is safe to share between threads: it is what holds them together to an RSE's `trace_streams` and
`trace_bytes_per_second`.
"""

from __future__ import annotations

import contextlib
import stat
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rucio.common import exception as rucio_errors
from rucio.common.exception import RucioException
from rucio.rse import rsemanager
from sqlalchemy.exc import SQLAlchemyError

from rucio_trace.errors import TraceabilityError
from rucio_trace_daemons import xrootd
from rucio_trace_daemons.staging import fetched
from rucio_trace_daemons.storage_errors import NotFound, PrefixMissing, Refused, Unavailable, from_os_error
from rucio_trace_daemons.streams import Throttle, local_pieces, paced

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rucio.rse.protocols.protocol import RSEProtocol

    from rucio_trace_daemons.rses import Rse
    from rucio_trace_daemons.staging import Staging
    from rucio_trace_daemons.streams import Pieces

__all__ = ["Replica", "Storage"]

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
    """How one RSE is read; valid for `ACCESS_SECONDS`."""

    protocol: RSEProtocol
    since: float
    scheme: str
    prefix: str

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
        lane = self._lane(replica.rse)
        with _turn(lane, replica, watch), self._source(replica, watch) as source:
            yield paced(source, lane.throttle, self._pause, watch)

    def exists(self, replica: Replica) -> bool:
        """Whether storage has such a file, without reading it."""
        access = self._access(replica.rse)
        pfn = access.pfn(replica)
        try:
            if access.scheme == "file":
                return stat.S_ISREG(_local_path(pfn).stat().st_mode)
            if access.scheme in xrootd.SCHEMES:
                return xrootd.exists(str(replica), pfn)
            with _rucio_errors(str(replica)):
                return rsemanager.exists(replica.rse.info(), [_lfn(replica)]) is True  # type: ignore[list-item]
        except FileNotFoundError:
            return False
        except OSError as error:
            raise from_os_error(str(replica), error) from error

    def check_prefix(self, rse: Rse) -> bool:
        """Look into the folder all files of *rse* lie in; False where the protocol has no folder to look into.

        Raises:
            PrefixMissing: it is not there (an unmounted file system).
            Refused, Unavailable: it could not be looked into.
        """
        access = self._access(rse)
        try:
            if access.scheme == "file":
                next(Path(access.prefix).iterdir(), None)
            elif access.scheme in xrootd.SCHEMES:
                server = (
                    f"{access.scheme}://{access.protocol.attributes['hostname']}:{access.protocol.attributes['port']}"
                )
                xrootd.check_folder(rse.name, server, access.prefix)
            else:
                return False
        except (FileNotFoundError, NotADirectoryError, NotFound) as error:
            raise PrefixMissing(rse.name) from error
        except OSError as error:
            raise from_os_error(f"the folder of {rse.name}", error) from error
        return True

    def _lane(self, rse: Rse) -> _Lane:
        with self._lock:
            lane = self._lanes.get(rse.id)
            if lane is None or lane.limits != (rse.streams, rse.bytes_per_second):
                lane = self._lanes[rse.id] = _Lane(rse.streams, rse.bytes_per_second)
            return lane

    @contextlib.contextmanager
    def _source(self, replica: Replica, watch: Callable[[int], None]) -> Iterator[Pieces]:
        access = self._access(replica.rse)
        pfn = access.pfn(replica)
        if access.scheme == "file":
            with local_pieces(str(replica), _local_path(pfn)) as pieces:
                yield pieces
        elif access.scheme in xrootd.SCHEMES:
            with xrootd.xrootd_pieces(str(replica), pfn) as pieces:
                yield pieces
        else:
            with (
                self._staging.reserved(str(replica), replica.size or 0, self._pause) as path,
                _fetched_pieces(access, replica, pfn, path, watch) as pieces,
            ):
                yield pieces

    def _access(self, rse: Rse) -> Access:
        known: dict[str, Access] = self._accesses.__dict__.setdefault("by_rse", {})
        access = known.get(rse.id)
        if access is None or time.monotonic() - access.since > ACCESS_SECONDS:
            with _rucio_errors(rse.name):
                access = known[rse.id] = _connect(rse)
        return access


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
            raise Unavailable(str(replica), f"all {lane.limits[0]} streams of the RSE stayed busy (trace_streams)")
    try:
        yield
    finally:
        lane.turns.release()


@contextlib.contextmanager
def _fetched_pieces(
    access: Access, replica: Replica, pfn: str, path: Path, watch: Callable[[int], None]
) -> Iterator[Pieces]:
    """Fetch the file, which may take hours and cannot be interrupted, while `watch` goes on being called."""
    failures: list[BaseException] = []

    def fetch() -> None:
        try:
            with _rucio_errors(str(replica)):
                fetched(access.protocol, replica.rse, pfn, path)
        except BaseException as error:  # noqa: BLE001 - raised in the thread that waits for it
            failures.append(error)

    # A daemon: given up by a `watch` that raises, it must not keep the process from ending.
    thread = threading.Thread(target=fetch, name="fetch", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(timeout=1.0)
        watch(0)
    if failures:
        raise failures[0]
    with local_pieces(str(replica), path) as pieces:
        yield pieces


def _connect(rse: Rse) -> Access:
    """The protocol by which Rucio would read from *rse*: the best one for the wide area, else for the local one."""
    info = rse.info()
    protocol: Any = None
    for domain in ("wan", "lan"):
        try:
            protocol = rsemanager.create_protocol(info, "read", domain=domain)
            if protocol.attributes["scheme"] == "davs" and (token := rse.token()):  # as Rucio's reaper does
                protocol = rsemanager.create_protocol(info, "read", domain=domain, auth_token=token)
            break
        except rucio_errors.RSEProtocolNotSupported:
            continue
    if protocol is None:
        raise Unavailable(rse.name, "has no protocol that may read")
    attributes = protocol.attributes
    return Access(protocol, time.monotonic(), attributes["scheme"], attributes["prefix"])


def _lfn(replica: Replica) -> dict[str, str | None]:
    return {"scope": replica.scope, "name": replica.name, "path": replica.path}


def _local_path(pfn: str) -> Path:
    # Not urlsplit().path: a name may hold '?' and '#', and Rucio does not escape them.
    return Path("/" + pfn.partition("://")[2].partition("/")[2]) if "://" in pfn else Path(urlsplit(pfn).path)


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
        case _:
            return Unavailable(what, type(error).__name__)
