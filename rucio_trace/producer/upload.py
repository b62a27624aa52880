"""Uploads as `rucio upload` makes them, each with its producer's word.

Rucio's own client does the work: it registers the replica, moves the bytes, and makes the replica available. Here the
digests it wants come from the one reading that a trace is signed from, and that trace becomes the DID's `trace_origin`
between registration and bytes: before any recorder can look at the replica.

Whatever step an upload dies at, repeating it continues: a DID that is registered is used, an origin that says the same
is kept, bytes that arrived whole are not sent again, a rule or a dataset that the file lacks is given to it.

The methods with an underscore are those of Rucio's client; the distribution is held to the versions that have them.
"""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rucio.client.uploadclient import UploadClient
from rucio.common.exception import (
    DuplicateContent,
    FileAlreadyExists,
    NoFilesUploaded,
    NotAllFilesUploaded,
    RSEChecksumUnavailable,
)

from rucio_trace.digest import FileChanged
from rucio_trace.errors import Refuted, Undecided
from rucio_trace.producer.origins import Origins

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from rucio.client import Client

    from rucio_trace.producer.ahead import Declarations
    from rucio_trace.producer.declare import Declared

__all__ = ["NameTwice", "NotRegistered", "TracingUploadClient", "UploadIncomplete"]


class NameTwice(Refuted):
    """Two of the files would have one name in Rucio; nothing was sent."""

    def __init__(self, did: str, first: str, second: str) -> None:
        super().__init__(did, expected="one file of that name", found=f"{first} and {second}, which differ")


class NotRegistered(Refuted):
    """Rucio registers no file there, so that there is nothing a trace could belong to; nothing was sent."""

    def __init__(self, did: str, rse: str) -> None:
        super().__init__(
            f"{did}: --pfn",
            expected="an RSE that is not deterministic",
            found=rse,
            hint="it chooses its places itself: leave --pfn away",
        )


class UploadIncomplete(Undecided):
    """Some files, or all, did not arrive."""

    def __init__(self, missing: Iterable[str]) -> None:
        self.missing = tuple(missing)
        super().__init__(
            f"{len(self.missing)} not uploaded: {', '.join(self.missing)}",
            hint="the reason stands above; repeat the command to continue",
        )


