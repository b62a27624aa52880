"""Gaps and their mending on a Rucio on MariaDB, where the two sides keep text in different character sets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import test_gaps as gaps

if TYPE_CHECKING:
    from rucio_trace_sandbox.embedded import EmbeddedRucio


@pytest.fixture
def rucio(rucio_mariadb: EmbeddedRucio) -> EmbeddedRucio:
    return rucio_mariadb


here = gaps.here
kit = gaps.kit

test_adopted = gaps.test_replicas_without_a_trace_are_adopted_once
test_pages = gaps.test_a_search_goes_on_where_a_page_ends
test_gone = gaps.test_what_went_away_unseen_is_signed_as_delete
test_differs = gaps.test_a_catalogue_that_was_changed_has_its_replica_read_again
test_dead = gaps.test_the_status_of_a_dead_did_is_removed
