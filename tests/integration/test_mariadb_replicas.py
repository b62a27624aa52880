"""What Rucio does with replicas on MariaDB, and the rows of the outbox it leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import test_hooks_replicas as promises

if TYPE_CHECKING:
    from rucio_trace_sandbox.embedded import EmbeddedRucio


@pytest.fixture
def rucio(rucio_mariadb: EmbeddedRucio) -> EmbeddedRucio:
    return rucio_mariadb


hooked = promises.hooked
outbox_tells_the_table = promises.outbox_tells_the_table

test_row = promises.test_a_row_says_what_changed_where_and_when
test_ids = promises.test_added_replicas_leave_a_row_each_with_an_id_of_its_own
test_rule = promises.test_a_rule_makes_a_replica_that_is_being_copied
test_finished = promises.test_a_finished_transfer_makes_its_replica_available
test_declared_bad = promises.test_a_replica_declared_bad_is_bad
test_by_hand = promises.test_a_state_set_by_hand_is_recorded
test_reaper = promises.test_the_reaper_marks_and_deletes
test_undertaker = promises.test_the_undertaker_takes_away_a_dataset_and_the_reaper_its_files
test_no_row = promises.test_what_changes_no_state_leaves_no_row
test_again = promises.test_an_available_replica_called_available_again_leaves_no_row
test_rolled_back = promises.test_a_transaction_rolled_back_leaves_no_row
