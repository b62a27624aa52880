"""What the auditor was told to do: settings and command line, resolved once and passed on."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from rucio_trace_daemons.auditor.quiet import Quiet
from rucio_trace_daemons.recorder.options import check_settings

if TYPE_CHECKING:
    from rucio_trace.config import Settings

__all__ = ["BATCH_LINES", "Options"]

# A statement's list may hold no more (docs/format.md).
BATCH_LINES = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Frozen for the life of the process."""

    instance: str
    site: str
    rses: str = "*"
    threads: int = 1
    bulk: int = 100
    sleep: timedelta = timedelta(seconds=60)
    lease: timedelta = timedelta(seconds=600)
    batch: timedelta = timedelta(seconds=600)
    batch_lines: int = BATCH_LINES
    quiet: Quiet = field(default_factory=Quiet)
    declare: bool = False
    account: str = "root"
    bad_in_a_row: int = 10
    bad_share: float = 0.1

    @classmethod
    def of(cls, settings: Settings) -> Options:
        """Raises ConfigurationError, naming the option, where an auditor cannot do without one."""
        auditor = settings.auditor
        check_settings(settings, "auditor.lease_seconds", auditor.lease_seconds)
        return cls(
            instance=settings.instance.name,
            site=settings.recorder.site,
            rses=auditor.rses,
            threads=auditor.threads,
            bulk=auditor.bulk,
            sleep=timedelta(seconds=auditor.sleep_seconds),
            lease=timedelta(seconds=auditor.lease_seconds),
            batch=timedelta(seconds=auditor.batch_seconds),
            quiet=Quiet.parse(auditor.quiet_hours, "auditor.quiet_hours"),
            declare=auditor.declare,
            account=auditor.account,
            bad_in_a_row=auditor.bad_in_a_row,
            bad_share=auditor.bad_percent / 100,
        )
