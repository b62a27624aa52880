"""The metadata plugin on MariaDB, and the producer's own trace."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import test_metadata_plugin as plugin
import test_recorder_origin as told
import test_trace_origin as origin
from rucio_trace_policy import origins

if TYPE_CHECKING:
    from rucio_trace_sandbox.embedded import EmbeddedRucio


@pytest.fixture
def rucio(rucio_mariadb: EmbeddedRucio) -> EmbeddedRucio:
    return rucio_mariadb


shown = plugin.shown
many = plugin.many
server = origin.server
client = origin.client
kit = told.kit
one = told.one

test_keys = plugin.test_a_proven_product_shows_its_keys
test_pending = plugin.test_a_file_whose_trace_is_still_to_come_is_pending
test_old = plugin.test_an_old_file_is_pending_once_a_change_of_it_waits
test_filters = plugin.test_filters_find_by_equality_comparison_and_wildcard
test_pages = plugin.test_limit_and_offset_page_through_a_filters_files
test_written_before = plugin.test_a_key_written_before_we_came_does_not_win
test_asked = plugin.test_a_policy_can_ask_whether_a_file_is_proven
test_taken = origin.test_a_producers_trace_is_taken_once_shown_and_kept_as_it_was_signed
test_replayed = origin.test_a_replayed_one_is_refused
test_at_once = origin.test_of_two_at_once_one_wins_and_the_other_is_told
test_one_for_two = origin.test_of_two_files_that_want_one_trace_at_once_one_gets_it
test_registered = told.test_it_is_registered_as_it_was_signed_and_the_first_look_confirms_it
test_heard = told.test_a_word_that_comes_while_the_bytes_are_read_is_heard


def test_two_uploads_at_once_that_bring_their_traces_along_do_not_wait_for_each_other(
    server: origin.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rucio.gateway.replica import add_replicas

    both = threading.Barrier(2)
    keep = origins._keep

    def keep_and_wait(*arguments: Any) -> None:
        keep(*arguments)
        both.wait(20)  # the replica, and with it the trigger's row, comes afterwards

    monkeypatch.setattr(origins, "_keep", keep_and_wait)

    def upload(name: str) -> None:
        file = server.file(name, meta={"trace_origin": origin.text_of(server.trace(name))})
        add_replicas("DISK", [file], issuer="root")

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(upload, ("one", "two")))
    assert server.shown("one")
    assert server.shown("two")


def test_rucios_own_json_metadata_works_as_before(rucio: EmbeddedRucio) -> None:
    plugin.test_rucios_own_json_metadata_works_as_before(rucio)
