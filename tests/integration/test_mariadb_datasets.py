"""Datasets on a Rucio on MariaDB: their life, the order of their list, and death in between."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import test_recorder_datasets as datasets

if TYPE_CHECKING:
    from rucio_trace_sandbox.embedded import EmbeddedRucio


@pytest.fixture
def rucio(rucio_mariadb: EmbeddedRucio) -> EmbeddedRucio:
    return rucio_mariadb


kit = datasets.kit
here = datasets.here

test_life = datasets.test_a_dataset_closed_opened_and_closed_again
test_detached = datasets.test_a_file_detached_from_a_closed_dataset_withdraws_its_list
test_listed = datasets.test_rucio_lists_datasets_by_their_status
test_seams = datasets.test_killed_at_any_seam_each_row_of_a_dataset_ends_once
