"""What can go wrong between us and a storage: four answers that lead to four different deeds.

`NotFound` may in time become a LOST trace. `Refused`, `Unavailable` and what is derived from them never do: the
outbox row waits. Messages name the DID and the RSE, never a physical path: paths and presigned URLs stay private.
"""

from __future__ import annotations

import errno

from rucio_trace.errors import StorageError

__all__ = [
    "Busy",
    "Changed",
    "LeaseLost",
    "NotFound",
    "PrefixMissing",
    "Refused",
    "ShortRead",
    "StagingFull",
    "Stopping",
    "Unavailable",
    "from_os_error",
]


class NotFound(StorageError):
    """The storage works and says that there is no such file."""

    def __init__(self, what: str) -> None:
        self.what = what
        super().__init__(f"{what}: the storage says there is no such file")


class Refused(StorageError):
    """Our credentials are not accepted."""

    def __init__(self, what: str) -> None:
        self.what = what
        super().__init__(f"{what}: the storage refuses our credentials; the recorder reads as Rucio's daemons do")


class Unavailable(StorageError):
    """No answer, or none that says anything about the file."""

    def __init__(self, what: str, reason: str) -> None:
        self.what, self.reason = what, reason
        super().__init__(f"{what}: {reason}")


class Busy(Unavailable):
    """All streams that the RSE grants are taken, by our own threads: that says nothing about the storage."""


class PrefixMissing(Unavailable):
    """The folder that holds all files of the RSE is not there: probably nothing is mounted."""

    def __init__(self, rse: str) -> None:
        super().__init__(rse, "the folder of its files is not there; is it mounted?")


class ShortRead(Unavailable):
    """The stream ended before the size that the storage itself promised."""

    def __init__(self, what: str, expected: int, found: int) -> None:
        self.expected, self.found = expected, found
        super().__init__(what, f"the storage promised {expected} bytes and gave {found}")


class Changed(Unavailable):
    """Somebody wrote to the file while we read it."""

    def __init__(self, what: str) -> None:
        super().__init__(what, "the file was changed while it was read")


class StagingFull(Unavailable):
    """The file has to be fetched before it is read, and there is no room for it."""

    def __init__(self, what: str, needed: int, room: int, option: str) -> None:
        self.needed, self.room = needed, room
        super().__init__(what, f"must be staged and needs {needed} bytes, there is room for {room} ({option})")


class LeaseLost(StorageError):
    """Another worker holds the rows by now: whatever we found is theirs to find."""

    def __init__(self) -> None:
        super().__init__("the lease ran out while a replica was read", hint="raise recorder.lease_seconds")


class Stopping(StorageError):
    """The process was asked to stop; the file will be read again."""

    def __init__(self) -> None:
        super().__init__("the recorder is stopping")


def from_os_error(what: str, error: OSError) -> StorageError:
    """The operating system's word as one of ours."""
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return NotFound(what)
    if error.errno in (errno.EACCES, errno.EPERM):
        return Refused(what)
    return Unavailable(what, error.strerror or type(error).__name__)
