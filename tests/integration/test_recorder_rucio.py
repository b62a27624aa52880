"""The recorder behind Rucio's own daemons: conveyor, its `mock` transfer tool, judge and reaper, on both databases."""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
import rucio_daemons
from recorder_kit import Kit
from rucio_trace_sandbox import daemons

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rucio_trace_sandbox.embedded import EmbeddedRucio
    from rucio_trace_sandbox.fts import FtsStandIn
    from rucio_trace_sandbox.xrootd import XRootD

CONTENT = bytes(range(256)) * 100


@pytest.fixture
def kit(rucio: EmbeddedRucio) -> Iterator[Kit]:
    kit = Kit(rucio)
    yield kit
    kit.close()


def test_a_rule_served_by_the_conveyor_leaves_a_copy(
    kit: Kit, fts: FtsStandIn, xrootd: XRootD, other_xrootd: XRootD, folder: Path
) -> None:
    a = kit.rucio.add_xrootd_rse("A", xrootd, prefix=f"{folder.name}-a", fts=fts.url)
    b = kit.rucio.add_xrootd_rse("B", other_xrootd, prefix=f"{folder.name}-b", fts=fts.url)
    kit.rucio.connect(a, b)
    stored = kit.rucio.upload(a, "file", CONTENT)
    rule_id = kit.rucio.add_rule(stored.did, "B")
    kit.run()  # the replica on its way is expected, no more
    daemons.move(fts)
    kit.run()
    assert kit.events() == [("CREATE", "A"), ("COPY", "B")]
    create, copy = (s.trace.statement for s in kit.traces())
    assert copy.source is not None
    assert (copy.source.rse, copy.source.trace) == ("A", create.event_id)
    assert copy.cause is not None
    assert (copy.cause.rule, copy.cause.tool) == (rule_id, "fts3")
    assert kit.outbox == []


def test_the_mock_tool_calls_a_replica_available_and_we_notice(kit: Kit) -> None:
    """Rucio's own transfer tool for tests moves no bytes at all."""
    from rucio.daemons.conveyor.poller import poller
    from rucio.daemons.conveyor.submitter import submitter

    a, b = (kit.rucio.add_posix_rse(name) for name in ("A", "B"))
    kit.rucio.connect(a, b)
    kit.rucio.upload(b, "witness", CONTENT)
    stored = kit.rucio.upload(a, "file", CONTENT)
    kit.rucio.add_rule(stored.did, "B")
    submitter(once=True, rses=[], partition_wait_time=0, transfertools=["mock"])
    poller(once=True, older_than=0, partition_wait_time=0, transfertool="mock")
    time.sleep(1.1)
    daemons.finish()
    assert kit.rucio.replica_states(stored.did) == {"A": "A", "B": "A"}
    kit.run()
    assert kit.events("file") == [("CREATE", "A")]
    [row] = kit.outbox
    assert "no such file" in row.last_error
    kit.age(timedelta(hours=2))
    kit.run()
    assert kit.events("file") == [("CREATE", "A"), ("LOST", "B")]
    product = kit.product("file")
    assert product is not None
    assert product.status == "DEGRADED"


def test_a_deletion_by_the_reaper_says_who_removed_which_rule(kit: Kit) -> None:
    from rucio.gateway.rule import delete_replication_rule

    rucio = kit.rucio
    sys.modules.pop("rucio_trace_policy.permission", None)
    rucio.configure(policy={"package": "rucio_trace_policy"})
    rse = rucio.add_posix_rse("DISK")
    stored = rucio.upload(rse, "file", CONTENT)
    rule_id = rucio.add_rule(stored.did, "DISK")
    kit.run()
    delete_replication_rule(rule_id=rule_id, purge_replicas=None, issuer="root")
    rucio_daemons.end_rule(rucio, rule_id)
    rucio_daemons.judge_cleaner()
    rucio_daemons.end_tombstones(rucio)
    daemons.reap("DISK")
    assert not stored.path.exists()
    kit.run(accounts="keep")
    assert kit.events() == [("CREATE", "DISK"), ("DELETE", "DISK")]
    cause = kit.traces()[-1].trace.statement.cause
    assert cause is not None
    assert (cause.account, cause.action, cause.rule) == ("root", "del_rule", rule_id)
    assert kit.outbox == []
