"""A protocol of a site's own, as Rucio loads them by name: it only knows how to fetch a file whole."""

from __future__ import annotations

import errno
import os
from typing import Any

from rucio.common import exception
from rucio.rse.protocols import posix


class Fetching(posix.Default):
    disk_is_full = False

    def get(self, pfn: str, dest: str, transfer_timeout: Any = None) -> None:
        if self.disk_is_full:
            with open(dest, "wb") as file:  # noqa: PTH123
                file.write(b"con")
            raise exception.ServiceUnavailable(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        super().get(pfn, dest, transfer_timeout)
