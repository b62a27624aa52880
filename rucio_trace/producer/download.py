"""Downloads as `rucio download` makes them, each file handed over as soon as it is there.

Rucio's own client finds the replicas, moves the bytes and checks its own checksum. Files come into a folder aside, so
that nobody takes one for what it has not been found to be; who is told of each arrival judges it and moves it. What was
moved stays, whatever becomes of the files after it, and need not come again when the command is repeated.

The methods with an underscore are those of Rucio's client; the distribution is held to the versions that have them.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rucio.client.downloadclient import DownloadClient, FileDownloadState

from rucio_trace.errors import Refuted

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Mapping, Sequence

    from rucio.client import Client

__all__ = ["ArrivingDownloadClient", "LeadsOut"]

_THERE = (FileDownloadState.DONE, FileDownloadState.ALREADY_DONE)


class LeadsOut(Refuted):
    """The server gave a name that leads out of the folder for downloads; nothing was fetched."""

    def __init__(self, did: str, place: str) -> None:
        super().__init__(did, expected="a place inside the folder", found=place)


class ArrivingDownloadClient(DownloadClient):  # type: ignore[misc]
    """Rucio's client for downloads into the folder *aside*, of files whose place is below *target*.

    `arrived` is called with the DID of each file and, for each of its places, where it lies now, under a name that
    nobody else writes to (nowhere: it did not come); one at a time, from the thread that fetched it. What `arrived`
    raises ends the download.
    """

    def __init__(
        self,
        client: Client,
        aside: Path,
        target: Path,
        arrived: Callable[[str, Mapping[Path, Path]], object],
        *,
        logger: logging.Logger,
        allow_tape: bool = False,
    ) -> None:
        super().__init__(client, logger=logger, check_admin=allow_tape)
        self._aside, self._target, self._arrived = aside.absolute(), target.absolute(), arrived
        # Rucio writes to NAME.part, which another file may be called, and two files may want one place.
        self._own = Path(tempfile.mkdtemp(dir=self._aside))
        self._names = (str(self._own / str(number)) for number in itertools.count())
        self._one_at_a_time = threading.Lock()
        self._waiting: set[str] = set()
        self._errors: list[BaseException] = []

    def fetch(self, items: Sequence[Mapping[str, Any]], threads: int, sort: str | None = None) -> None:
        """Download *items*, as `download_dids` takes them; every file they stand for is told of, once.

        Raises:
            LeadsOut: nothing was fetched.
            RucioException: Rucio does not know what is meant.
        """
        common = {"base_dir": str(self._aside), "no_resolve_archives": True}  # what is signed is the archive
        wanted = [{**item, **common} for item in items]

        def work() -> None:
            try:
                self.download_dids(wanted, threads, deactivate_file_download_exceptions=True, sort=sort)
            except BaseException as error:  # noqa: BLE001 - raised below, in the thread that waits
                self._errors.append(error)

        # Rucio's own handling of Ctrl-C lets its threads go on. As children of a daemon they are daemons, and end
        # with the process; the one who is interrupted is this thread, which has nothing to do but wait.
        worker = threading.Thread(target=work, name="download", daemon=True)
        worker.start()
        try:
            worker.join()
        except KeyboardInterrupt as error:
            self._errors.append(error)
            raise
        if self._errors:
            raise self._errors[0]
        for did in sorted(self._waiting):
            self._arrived(did, {})

    def _download_multithreaded(self, input_items: Any, *args: Any, **options: Any) -> Any:
        for item in input_items:
            self._check_inside(item)
            self._waiting.add(_did(item))
        return super()._download_multithreaded(input_items, *args, **options)

    def _download_item(self, item: Any, *args: Any, **options: Any) -> Any:
        if self._errors:
            return item
        self._offer(Path(item["dest_file_paths"][0]))
        item["temp_file_path"] = next(self._names)
        result = super()._download_item(item, *args, **options)
        there = result["clientState"] in _THERE
        with self._one_at_a_time:
            if self._errors:
                return result
            try:
                came = {self._place(path): self._taken(Path(path)) for path in item["dest_file_paths"] if there}
                self._arrived(_did(item), came)
                self._waiting.discard(_did(item))
            except BaseException as error:
                self._errors.append(error)
                raise
        return result

    def _check_inside(self, item: Mapping[str, Any]) -> None:
        for path in item["dest_file_paths"]:
            if not Path(os.path.normpath(path)).is_relative_to(self._aside):
                raise LeadsOut(_did(item), path)

    def _place(self, path: str) -> Path:
        return self._target / Path(path).relative_to(self._aside)

    def _offer(self, path: Path) -> None:
        """Let Rucio's client find the file that is at its first place already: it takes it if the checksum is right.

        Only at the first: to the others Rucio copies, and would write into what is a second name of a file in use.
        """
        present = self._place(str(path))
        if present.is_file() and not present.is_symlink():
            with suppress(OSError):  # a file system without hard links: then it is fetched again
                os.link(present, path)

    def _taken(self, path: Path) -> Path:
        """Move what arrived to where nobody else writes.

        Some protocols give a link into storage, where the bytes may change after they were judged: of that, a copy.
        """
        taken = Path(next(self._names), path.name)
        taken.parent.mkdir()
        path.replace(taken)
        if taken.is_symlink():
            source = taken.resolve()
            taken.unlink()
            shutil.copyfile(source, taken)
        return taken


def _did(item: Mapping[str, Any]) -> str:
    return f"{item['scope']}:{item['name']}"