class TracingUploadClient(UploadClient):  # type: ignore[misc]
    """Rucio's client for uploads by a producer who signs.

    `sending` is called with each file before its bytes leave, and gives a context manager around that.
    """

    def __init__(
        self,
        client: Client,
        declarations: Declarations,
        *,
        logger: logging.Logger,
        sending: Callable[[Path], Any],
    ) -> None:
        super().__init__(client, logger=logger)
        self._declarations, self._sending = declarations, sending
        self._origins = Origins(client)
        self._files: list[dict[str, Any]] = []
        self._by_path: dict[Path, Declared] = {}
        self._by_did: dict[str, tuple[Path, Declared]] = {}
        self._settled: set[str] = set()  # DIDs whose origin is known to be there

    def upload_traced(self, items: Iterable[Mapping[str, Any]], summary: Path | None = None) -> int:
        """Upload *items* as `UploadClient.upload` takes them; returns how many files are there afterwards.

        Raises:
            Unsupported: nothing was registered, nor sent.
            OriginRefused, OriginDiffers, NotRegistered: nothing of that file and those after it was sent.
            UploadIncomplete: other files are there.
            TraceabilityError, OSError: a file could not be read; nothing was sent at all.
            RucioException: whatever Rucio refuses.
        """
        items = [dict(item) for item in items]
        self._origins.check_support(self.default_file_scope)
        reports: list[Any] = []
        self._files.clear()
        try:
            self.upload(items, summary_file_path=summary, traces_copy_out=reports)
        except (NoFilesUploaded, NotAllFilesUploaded):
            pass  # told below, with names
        else:
            return len(self._files)
        missing = [
            _did(file)
            for file, report in zip(self._files, reports, strict=True)
            if report.get("clientState") == "FAILED" or not self._completed(file)
        ]
        if missing:
            raise UploadIncomplete(missing)
        return len(self._files)

    def _collect_file_info(self, filepath: Any, item: Any) -> Any:
        """What Rucio's client wants to know of a file, from one reading."""
        path = Path(filepath)
        file = copy.deepcopy(dict(item))
        file |= {"path": str(path), "dirname": str(path.parent), "basename": path.name, "state": "C"}
        file["did_scope"] = file.get("did_scope") or self.default_file_scope
        file["did_name"] = file.get("did_name") or path.name
        declared = self._by_path[path] = self._declarations.take(path, file["did_name"])
        first, known = self._by_did.setdefault(_did(file), (path, declared))
        if known.trace.statement.hash != declared.trace.statement.hash:
            raise NameTwice(_did(file), str(first), str(path))
        file |= {"bytes": declared.trace.statement.size, **declared.checksums}
        file["meta"] = {"guid": self._get_file_guid(file)}
        self._files.append(file)
        return file

    def _register_file(self, file: Any, *args: Any, **options: Any) -> None:
        """Register as Rucio does, then set the origin; only then may the replica become available."""
        known = self._has_origin(file)
        super()._register_file({**file, "state": "C"}, *args, **options)
        if not file.get("dataset_did_str"):
            self._ensure_rule(file, **options)
        if not known:
            self._set_origin(file)
        self._settled.add(_did(file))
        if file["state"] == "A":  # registered after its upload
            self.client.update_replicas_states(file["rse"], files=[self._convert_file_for_api(file)])

    def _upload_item(self, *args: Any, **options: Any) -> Any:
        """Send the bytes, if they still are those that the trace speaks of."""
        lfn, settings = options["lfn"], options["rse_settings"]
        file = {"did_scope": lfn["scope"], "did_name": lfn["name"]}
        if options.get("force_pfn") and settings.get("deterministic", True):
            raise NotRegistered(_did(file), settings["rse"])
        path = Path(options["source_dir"]) / lfn["filename"]
        declared = self._by_path[path]
        if _did(file) not in self._settled:  # it is registered afterwards
            self._has_origin(file)
        _check_unchanged(path, declared)
        with self._sending(path):
            pfn = super()._upload_item(*args, **options)
        _check_unchanged(path, declared)
        return pfn

    def _has_origin(self, file: Mapping[str, Any]) -> bool:
        """Whether the DID has an origin already, which then speaks of these bytes."""
        _, declared = self._by_did[_did(file)]
        known = self._origins.known(file["did_scope"], file["did_name"], declared.trace)
        if known is not None:
            self.logger(logging.INFO, f"{_did(file)} keeps its origin, trace {known.id} by {known.statement.site}")
        return known is not None

    def _set_origin(self, file: Mapping[str, Any]) -> None:
        _, declared = self._by_did[_did(file)]
        self._origins.set(file["did_scope"], file["did_name"], declared.trace)

    def _ensure_rule(self, file: Mapping[str, Any], **options: Any) -> None:
        """An upload that died between registration and rule left a file that nothing keeps: give it its rule."""
        if any(self.client.list_did_rules(file["did_scope"], file["did_name"])) or self._state(file) == "AVAILABLE":
            return
        self.client.add_replication_rule(
            [{"scope": file["did_scope"], "name": file["did_name"]}],
            copies=1,
            rse_expression=file["rse"],
            lifetime=file.get("lifetime"),
            **options,
        )

    def _state(self, file: Mapping[str, Any]) -> str | None:
        """What Rucio says of the replica; None if there is none."""
        did = {"scope": file["did_scope"], "name": file["did_name"]}
        states = (replica.get("states", {}) for replica in self.client.list_replicas([did], all_states=True))
        return next((str(of_rses[file["rse"]]) for of_rses in states if file["rse"] in of_rses), None)

    def _completed(self, file: dict[str, Any]) -> bool:
        """Whether the file is there with all that belongs to it; what an upload that died left undone is done now."""
        if self._state(file) is None:
            return False
        if file.get("register_after_upload"):  # then Rucio's client passes over what is registered
            self._register_file(file, set())
        state = self._state(file)
        if state == "COPYING" and self._is_whole(file):
            self.client.update_replicas_states(file["rse"], files=[self._convert_file_for_api(file | {"state": "A"})])
            state = "AVAILABLE"
        if state != "AVAILABLE":
            return False
        if dataset := file.get("dataset_name"):
            try:
                did = {"scope": file["did_scope"], "name": file["did_name"]}
                self.client.attach_dids(file["dataset_scope"], dataset, [did])
            except (DuplicateContent, FileAlreadyExists):
                pass  # it was attached before
        return True

    def _is_whole(self, file: Mapping[str, Any]) -> bool:
        """Whether storage has the file in its full size, and by its checksum where it tells one."""
        settings = self.rses[file["rse"]]
        protocol = self._create_protocol(
            settings, "write", impl=file.get("impl"), force_scheme=file.get("force_scheme")
        )
        did = {"scope": file["did_scope"], "name": file["did_name"]}
        try:
            found = protocol.stat(file.get("pfn") or next(iter(protocol.lfns2pfns([did]).values())))
            whole = int(found["filesize"]) == file["bytes"]
        except RSEChecksumUnavailable:
            found, whole = {}, bool(protocol.renaming)  # it has its name only since all of it was there
        finally:
            protocol.close()
        if whole and str(found.get("adler32", file["adler32"])).zfill(8) == file["adler32"]:
            return True
        self.logger(logging.ERROR, f"{_did(file)}: storage has other bytes under this name; remove them first")
        return False


def _did(file: Mapping[str, Any]) -> str:
    return f"{file['did_scope']}:{file['did_name']}"


def _check_unchanged(path: Path, declared: Declared) -> None:
    if not declared.fits(path):
        raise FileChanged(path, declared.state[0], path.stat().st_size)
