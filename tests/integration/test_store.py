"""The trace store, on SQLite and on PostgreSQL."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from samples import START, digest, trace

from rucio_trace.statement import Content
from rucio_trace.store import Outcome, Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database: the test runs on SQLite, then on PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'traces.db'}"
    return str(request.getfixturevalue("postgres_database"))


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with Store.open(url) as store:
        yield store


def test_a_registered_trace_comes_back_as_it_was(store: Store) -> None:
    made = trace(contents=(Content("b", digest("b")), Content("a", digest("a"))))
    (answer,) = store.register([made], trust=None)
    (found,) = store.by_id(made.id)
    assert (answer.id, answer.position, answer.outcome) == (made.id, 1, Outcome.STORED)
    assert found.trace == made
    assert found.position == answer.position
    assert abs(found.registered_at - START) < timedelta(days=11)


def test_registering_again_is_known_and_changes_nothing(store: Store) -> None:
    made = trace()
    first = store.register([made], trust=None)
    again = store.register([made, made], trust=None)
    assert [(a.outcome, a.position) for a in again] == [(Outcome.KNOWN, first[0].position)] * 2
    assert store.position() == 1
