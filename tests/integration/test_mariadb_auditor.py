"""The auditor on a Rucio on MariaDB: rounds, a bad file declared and healed, and two auditors at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import test_auditor as rounds
import test_auditor_heals as heals
import test_auditor_seams as seams
from auditor_kit import flip, names_of
from test_alarms import told

if TYPE_CHECKING:
    from auditor_kit import AuditKit
    from rucio_trace_sandbox.embedded import EmbeddedRucio
    from rucio_trace_sandbox.fts import FtsStandIn
    from rucio_trace_sandbox.storage import Rse


@pytest.fixture
def rucio(rucio_mariadb: EmbeddedRucio) -> EmbeddedRucio:
    return rucio_mariadb


@pytest.fixture
def shared(kit: AuditKit) -> AuditKit:
    return kit


kit = heals.kit
two = heals.two
here = rounds.here

test_oldest_first = rounds.test_three_rounds_with_a_budget_of_a_third_read_all_once_the_oldest_first
test_mount_point = rounds.test_a_storage_with_nothing_mounted_opens_the_breaker_and_loses_nothing
test_healed = heals.test_a_flipped_bit_becomes_a_fresh_copy
test_side_by_side = seams.test_two_auditors_share_a_round_and_read_nothing_twice


def test_a_round_ends_with_what_is_good_signed_and_what_is_bad_declared(
    kit: AuditKit, two: tuple[Rse, Rse], fts: FtsStandIn
) -> None:
    a, b = two
    heals.replicate(kit, fts, a, "file", "other")
    flip(kit.rucio.pfn_path(b, "file"))
    kit.start("B", every=86_400)
    kit.audit(declare=True)
    kit.run()
    kit.audit(declare=True)
    [round_] = kit.rounds
    assert (round_.good, round_.bad, round_.unread, round_.ended_at is not None) == (1, 1, 0, True)
    assert names_of(kit.lines()) == ["other"]
    assert kit.bad_replicas() == {"file": 1}
    assert [alarm["kind"] for alarm in told(kit.rucio)] == ["CORRUPT"]
