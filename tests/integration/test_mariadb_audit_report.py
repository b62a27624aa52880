"""What campaigns and their reports ask of the database, on MariaDB."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import test_audit_report as promises

if TYPE_CHECKING:
    from rucio_trace_sandbox.embedded import EmbeddedRucio


@pytest.fixture
def rucio(rucio_mariadb: EmbeddedRucio) -> EmbeddedRucio:
    return rucio_mariadb


audits = promises.audits

test_begun = promises.test_a_campaign_begins_where_something_can_be_audited_and_is_stopped_once
test_status = promises.test_status_tells_how_far_rounds_have_come_and_when_they_will_end
test_report = promises.test_a_report_counts_and_lists_what_is_proven_overdue_and_bad
