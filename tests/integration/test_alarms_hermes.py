"""A corrupt replica becomes a message at a broker, by way of Rucio's own Hermes."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from recorder_kit import Kit
from rucio_daemons import hermes
from rucio_trace_policy.tables import tables
from rucio_trace_sandbox.processes import wait_until
from sqlalchemy import func, select, update

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rucio_trace_sandbox.activemq import ActiveMQ, Inbox
    from rucio_trace_sandbox.embedded import EmbeddedRucio
    from rucio_trace_sandbox.storage import Rse


@pytest.fixture
def kit(rucio_sqlite: EmbeddedRucio, activemq: ActiveMQ) -> Iterator[Kit]:
    rucio_sqlite.configure(**activemq.rucio_sections)
    kit = Kit(rucio_sqlite)
    yield kit
    kit.close()


def waiting(kit: Kit) -> int:
    from rucio.db.sqla.models import Message

    with kit.rucio.session() as session:
        return int(session.scalar(select(func.count()).select_from(Message)) or 0)


def spoil(kit: Kit, here: Rse, *names: str) -> None:
    """Flip bits of files that were good, and let the recorder find out, one batch each."""
    for name in names:
        kit.rucio.upload(here, name, name.encode())
    kit.run()
    for name in names:
        kit.rucio.pfn_path(here, name).write_bytes(bytes(byte ^ 1 for byte in name.encode()))
        kit.set_state(here, name, "D")
        kit.run()


def end_window(kit: Kit) -> None:
    table = tables("sqlite").alarms
    with kit.rucio.engine.begin() as connection:
        told_at = connection.scalar(select(table.c.told_at))
        connection.execute(update(table).values(told_at=told_at - timedelta(hours=1, seconds=1)))


def alarms(inbox: Inbox) -> list[tuple[Any, ...]]:
    messages = [m for m in inbox.messages if m["event_type"] == "traceability-alarm"]
    return [(m["payload"]["kind"], m["payload"]["subject"], m["payload"]["new"]) for m in messages]


def test_one_message_arrives_for_one_corrupt_replica_and_one_more_for_the_next_ten(
    kit: Kit, activemq: ActiveMQ
) -> None:
    here = kit.rucio.add_posix_rse("HERE")
    with activemq.subscribed() as inbox:
        spoil(kit, here, "first")
        hermes()
        wait_until(lambda: bool(inbox.messages), "the alarm")
        [message] = inbox.messages
        assert message["payload"]["detail"]["dids"] == ["test:first"]
        spoil(kit, here, *(f"file{number}" for number in range(10)))
        hermes()
        assert waiting(kit) == 0
        end_window(kit)
        kit.recorder().follow()
        hermes()
        wait_until(lambda: len(inbox.messages) > 1, "the summary")
        assert alarms(inbox) == [("CORRUPT", "HERE", 1), ("CORRUPT", "HERE", 10)]


def test_an_alarm_waits_for_a_broker_that_is_down(kit: Kit, activemq: ActiveMQ) -> None:
    here = kit.rucio.add_posix_rse("HERE")
    activemq.down()
    try:
        spoil(kit, here, "first")
        hermes()
        assert waiting(kit) == 1
    finally:
        activemq.up()
    with activemq.subscribed() as inbox:
        hermes()
        wait_until(lambda: bool(inbox.messages), "the alarm")
        assert alarms(inbox) == [("CORRUPT", "HERE", 1)]
    assert waiting(kit) == 0
