"""Recorder and auditor whose store is a trace service, which goes and comes back: everything ends exactly once."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from auditor_kit import AuditKit
from client_kit import Service
from rucio_trace_policy.tables import tables
from sqlalchemy import select

from rucio_trace import configured
from rucio_trace.client import Denied, ServiceStore, ServiceUnavailable
from rucio_trace.config import Settings
from rucio_trace.service.access import Role
from rucio_trace.service.tokens import TokenFile

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rucio_trace_sandbox.embedded import EmbeddedRucio
    from rucio_trace_sandbox.storage import Rse

RECORDER = Path(sys.executable).with_name("rucio-trace-recorder")


class ServedKit(AuditKit):
    """The kit of recorder and auditor, with a service in the place of the store."""

    def __init__(self, rucio: EmbeddedRucio) -> None:
        super().__init__(rucio)
        federation = self.folder / "federation" / "federation.toml"
        self.service = Service(self.folder / "service", f'federation = "{federation}"')
        url = f'url = "sqlite:///{self.folder}/store.db"'
        asked = f'service = "{self.service.url}"\ntoken_file = "{self.service.token_file}"'
        self.file.write_text(self.file.read_text().replace(url, asked))
        self.settings = Settings.load(self.file)

    def close(self) -> None:
        super().close()
        self.service.close()


@pytest.fixture
def kit(rucio_sqlite: EmbeddedRucio, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServedKit]:
    monkeypatch.setattr(configured, "PATIENCE_SECONDS", 0.5)
    kit = ServedKit(rucio_sqlite)
    yield kit
    kit.close()


@pytest.fixture
def here(kit: ServedKit) -> Rse:
    return kit.rucio.add_posix_rse("HERE")


def test_a_product_is_recorded_through_the_service(kit: ServedKit, here: Rse) -> None:
    there = kit.rucio.add_posix_rse("THERE")
    kit.rucio.upload(here, "file", b"content")
    kit.run()
    kit.copy(here, there, "file")
    kit.run()
    kit.delete(there, "file")
    kit.run()
    assert isinstance(kit.store, ServiceStore)
    assert kit.events() == [("CREATE", "HERE"), ("COPY", "THERE"), ("DELETE", "THERE")]
    product = kit.product("file")
    assert product is not None
    assert (product.status, kit.outbox) == ("GENUINE", [])


@pytest.mark.parametrize("seam", ["claimed", "looked-up", "proven", "keeping", "kept", "registered", "recomputed"])
def test_a_service_that_goes_at_any_moment_costs_no_trace_and_doubles_none(
    kit: ServedKit, here: Rse, seam: str
) -> None:
    for number in range(3):
        kit.rucio.upload(here, f"file{number}", b"content")
    left = [1]

    def kill(name: str) -> None:
        if name == seam and left:
            left.pop()
            kit.service.kill()

    worker = kit.recorder().worker(kill)
    if seam == "recomputed":  # nothing is asked of the service any more
        worker.step()
    else:
        with pytest.raises(ServiceUnavailable):
            worker.step()
        assert {row.new_state for row in kit.outbox} >= {"A"}
        assert not any(row.attempts for row in kit.outbox)  # it was not the rows' fault
    kit.service.start()
    kit.make_due()
    while worker.step():
        pass
    assert kit.outbox == []
    assert kit.events() == [("CREATE", "HERE")] * 3
    assert kit.outcomes["CREATE"] == 3


def test_a_batch_of_the_auditor_goes_through_the_service(kit: ServedKit, here: Rse) -> None:
    kit.filled(here, 3)
    kit.start()
    left = [1]

    def kill(name: str) -> None:
        if name == "kept" and left:
            left.pop()
            kit.service.kill()

    with pytest.raises(ServiceUnavailable):
        kit.audit(kill)
    kit.service.start()
    kit.make_work_due()
    kit.audit()
    assert Counter(event for event, _ in kit.events()) == {"CREATE": 3, "VERIFY": 1}
    (batch,) = [s for s in kit.traces() if s.trace.statement.batch is not None]
    data = kit.store.list_of(batch.id)
    assert data is not None
    assert data.count(b"\n") == 3
    key = kit.traces("file000")[0].trace.statement.product
    assert key is not None
    (line,) = kit.store.proven([key])[key]
    assert line.batch.id == batch.id
    assert kit.store.line_proof(key) is not None


def test_a_batch_that_the_service_denies_is_tried_soon_and_a_new_token_needs_no_restart(
    kit: ServedKit, here: Rse
) -> None:
    kit.filled(here, 3)
    kit.start()
    auditor, tokens = kit.auditor(), TokenFile(kit.service.folder / "tokens.json")
    with pytest.raises(Denied):
        kit.work(auditor, lambda seam: tokens.revoke("recorder") if seam == "kept" else None)
    batches = tables(kit.rucio.backend).audit_batches
    with kit.rucio.engine.connect() as connection:
        [batch] = connection.execute(select(batches)).all()
    assert "to be allowed" in batch.last_error
    assert batch.claimed_until < batch.at + auditor.options.lease  # it is nobody's, and rests
    kit.service.token_file.write_text(tokens.create("new", "SITE-A", [Role.REGISTER, Role.READ], datetime.now(UTC)))
    kit.make_work_due()
    kit.work(auditor)
    assert len(kit.batches()) == 1


@pytest.mark.timeout(300)
def test_a_recorder_that_runs_catches_up_by_itself(kit: ServedKit, here: Rse) -> None:
    argv = [RECORDER, "--sleep-time", "2", "--config", kit.file]
    log = (kit.folder / "log").open("wb")
    process = subprocess.Popen(argv, env=kit.rucio.home.environment(), stdout=log, stderr=subprocess.STDOUT)
    try:
        for number in range(40):
            kit.rucio.upload(here, f"file{number}", b"content")
            if number == 10:
                kit.service.kill()  # while it works
            if number == 30:
                kit.service.start()
        deadline = time.monotonic() + 120
        while kit.outbox:
            assert process.poll() is None, (kit.folder / "log").read_text()
            assert time.monotonic() < deadline, (kit.folder / "log").read_text()
            time.sleep(0.2)
    finally:
        process.terminate()
        process.wait(60)
        log.close()
    assert Counter(kit.events()) == {("CREATE", "HERE"): 40}
    assert len({s.trace.statement.name for s in kit.traces()}) == 40
