"""The recorder on a Rucio on MariaDB: the life of a file, workers side by side, and death in between."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import test_recorder as life
import test_recorder_faults as faults
import test_recorder_seams as seams

if TYPE_CHECKING:
    from recorder_kit import Declaring
    from rucio_trace_sandbox.embedded import EmbeddedRucio
    from rucio_trace_sandbox.storage import Rse


@pytest.fixture
def rucio(rucio_mariadb: EmbeddedRucio) -> EmbeddedRucio:
    return rucio_mariadb


kit = seams.kit
rses = seams.rses
both = faults.both
there = life.there


@pytest.fixture
def here(request: pytest.FixtureRequest) -> Rse:
    kit: Declaring = request.getfixturevalue("both" if "both" in request.fixturenames else "kit")
    return kit.rucio.add_posix_rse("HERE")


test_create = life.test_an_upload_is_signed_as_create
test_shown = life.test_the_status_is_shown_in_rucio
test_copy = life.test_a_transfer_is_signed_as_copy_and_says_what_brought_it
test_degraded = life.test_a_bad_copy_degrades_the_product
test_deleted = life.test_a_traced_replica_that_goes_leaves_delete
test_lost = faults.test_a_file_missing_twice_an_hour_apart_is_lost
test_side_by_side = faults.test_workers_side_by_side_share_the_work_without_a_clash


@pytest.mark.parametrize("seam", ["claiming", "keeping", "registered", "finishing", "postponing"])
def test_killed_at_a_seam_nothing_is_lost_and_nothing_doubled(kit: Declaring, rses: list[Rse], seam: str) -> None:
    seams.test_killed_at_any_seam_nothing_is_lost_and_nothing_doubled(kit, rses, seam)
