"""Replicas that nobody reads: what is signed of them is what Rucio had FTS compare, and no more."""

from __future__ import annotations

import hashlib
import time
import zlib
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from recorder_kit import Kit
from rucio_trace_sandbox import daemons

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rucio_trace_sandbox.embedded import EmbeddedRucio
    from rucio_trace_sandbox.fts import FtsStandIn

CONTENT = b"the bytes of a product" * 1000
SUMS = {"ADLER32": f"{zlib.adler32(CONTENT):08x}", "MD5": hashlib.md5(CONTENT).hexdigest()}  # noqa: S324


@pytest.fixture
def kit(rucio_sqlite: EmbeddedRucio) -> Iterator[Kit]:
    kit = Kit(rucio_sqlite)
    yield kit
    kit.close()


def moved(kit: Kit, fts: FtsStandIn, *stations: dict[str, Any]) -> None:
    """Rucio's own daemons have a product go from the first of RSEs with these attributes to the last."""
    from rucio.daemons.conveyor.submitter import submitter

    attributes = [{"fts": fts.url, "trace_method": "transfer"} | station for station in stations]
    attributes[0]["trace_method"] = "read"
    rses = [kit.rucio.add_posix_rse(name, **more) for name, more in zip("ABCD", attributes, strict=False)]
    for source, destination in pairwise(rses):
        kit.rucio.connect(source, destination)
    stored = kit.rucio.upload(rses[0], "file", CONTENT)
    kit.run()
    kit.rucio.add_rule(stored.did, rses[-1].name)
    submitter(once=True, rses=[], partition_wait_time=0, group_bulk=10)  # by ones, only the first hop is submitted
    fts.wait()
    daemons.poll()
    for _ in pairwise(rses):  # the finisher takes a hop once the one before it is finished
        time.sleep(1.1)  # it leaves alone what changed within the last second
        daemons.finish()
    assert set(kit.rucio.replica_states(stored.did).values()) == {"A"}
    kit.run()


@pytest.mark.parametrize(
    ("source", "destination", "algorithm"),
    [
        ({}, {}, "ADLER32"),
        ({"verify_checksum": False}, {}, "ADLER32"),
        ({"supported_checksums": "md5"}, {}, "MD5"),
        ({"supported_checksums": "md5"}, {"supported_checksums": "adler32"}, "ADLER32"),
        ({}, {"verify_checksum": False}, None),
        ({}, {"supported_checksums": "none"}, None),
    ],
    ids=["both", "target", "common", "nothing common", "source alone", "none supported"],
)
def test_what_is_signed_is_what_fts_was_told_to_compare(
    kit: Kit, fts: FtsStandIn, source: dict[str, Any], destination: dict[str, Any], algorithm: str | None
) -> None:
    moved(kit, fts, source, destination)
    [job] = fts.jobs.values()
    told = job.files[0].checksum if job.params["verify_checksum"] in ("both", "target") else None
    assert told == (f"{algorithm}:{SUMS[algorithm]}" if algorithm else None)
    if algorithm is None:
        assert kit.events() == [("CREATE", "A")]
        assert "compared none" in kit.outbox[-1].last_error
        return
    assert kit.events()[1:] == [("COPY", "B")]
    copy = kit.traces()[-1].trace.statement
    assert (copy.method, copy.hashes, copy.observed) == ("transfer", {algorithm: SUMS[algorithm]}, None)
    assert kit.replicas("file") == {"A": "proven", "B": "waiting"}


@pytest.mark.parametrize(
    ("between", "signed"), [({}, {"B", "C"}), ({"verify_checksum": False}, set())], ids=["all compare", "one does not"]
)
def test_over_several_hops_the_weakest_decides(
    kit: Kit, fts: FtsStandIn, between: dict[str, Any], signed: set[str]
) -> None:
    moved(kit, fts, {}, {"available_for_multihop": True} | between, {})
    [job] = fts.jobs.values()
    assert job.type == "H"
    assert job.params["verify_checksum"] == ("both" if signed else "none")
    assert {rse for event, rse in kit.events() if event == "COPY"} == signed


def test_a_transfer_of_other_bytes_than_the_origins_is_not_signed(kit: Kit) -> None:
    here = kit.rucio.add_posix_rse("HERE")
    tape = kit.rucio.add_posix_rse("TAPE", trace_method="transfer")
    kit.rucio.upload(here, "file", CONTENT)
    kit.run()
    kit.copy(here, tape, "file", adler32="00000001")
    kit.run()
    assert kit.events() == [("CREATE", "HERE")]
    assert "another checksum" in kit.outbox[-1].last_error


def test_a_tool_that_compares_by_digests_nobody_knows_proves_nothing(kit: Kit) -> None:
    here = kit.rucio.add_posix_rse("HERE")
    tape = kit.rucio.add_posix_rse("TAPE", trace_method="transfer")
    kit.rucio.upload(here, "file", CONTENT)
    kit.run()
    kit.copy(here, tape, "file", transfertool="globus")
    kit.run()
    assert kit.events() == [("CREATE", "HERE")]
    assert "one by globus that compared none" in kit.outbox[-1].last_error
