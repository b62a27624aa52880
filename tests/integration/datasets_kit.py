"""A recorder on a Rucio in which there are datasets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recorder_kit import Kit
from rucio_trace_policy.tables import tables
from sqlalchemy import update

if TYPE_CHECKING:
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
        """Let the time pass for which rows wait; every dataset is due to be counted."""
        super().make_due(**columns)
        table = tables(self.rucio.backend).datasets
        past = {"due_at": table.c.generation, "not_before": table.c.generation, "claimed_until": None}
        with self.rucio.engine.begin() as connection:
            connection.execute(update(table).values(**past))

    def shown(self, name: str = "dataset") -> tuple[str, str] | None:
        row: Row[Any] | None = self.product(name)
        return row and (row.status, f"{row.proven}/{row.total}")

    def signed(self, name: str = "dataset") -> list[Statement]:
        return [stored.trace.statement for stored in self.traces(name)]
