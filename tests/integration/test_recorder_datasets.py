"""Closed datasets: their list of files is signed, withdrawn when it no longer holds, and their status is shown.

Every test runs on SQLite and on PostgreSQL.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import blake3
import pytest
from recorder_kit import Kit
from rucio_trace_policy.tables import tables
from sqlalchemy import select, update

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rucio_trace_sandbox.embedded import EmbeddedRucio
    from rucio_trace_sandbox.storage import Rse
    from sqlalchemy import Row

    from rucio_trace.trace import Statement


class DatasetKit(Kit):
    """With what users do to datasets."""

    def dataset(self, name: str = "dataset", *files: str) -> None:
        from rucio.core.did import add_did
        from rucio.db.sqla.constants import DIDType

        with self.rucio.session() as session:
            add_did(self.rucio.scope, name, DIDType.DATASET, self.rucio.root, session=session)
        self.attach(*files, to=name)

    def attach(self, *files: str, to: str = "dataset") -> None:
        from rucio.core.did import attach_dids

        with self.rucio.session() as session:
            dids = [{"scope": self.rucio.scope, "name": file} for file in files]
            if dids:
                attach_dids(self.rucio.scope, to, dids, self.rucio.root, session=session)

    def detach(self, *files: str, of: str = "dataset") -> None:
        from rucio.core.did import detach_dids

        with self.rucio.session() as session:
            dids = [{"scope": self.rucio.scope, "name": file} for file in files]
            detach_dids(self.rucio.scope, of, dids, session=session)

    def set_open(self, is_open: bool, name: str = "dataset") -> None:
        from rucio.core.did import set_status

        with self.rucio.session() as session:
            set_status(self.rucio.scope, name, session=session, open=is_open)

    def close_dataset(self, name: str = "dataset") -> None:
        self.set_open(False, name)

    def make_due(self, **columns: Any) -> None:
        """Let the time pass for which rows wait, and datasets' pauses."""
        super().make_due(**columns)
        table = tables(self.rucio.backend).datasets
        with self.rucio.engine.begin() as connection:
            for row in connection.execute(select(table)).all():
                marked = row.due_at <= row.not_before or row.claimed_until is not None
                past = {"not_before": row.generation, "claimed_until": None}
                past |= {"due_at": row.generation} if marked else {}
                connection.execute(update(table).where(table.c.name == row.name).values(**past))

    def shown(self, name: str = "dataset") -> tuple[str, str] | None:
        row: Row[Any] | None = self.product(name)
        return row and (row.status, f"{row.proven}/{row.total}")


@pytest.fixture
def kit(rucio: EmbeddedRucio) -> Iterator[DatasetKit]:
    kit = DatasetKit(rucio, revoke=["*"])
    yield kit
    kit.close()


@pytest.fixture
def here(kit: DatasetKit) -> Rse:
    return kit.rucio.add_posix_rse("HERE")


def signed(kit: DatasetKit, name: str = "dataset") -> list[Statement]:
    return [stored.trace.statement for stored in kit.traces(name)]


def test_a_dataset_closed_opened_and_closed_again(kit: DatasetKit, here: Rse) -> None:
    for name in ("b", "a", "a-b"):
        kit.rucio.upload(here, name, name.encode())
    kit.dataset("dataset", "b", "a")
    kit.run()
    assert kit.shown() == ("GENUINE", "2/2")
    assert kit.outbox == []
    kit.close_dataset()
    kit.run()
    [create] = signed(kit)
    a, b = (kit.traces(name)[0].trace.statement for name in "ab")
    text = f"BLAKE3:{a.hash} 1 test:a\nBLAKE3:{b.hash} 1 test:b\n"
    assert (create.event, create.members, create.size, create.rse) == ("CREATE", 2, 2, None)
    assert create.hash == blake3.blake3(text.encode()).hexdigest()
    assert [(c.path, c.hash) for c in create.contents] == [("test:a", a.hash), ("test:b", b.hash)]
    kit.set_open(True)
    kit.attach("a-b")
    kit.close_dataset()
    kit.run()
    _, revoke, again = signed(kit)
    assert (revoke.event, revoke.obsolescence, revoke.revokes) == ("REVOKE", "reopened", create.event_id)
    assert (again.event, again.members) == ("CREATE", 3)
    assert [content.path for content in again.contents] == ["test:a", "test:a-b", "test:b"]
    kit.make_due()
    kit.run()
    assert kit.shown() == ("GENUINE", "3/3")
    assert kit.product("dataset").trace_id == again.event_id
