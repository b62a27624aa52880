"""The service as processes: its port is its own, and a bug ends it."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING

import pytest
from rucio_trace_sandbox.processes import wait_until

from rucio_trace.config import Service
from rucio_trace.errors import ConfigurationError
from rucio_trace.service.indexing import Indexing
from rucio_trace.service.serving import _listening
from rucio_trace.store import Store

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("workers", [1, 2])
def test_a_port_is_not_shared_with_another_service(workers: int) -> None:
    """Workers share one: another service of the same user could, too."""
    with _listening(Service(port=0, workers=2)) as ports:
        number = ports[0].getsockname()[1]
        assert {port.getsockname()[1] for port in ports} == {number}
        with pytest.raises(ConfigurationError, match=str(number)), _listening(Service(port=number, workers=workers)):
            pass


def test_a_bug_in_indexing_ends_the_process(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Else traces would be registered that nobody finds, and nobody would know."""

    class Wrong(Store):
        def index(self) -> bool:
            raise ZeroDivisionError("a bug")

    ended = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: ended.set())
    try:
        indexing = Indexing(Wrong.open(f"sqlite:///{tmp_path / 'traces.db'}"))
        indexing.start()
        wait_until(ended.is_set, "SIGTERM")
        indexing.close()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert "a bug" in caplog.text
