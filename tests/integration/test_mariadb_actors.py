"""Who acts, on MariaDB: variables of a session that others use next, so nothing may be left in them."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
import test_policy_actors as promises
from sqlalchemy import text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rucio_trace_sandbox.embedded import EmbeddedRucio


@pytest.fixture
def rucio(rucio_mariadb: EmbeddedRucio) -> EmbeddedRucio:
    return rucio_mariadb


named = promises.named

test_upload = promises.test_an_upload_names_its_account_in_both_steps
test_by_itself = promises.test_what_rucio_does_by_itself_names_nobody
test_nested = promises.test_of_nested_questions_the_first_that_writes_counts
test_released = promises.test_a_released_savepoint_does_not_end_the_naming
test_rolled_back = promises.test_a_savepoint_rolled_back_does_not_end_the_naming
test_goes_on = promises.test_a_session_that_goes_on_after_its_commit_names_nobody
test_refused = promises.test_an_action_that_cannot_be_noted_is_refused_with_a_reason
test_reduced = promises.test_a_reduced_rule_names_its_account_though_the_site_knows_no_such_action
test_reaper = promises.test_a_deletion_by_the_reaper_names_who_removed_the_rule
test_did_not_end = promises.test_a_request_that_did_not_end_the_rule_does_not_count
test_erased = promises.test_an_erased_dataset_names_who_erased_it
test_forgotten = promises.test_who_asked_is_forgotten_a_day_later_once_no_deletion_can_need_it


@pytest.fixture
def one_connection(named: EmbeddedRucio) -> Iterator[EmbeddedRucio]:
    """Every request gets the same session of the database."""
    named.configure(database={"pool_size": 1, "max_overflow": 0})
    yield named
    named.configure(database={"pool_size": 10, "max_overflow": 20})


def _has_permission(rucio: EmbeddedRucio, session: Any) -> None:
    from rucio.core.permission import has_permission

    assert has_permission(rucio.root, "add_replicas", {"rse": "DISK"}, session=session)


def _commit(session: Any) -> None:
    session.commit()


def _roll_back(session: Any) -> None:
    session.rollback()


def _leave(session: Any) -> None:
    session.close()


def _fail(session: Any) -> None:
    with pytest.raises(Exception, match="no_such_table"):
        session.execute(text("SELECT * FROM no_such_table"))
    session.rollback()


def _deadlock(session: Any) -> None:
    """The server takes back the whole transaction by itself, and keeps the variables."""
    with pytest.raises(Exception, match="1213"):
        session.execute(text("BEGIN NOT ATOMIC SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 1213; END"))
    session.close()


@pytest.mark.parametrize("end", [_commit, _roll_back, _leave, _fail, _deadlock])
def test_nobody_is_named_after_a_transaction_however_it_ended(one_connection: EmbeddedRucio, end: Any) -> None:
    from rucio.db.sqla.session import get_session

    rucio = one_connection
    session = get_session()()
    _has_permission(rucio, session)
    variable = text("SELECT CONNECTION_ID(), @traceability_account, @traceability_action")
    before = session.execute(variable).one()
    assert before[1:] == ("root", "add_replicas")
    end(session)
    session.close()
    with rucio.engine.connect() as connection:
        assert connection.execute(variable).one() == (before[0], None, None)


def test_a_connection_that_broke_is_not_used_again(one_connection: EmbeddedRucio) -> None:
    from rucio.db.sqla.session import get_session

    rucio = one_connection
    session = get_session()()
    _has_permission(rucio, session)
    number = session.scalar(text("SELECT CONNECTION_ID()"))
    session.connection().connection.driver_connection._force_close()
    session.rollback()
    session.close()
    with rucio.engine.connect() as connection:
        row = connection.execute(text("SELECT CONNECTION_ID(), @traceability_account")).one()
    assert row[0] != number
    assert row[1] is None


def test_two_hundred_requests_on_a_few_connections_do_not_mix(named: EmbeddedRucio) -> None:
    """Half of them name their account and commit, half roll back; between them Rucio acts by itself."""
    from rucio.core.permission import has_permission

    named.configure(database={"pool_size": 3, "max_overflow": 0})
    rse = named.add_posix_rse("DISK")
    accounts = [f"user{n}" for n in range(4)]
    for account in accounts:
        promises.add_account(named, account)
    failures: list[Exception] = []

    def work(number: int) -> None:
        from rucio.common.types import InternalAccount

        try:
            for n in range(number, 200, 8):
                with named.session() as session:
                    if n % 2:
                        account = InternalAccount(accounts[n % 4])
                        has_permission(account, "add_replicas", {"rse": "DISK"}, session=session)
                    if n % 4 == 3:
                        session.rollback()
                    promises._add_in(named, rse, session, f"file{n}")
        except Exception as error:  # noqa: BLE001 of another thread, for this one to see
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    found = {row.name: row.account for row in promises.outbox(named)}
    assert found == {f"file{n}": "user1" if n % 4 == 1 else None for n in range(200)}
    named.configure(database={"pool_size": 10, "max_overflow": 20})
