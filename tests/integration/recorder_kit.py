"""A recorder on an embedded Rucio: its certificate, its settings, its store, and eyes on all it writes."""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest
from rucio_trace_daemons.recorder.options import Options
from rucio_trace_daemons.recorder.service import Recorder
from rucio_trace_policy import hooks
from rucio_trace_policy.tables import tables
from rucio_trace_sandbox.pki import SandboxAuthority
from sqlalchemy import select, update

from rucio_trace.config import Settings
from rucio_trace.configured import open_store
from rucio_trace.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from rucio_trace_sandbox.embedded import EmbeddedRucio
    from rucio_trace_sandbox.storage import Rse
    from sqlalchemy import Row

    from rucio_trace.store import Stored

SETTINGS = """\
[instance]
name = "test-rucio"
[store]
url = "{store}"
[trust]
federation = "federation/federation.toml"
[recorder]
site = "SITE-A"
key = "federation/SITE-A.key.pem"
certificate = "federation/SITE-A.pem"
accounts_key = "accounts.key"
lease_seconds = {lease}
"""


on_sqlite = pytest.mark.parametrize("rucio", ["sqlite"], indirect=True)
"""For a test of what does not depend on the database."""


@cache
def _empty_store() -> bytes:
    """The file of a store with its tables; to make them takes longer than many a test."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "store.db"
        Store.open(f"sqlite:///{path}").close()
        return path.read_bytes()


class Kit:
    """A recorder that does one batch when told to."""

    def __init__(self, rucio: EmbeddedRucio, store_url: str | None = None, *, lease: int = 600, **rights: Any) -> None:
        self.rucio, self.folder = rucio, rucio.folder / "recorder"
        self.folder.mkdir()
        hooks.install(rucio.engine)
        self.authority = SandboxAuthority(self.folder / "federation")
        self.member = self.authority.admit("SITE-A", **rights)
        (self.folder / "accounts.key").write_text("a secret of this site")
        if store_url is None:
            (self.folder / "store.db").write_bytes(_empty_store())
        url = store_url or f"sqlite:///{self.folder}/store.db"
        self.file = self.folder / "rucio-trace.toml"
        self.file.write_text(SETTINGS.format(store=url, lease=lease))
        self.settings = Settings.load(self.file)
        self.options = Options.of(self.settings)
        self.stop = threading.Event()
        self._open: list[Recorder | Store] = []

    def recorder(self, **options: Any) -> Recorder:
        recorder = Recorder.open(self.settings, replace(self.options, **options), self.rucio.engine, self.stop)
        self._open.append(recorder)
        return recorder

    def run(self, seam: Callable[[str], None] = lambda _name: None, **options: Any) -> None:
        """Do batches until nothing is due."""
        worker = self.recorder(**options).worker(seam)
        while worker.step():
            pass

    def close(self) -> None:
        for opened in self._open:
            opened.close()

    @cached_property
    def store(self) -> Store:
        """The recorders' store, to look into it."""
        store = open_store(self.settings, migrate=True)
        self._open.append(store)
        return store

    @property
    def outbox(self) -> list[Row[Any]]:
        table = tables(self.rucio.backend).outbox
        with self.rucio.engine.connect() as connection:
            return list(connection.execute(select(table).order_by(table.c.id)))

    @property
    def outcomes(self) -> dict[str, int]:
        table = tables(self.rucio.backend).outcomes
        counts: dict[str, int] = {}
        with self.rucio.engine.connect() as connection:
            for row in connection.execute(select(table)):
                counts[row.reason] = counts.get(row.reason, 0) + row.count
        return counts

    def make_due(self, **columns: Any) -> None:
        """Let the time pass for which rows wait."""
        table = tables(self.rucio.backend).outbox
        with self.rucio.engine.begin() as connection:
            connection.execute(update(table).values(not_before=None, claimed_until=None, **columns))

    def age(self, by: timedelta) -> None:
        """Move all that waiting rows remember into the past."""
        table = tables(self.rucio.backend).outbox
        with self.rucio.engine.begin() as connection:
            for row in connection.execute(select(table)).all():
                moments = {name: getattr(row, name) - by for name in _MOMENTS if getattr(row, name) is not None}
                connection.execute(update(table).where(table.c.id == row.id).values(**moments))

    def traces(self, name: str | None = None) -> list[Stored]:
        """All traces in the store (of DIDs of that name), in the order of their positions."""
        found = self.store.since(0)
        return [stored for stored in found if name in (None, (stored.trace.statement.did or "").partition(":")[2])]

    def events(self, name: str | None = None) -> list[tuple[str, str | None]]:
        return [(str(s.trace.statement.event), s.trace.statement.rse) for s in self.traces(name)]

    def product(self, name: str) -> Row[Any] | None:
        table = tables(self.rucio.backend).products
        with self.rucio.engine.connect() as connection:
            return connection.execute(select(table).where(table.c.name == name)).one_or_none()

    def replicas(self, name: str) -> dict[str, str]:
        table = tables(self.rucio.backend).replicas
        with self.rucio.engine.connect() as connection:
            return {row.rse: row.state for row in connection.execute(select(table).where(table.c.name == name))}

    # ------------------------------------------------------------------------ what Rucio does

    def set_state(self, rse: Rse, name: str, state: str) -> None:
        from rucio.core.replica import update_replicas_states
        from rucio.db.sqla.constants import ReplicaState

        change = {"rse_id": rse.id, "scope": self.rucio.scope, "name": name, "state": ReplicaState(state)}
        with self.rucio.session() as session:
            update_replicas_states([change], session=session)

    def delete(self, rse: Rse, name: str) -> None:
        """What the reaper does in the database, and on disk."""
        from rucio.core.replica import delete_replicas

        with self.rucio.session() as session:
            delete_replicas(rse.id, [{"scope": self.rucio.scope, "name": name}], session=session)
        if rse.folder is not None:
            self.rucio.pfn_path(rse, name).unlink(missing_ok=True)

    def copy(self, source: Rse, destination: Rse, name: str, **request: Any) -> Path | None:
        """A finished transfer: the bytes (where there is a folder for them), a request, the replica from C to A."""
        import shutil
        import uuid

        from rucio.core.replica import add_replicas, get_replica
        from rucio.db.sqla.constants import ReplicaState, RequestState, RequestType
        from rucio.db.sqla.models import RequestHistory

        rucio = self.rucio
        with rucio.session() as session:
            known = get_replica(source.id, rucio.scope, name, session=session)
            file = {"scope": rucio.scope, "name": name, **{k: known[k] for k in ("bytes", "adler32", "md5")}}
            add_replicas(destination.id, [file | {"state": ReplicaState.COPYING}], rucio.root, session=session)
        path = rucio.pfn_path(destination, name) if destination.folder is not None else None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(rucio.pfn_path(source, name), path)
        with rucio.session() as session:
            values = {
                "id": uuid.uuid4().hex,
                "rule_id": uuid.uuid4().hex,
                "activity": "User Subscriptions",
                "account": rucio.root,
                "transfertool": "fts3",
                "state": RequestState.DONE,
                "request_type": RequestType.TRANSFER,
                "source_rse_id": source.id,
                **{k: known[k] for k in ("bytes", "adler32", "md5")},
                **request,
            }
            session.add(RequestHistory(scope=rucio.scope, name=name, dest_rse_id=destination.id, **values))
        self.set_state(destination, name, "A")
        return path


_MOMENTS = ("not_before", "missing_since", "claimed_until")
