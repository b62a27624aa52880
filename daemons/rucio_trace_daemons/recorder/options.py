"""What the recorder was told to do: settings and command line, resolved once and passed on."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

from rucio_trace.archive import ArchiveLimits
from rucio_trace.configured import read_accounts_key
from rucio_trace.errors import ConfigurationError
from rucio_trace_daemons.recorder.outbox import LONGEST_WAIT

if TYPE_CHECKING:
    from pathlib import Path

    from rucio_trace.config import ServiceContext, Settings

__all__ = ["Options", "check_settings"]

# Rucio's reaper takes up again after this time what it marked and did not delete (its `delay_seconds`).
DELETION_GRACE = timedelta(seconds=600)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Frozen for the life of the process."""

    instance: str
    site: str
    rses: str = "*"
    threads: int = 1
    bulk: int = 100
    sleep: timedelta = timedelta(seconds=10)
    lease: timedelta = timedelta(seconds=600)
    grace: timedelta = DELETION_GRACE
    lost_after: timedelta = timedelta(hours=1)
    retry: timedelta = timedelta(minutes=5)  # between two looks for a file that stays missing
    # How long the store may refuse a producer's word: a federation file, a revocation list reaches every host by then.
    origin_patience: timedelta = timedelta(hours=1)
    lost_in_a_row: int = 20
    staging_folder: Path | None = None
    staging_bytes: int = 20 * 1024**3
    contents: bool = True
    limits: ArchiveLimits = field(default_factory=ArchiveLimits)
    datasets: Literal["sign", "leave", "exclude"] = "sign"
    accounts: Literal["keep", "pseudonym", "omit"] = "pseudonym"
    accounts_key: bytes = b""
    service: ServiceContext | None = None

    @classmethod
    def of(cls, settings: Settings) -> Options:
        """Raises ConfigurationError, naming the option, where a recorder cannot do without one."""
        recorder, limits = settings.recorder, settings.limits
        check_settings(settings, "recorder.lease_seconds", recorder.lease_seconds)
        service = recorder.service
        return cls(
            instance=settings.instance.name,
            site=recorder.site,
            rses=recorder.rses,
            threads=recorder.threads,
            bulk=recorder.bulk,
            sleep=timedelta(seconds=recorder.sleep_seconds),
            lease=timedelta(seconds=recorder.lease_seconds),
            lost_after=timedelta(seconds=recorder.lost_after_seconds),
            lost_in_a_row=recorder.lost_in_a_row,
            staging_folder=recorder.staging_folder,
            staging_bytes=recorder.staging_bytes,
            contents=recorder.contents,
            limits=ArchiveLimits(**asdict(limits)),
            datasets=recorder.datasets,
            accounts=recorder.accounts,
            accounts_key=_read_accounts_key(settings),
            service=service if service.context or service.type or service.provider else None,
        )


def check_settings(settings: Settings, lease: str, seconds: int) -> None:
    """Raises ConfigurationError: a name that every trace bears is missing, or the option *lease* is too long."""
    for option, value in (("instance.name", settings.instance.name), ("recorder.site", settings.recorder.site)):
        if not value:
            raise ConfigurationError(option, expected="a name: it stands in every trace", found="none")
    if timedelta(seconds=seconds) > LONGEST_WAIT:
        raise ConfigurationError(
            lease,
            expected=f"at most {LONGEST_WAIT.total_seconds():.0f}: a longer lease is taken for a clock's error",
            found=str(seconds),
        )


def _read_accounts_key(settings: Settings) -> bytes:
    recorder = settings.recorder
    if recorder.accounts != "pseudonym":
        return b""
    if recorder.accounts_key is None:
        raise ConfigurationError(
            "recorder.accounts_key",
            expected="a file with a secret that stays at the site",
            found="none",
            hint='or set recorder.accounts to "keep" or "omit"',
        )
    return read_accounts_key(recorder.accounts_key)
