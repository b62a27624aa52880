"""What our triggers cost Rucio: its own core functions on a database with hooks against one without, on both kinds."""

from __future__ import annotations

import contextlib
import itertools
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rucio_trace_sandbox.home import RucioHome, claim_process
from rucio_trace_sandbox.postgres import PostgresCluster
from rucio_trace_sandbox.workspace import workspace
from sqlalchemy import create_engine, event, text
from sqlalchemy.orm import Session

from benchmarks.harness import Row, compared

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy import Engine

FILES = 100  # many short turns tell more than few long ones
SETTLED_FILES = 5_000
STATE_LIMIT, OTHER_LIMIT = 1.05, 1.02
ROUNDS = 41  # the limits are within a few hundredths of one: many short turns
MEASURED = {
    "add_replicas": STATE_LIMIT,
    "update_states": STATE_LIMIT,
    "lock": OTHER_LIMIT,
    "touch": OTHER_LIMIT,
    "touch_dids": OTHER_LIMIT,
}
TOUCHED = 20  # locks and touches take Rucio milliseconds each


def rows() -> Iterator[Row]:
    with workspace() as folder, PostgresCluster.start(folder / "pg") as cluster:
        for name, urls in {
            "SQLite": [f"sqlite:///{folder / part}.db" for part in ("with", "without")],
            "PostgreSQL": [cluster.url(cluster.create()) for _ in range(2)],
        }.items():
            yield from _rows(name, urls, folder / name)


def _rows(name: str, urls: list[str], folder: Path) -> Iterator[Row]:
    from rucio_trace_policy import hooks

    with contextlib.ExitStack() as stack:
        ours, plain = (stack.enter_context(_rucio(url, folder / str(n))) for n, url in enumerate(urls))
        hooks.install(ours.engine)
        for rucio in (ours, plain):
            rucio.settle()
        for what, limit in MEASURED.items():
            yield compared(
                f"hooks, {name}: {what}",
                getattr(ours, what),
                getattr(plain, what),
                peer_name="without hooks",
                limit=limit,
                rounds=ROUNDS,
            )


class Rucio:
    """Rucio's core on one database; every method does its work anew, on replicas it has made."""

    def __init__(self, engine: Engine) -> None:
        from rucio.common.types import InternalAccount, InternalScope
        from rucio.core.rse import add_rse

        self.engine = engine
        self.scope, self.root = InternalScope("test"), InternalAccount("root")
        self._numbers = itertools.count()
        self._states = itertools.cycle(["UNAVAILABLE", "AVAILABLE"])
        self.rse_id = self._commit(lambda session: add_rse("DISK", session=session))
        self.files: list[dict[str, Any]] = []
        self.add_replicas()

    def _commit(self, work: Callable[[Session], Any]) -> Any:
        with Session(self.engine) as session, session.begin():
            return work(session)

    def settle(self) -> None:
        """Fill the tables, and take statistics now: PostgreSQL would in the middle of one side's rounds."""
        for _ in range(SETTLED_FILES // FILES):
            self.add_replicas()
        if self.engine.dialect.name == "postgresql":
            with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.execute(text("ALTER SYSTEM SET autovacuum = off"))
                connection.execute(text("SELECT pg_reload_conf()"))
                connection.execute(text("VACUUM ANALYZE"))

    def add_replicas(self) -> None:
        """New files, as an upload registers them."""
        from rucio.core.replica import add_replicas

        number = next(self._numbers)
        files = [
            {"scope": self.scope, "name": f"file{number}.{n}", "bytes": 1, "adler32": "00010001"} for n in range(FILES)
        ]
        self._commit(lambda session: add_replicas(self.rse_id, files, self.root, session=session))
        self.files = self.files or [{**file, "rse_id": self.rse_id} for file in files]

    def update_states(self) -> None:
        """Available replicas unavailable, or back."""
        from rucio.core.replica import update_replicas_states
        from rucio.db.sqla.constants import ReplicaState

        state = ReplicaState[next(self._states)]
        replicas = [{**file, "state": state} for file in self.files]
        self._commit(lambda session: update_replicas_states(replicas, session=session))

    def lock(self) -> None:
        """A rule more on each replica: what raises `lock_cnt`."""
        from rucio.core.rule import add_rule

        # A rule is told from another one by its expression, among others.
        expression = "DISK" + "|DISK" * next(self._numbers)
        dids = [{"scope": self.scope, "name": file["name"]} for file in self.files[:TOUCHED]]
        options = {"weight": None, "lifetime": None, "locked": False, "subscription_id": None}
        self._commit(
            lambda session: add_rule(
                dids, self.root, 1, expression, "NONE", ignore_account_limit=True, session=session, **options
            )
        )

    def touch(self) -> None:
        """Replicas read just now."""
        from rucio.core.replica import touch_replica

        now = datetime.utcnow()  # noqa: DTZ003 as Rucio keeps its times

        def read(session: Session) -> None:
            for file in self.files[:TOUCHED]:
                touch_replica({**file, "accessed_at": now}, session=session)

        self._commit(read)

    def touch_dids(self) -> None:
        """Files read just now, as Rucio's tracer notes it: the most frequent update of `dids`."""
        from rucio.core.did import touch_dids
        from rucio.db.sqla.constants import DIDType

        dids = [{"scope": file["scope"], "name": file["name"], "type": DIDType.FILE} for file in self.files]
        self._commit(lambda session: touch_dids(dids, session=session))


@contextlib.contextmanager
def _rucio(url: str, folder: Path) -> Iterator[Rucio]:
    home = RucioHome.server(folder, url)
    claim_process(home)
    from rucio_trace_sandbox.embedded import bootstrap

    bootstrap(home)
    engine = create_engine(url)
    if engine.dialect.name == "sqlite":
        # The cluster waits for no disk either: that would hide what is to be seen.
        event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = OFF"))
    yield Rucio(engine)
    engine.dispose()
