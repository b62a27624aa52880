"""An auditor beside the recorder of `recorder_kit`, and time made to pass for it."""

from __future__ import annotations

import json
import os
import zlib
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from recorder_kit import Kit
from rucio_trace_daemons.auditor.options import Options
from rucio_trace_daemons.auditor.rounds import Rounds
from rucio_trace_daemons.auditor.service import Auditor
from rucio_trace_policy.tables import tables
from sqlalchemy import func, select, update

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from rucio_trace_daemons.auditor.rounds import Round
    from rucio_trace_sandbox.storage import Rse
    from sqlalchemy import Row

    from rucio_trace.store import Stored


class AuditKit(Kit):
    """An auditor that does one round when told to."""

    endless = False

    def filled(self, rse: Rse, count: int, size: int = 1000, prefix: str = "file") -> list[str]:
        """Files on *rse* that are signed; returns their names."""
        names = [f"{prefix}{number:03}" for number in range(count)]
        for number, name in enumerate(names):
            self.rucio.upload(rse, name, bytes([10, 20, 30, 40 + number]) * (size // 4))
        self.run()
        return names

    def start(self, rses: str = "*", *, sample: float = 1.0, bytes: int | None = None, every: int = 0) -> int:  # noqa: A002
        """A campaign, as `rucio-trace audit start` makes it; returns its number."""
        audits = tables(self.rucio.backend).audits
        now = datetime.now(UTC) - timedelta(seconds=1)
        self.endless = not every  # one round follows another: a test does one at a time
        values = {"rses": rses, "sample": sample, "bytes": bytes, "every_seconds": every, "started_at": now}
        with self.rucio.engine.begin() as connection:
            return connection.execute(audits.insert().values(**values)).inserted_primary_key[0]

    def stop_campaign(self, audit: int) -> None:
        audits = tables(self.rucio.backend).audits
        with self.rucio.engine.begin() as connection:
            connection.execute(update(audits).where(audits.c.id == audit).values(stopped_at=datetime.now(UTC)))

    def auditor(self, **options: Any) -> Auditor:
        auditor = Auditor.open(
            self.settings, replace(Options.of(self.settings), **options), self.rucio.engine, self.stop
        )
        self._open.append(auditor)
        return auditor

    def audit(self, seam: Callable[[str], None] = lambda _name: None, **options: Any) -> None:
        """Do steps until nothing is due, or a round of a campaign without pauses has ended."""
        self.work(self.auditor(**options), seam)

    def work(self, auditor: Auditor, seam: Callable[[str], None] = lambda _name: None) -> None:
        worker = auditor.worker(seam)
        before = self.ended
        while worker.step() and not (self.endless and self.ended > before):
            pass

    @property
    def ended(self) -> int:
        """How many rounds are over."""
        return sum(row.ended_at is not None for row in self.rounds)

    @property
    def rounds(self) -> list[Row[Any]]:
        rounds = tables(self.rucio.backend).audit_rounds
        with self.rucio.engine.connect() as connection:
            return list(connection.execute(select(rounds).order_by(rounds.c.audit, rounds.c.rse_id, rounds.c.round)))

    def under_way(self) -> list[Round]:
        return Rounds(self.rucio.engine).under_way(None)

    @property
    def work_left(self) -> list[Row[Any]]:
        work = tables(self.rucio.backend).audit_work
        with self.rucio.engine.connect() as connection:
            return list(connection.execute(select(work).order_by(work.c.rse_id, work.c.ordinal)))

    def make_work_due(self) -> None:
        """Let the time pass for which replicas and batches wait."""
        ours = tables(self.rucio.backend)
        with self.rucio.engine.begin() as connection:
            connection.execute(update(ours.audit_work).values(not_before=None, claimed_until=None))
            connection.execute(update(ours.audit_batches).values(claimed_until=None))

    def breakers(self) -> dict[str, str | None]:
        """Why the breakers are open that are."""
        breakers = tables(self.rucio.backend).breakers
        with self.rucio.engine.connect() as connection:
            rows = connection.execute(select(breakers).where(breakers.c.opened_at.is_not(None)))
            return {row.rse_id: row.reason for row in rows}

    def batches(self, rse: str | None = None) -> list[Stored]:
        """Those of the RSE of that name, or all."""
        signed = [stored for stored in self.traces() if stored.trace.statement.batch is not None]
        return [stored for stored in signed if rse in (None, stored.trace.statement.rse)]

    def lines(self, rse: str | None = None) -> list[str]:
        """The DIDs in the lists of these batches, in the order in which they were signed."""
        store, batches = self.store, self.batches(rse)
        return [json.loads(line)["did"] for batch in batches for line in store.list_of(batch.id).splitlines()]

    def count(self, table: str) -> int:
        with self.rucio.engine.connect() as connection:
            return connection.scalar(select(func.count()).select_from(getattr(tables(self.rucio.backend), table))) or 0

    def bad_replicas(self) -> Counter[str]:
        """How often each file was declared bad in Rucio."""
        from rucio.db.sqla.models import BadReplica

        with self.rucio.session() as session:
            return Counter(session.execute(select(BadReplica.name)).scalars())


def keep_times(change: Callable[[Path], None]) -> Callable[[Path], None]:
    """The same change with the file's times as they were."""

    def changed(path: Path) -> None:
        before = path.stat()
        change(path)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    return changed


@keep_times
def flip(path: Path) -> None:
    """One bit in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@keep_times
def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


@keep_times
def forge(path: Path) -> None:
    """Other bytes of the same size and the same ADLER32: +1 -2 +1 on three neighbours leaves both sums alone."""
    content = bytearray(path.read_bytes())
    before = zlib.adler32(content)
    at = next(i for i in range(1, len(content) - 1) if content[i - 1] < 255 and content[i] > 1 and content[i + 1] < 255)
    for offset, change in ((-1, 1), (0, -2), (1, 1)):
        content[at + offset] += change
    assert zlib.adler32(content) == before
    assert content != path.read_bytes()
    path.write_bytes(content)


def remove(path: Path) -> None:
    path.unlink()


def names_of(dids: Sequence[str]) -> list[str]:
    return [did.partition(":")[2] for did in dids]
