"""What differs for a trace service whose store is on MariaDB: the index of words, counts, and its conditions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import test_service_find as find
import test_service_odata as odata
import test_service_verdicts as verdicts
from service_in_process import Asked, asked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def service(store_url_mariadb: str) -> Iterator[Asked]:
    with asked(store_url_mariadb) as service:
        yield service


@pytest.mark.parametrize(
    "test",
    [
        find.test_a_word_from_the_middle_of_a_name_finds_it,
        find.test_short_and_common_words_are_words,
        find.test_words_of_attributes_find_the_traces_that_hold_them,
        find.test_each_filter_leaves_the_others_out,
        find.test_many_are_found_at_once_oldest_first_and_in_portions,
        find.test_statistics_are_counted_as_traces_come,
        find.test_what_is_private_does_not_exist_for_others,
        odata.test_filters_hold_what_they_say,
        odata.test_order_pages_count_and_selection,
        verdicts.test_one_verdict_each_by_digest_name_and_did,
    ],
)
def test_it_is_the_same_on_mariadb(service: Asked, test: Callable[[Asked], None]) -> None:
    test(service)
