"""Products older than the hooks: the first replica read that agrees with Rucio becomes the origin.

On both databases.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from recorder_kit import Kit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rucio_trace_sandbox.embedded import EmbeddedRucio
    from rucio_trace_sandbox.storage import Rse


@pytest.fixture
def here(rucio: EmbeddedRucio) -> Rse:
    rse = rucio.add_posix_rse("HERE")
    rucio.upload(rse, "file", b"content")
    return rse


@pytest.fixture
def kit(rucio: EmbeddedRucio, here: Rse) -> Iterator[Kit]:
    """Hooks come when `here` already holds a file."""
    kit = Kit(rucio)
    yield kit
    kit.close()


def test_a_copy_that_is_read_first_is_adopted(kit: Kit, here: Rse) -> None:
    kit.copy(here, kit.rucio.add_posix_rse("THERE"), "file")
    kit.run()
    assert kit.events() == [("COPY", "THERE")]
    assert kit.traces()[-1].trace.statement.adopted is True
    kit.set_state(here, "file", "D")
    kit.run()
    assert kit.events()[1:] == [("VERIFY", "HERE")]
    assert kit.traces()[-1].trace.statement.adopted is None
    assert kit.replicas("file") == {"HERE": "proven", "THERE": "proven"}


def test_a_replica_that_is_doubted_first_is_adopted(kit: Kit, here: Rse) -> None:
    kit.set_state(here, "file", "D")
    kit.run()
    [trace] = kit.traces()
    assert (trace.trace.statement.event, trace.trace.statement.adopted) == ("VERIFY", True)


def test_a_replica_that_contradicts_rucio_is_not_adopted(kit: Kit, here: Rse) -> None:
    kit.rucio.pfn_path(here, "file").write_bytes(b"CONTENT")
    kit.set_state(here, "file", "D")
    kit.run()
    [trace] = kit.traces()
    assert (trace.trace.statement.event, trace.trace.statement.adopted) == ("CORRUPT", None)


def test_a_replica_nobody_ever_read_is_deleted_unobserved(kit: Kit, here: Rse) -> None:
    kit.delete(here, "file")
    kit.run()
    [trace] = kit.traces()
    assert (trace.trace.statement.event, trace.trace.statement.unobserved) == ("DELETE", True)
