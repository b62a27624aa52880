"""The signing key and the trusted certificates, followed on disk: a renewal needs no restart.

Files are looked at again when their modification time or size changed. A pair that does not fit together (the key was
replaced, the certificate not yet) leaves the previous one in use as long as that is valid. Safe to share between
threads.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from rucio_trace.envelope import Signer
from rucio_trace.errors import ConfigurationError, Undecided
from rucio_trace.watched import Watched

if TYPE_CHECKING:
    from datetime import datetime
    from logging import Logger

    from rucio_trace.config import Recorder

__all__ = ["CertificateUnfit", "Keys"]


class CertificateUnfit(Undecided):
    """Nothing can be signed now; rows wait until the certificate is renewed."""


class Keys:
    """The signer to use now."""

    def __init__(self, settings: Recorder) -> None:
        """Raises ConfigurationError: no usable key to begin with."""
        if settings.key is None or settings.certificate is None:
            raise ConfigurationError("recorder.key and recorder.certificate", expected="PEM files", found="none")
        self._key, self._certificate = settings.key, settings.certificate
        self._password_file = settings.key_password_file
        self._lock = threading.Lock()
        self._files, signer = self._load()
        self._signers = [signer]  # the youngest first; older ones sign what is older than the youngest
        self.fault: str | None = None  # why files on disk are not in use

    def _load(self) -> tuple[Watched, Signer]:
        files = Watched()
        password = files.read(self._password_file).strip() if self._password_file else None
        return files, Signer.load(files.read(self._key), files.read(self._certificate), password)

    @property
    def not_after(self) -> datetime:
        """When the last certificate in use ends."""
        with self._lock:
            return max(signer.not_after for signer in self._signers)

    def refresh(self) -> bool:
        """Follow the files on disk; returns whether another signer is in use now."""
        with self._lock:
            if not self._files.changed:
                return False
            try:
                self._files, signer = self._load()
            except ConfigurationError as error:
                self.fault = str(error)
                return False
            self.fault = None
            if signer.fingerprint == self._signers[0].fingerprint:
                return False
            self._signers.insert(0, signer)
            return True

    def follow(self, log: Logger) -> None:
        """Follow the files on disk, and tell *log*."""
        if self.refresh():
            log.info("key-reloaded")
        if self.fault:
            log.error("key-unfit %s", self.fault)

    def signer_at(self, moment: datetime, now: datetime) -> Signer:
        """Who signs a change made at *moment*: the youngest certificate valid then and now.

        Raises:
            CertificateUnfit: there is none.
        """
        with self._lock:
            usable = [signer for signer in self._signers if signer.not_before <= now <= signer.not_after]
            self._signers = usable or self._signers[:1]
        for signer in usable:
            if signer.not_before <= moment:
                return signer
        if not usable:
            raise CertificateUnfit(
                f"signing certificate {self._certificate}",
                expected=f"one valid at {now:%Y-%m-%d %H:%M} UTC",
                found=f"{self._signers[0].not_before:%Y-%m-%d %H:%M} to {self._signers[0].not_after:%Y-%m-%d %H:%M}",
                hint="renew it; rows wait, and no restart is needed",
            )
        raise CertificateUnfit(
            f"signing certificate {self._certificate}",
            expected=f"one valid since {moment:%Y-%m-%d %H:%M} UTC, when the change was made",
            found=f"valid since {usable[-1].not_before:%Y-%m-%d %H:%M}",
            hint="have it issued with an earlier notBefore",
        )
