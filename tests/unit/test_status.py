"""What a history amounts to: the status of a product and of its replicas."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import HOUR, START, batch_statement, line, product, stored, unsigned

from rucio_trace.envelope import Trace
from rucio_trace.statement import Event
from rucio_trace.status import ProductStatus, ReplicaStatus, State, Status, left_after, product_status
from rucio_trace.store.records import BatchLine

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from rucio_trace.store.records import Stored


class Story:
    """A history as it is written: each event an hour after the last, in the next position."""

    def __init__(self) -> None:
        self.history: list[Stored] = []

    def then(self, event: Event, rse: str | None = "RSE-A", **fields: Any) -> Stored:
        number = len(self.history) + 1
        made = unsigned(event, rse=rse, **({"after": number * HOUR} | fields))
        self.history.append(stored(made, number))
        return self.history[-1]

    def revoke(self, target: Stored) -> Stored:
        return self.then(Event.REVOKE, None, revokes=target.id)

    @property
    def status(self) -> ProductStatus:
        return product_status(self.history, str)


@pytest.fixture
def story() -> Story:
    return Story()


def proven(rse: str, story: Story) -> bool:
    return story.status.replicas[rse].state is State.PROVEN


def test_no_traces_prove_nothing() -> None:
    status = product_status([], str)
    assert (status.status, status.trace_replicas, status.position) == (Status.PENDING, "0/0", 0)
    assert status.origin is None
    assert status.verified_at is None


def test_a_created_replica_makes_the_product_genuine(story: Story) -> None:
    create = story.then(Event.CREATE)
    assert (story.status.status, story.status.trace_replicas) == (Status.GENUINE, "1/1")
    assert story.status.origin is create
    assert story.status.replicas["RSE-A"].trace_id == create.id
    assert story.status.verified_at == START + HOUR


def test_a_proof_dates_from_when_the_bytes_were_read(story: Story) -> None:
    observed = START + timedelta(hours=20)
    story.then(Event.CREATE, observed=observed.strftime("%Y-%m-%dT%H:%M:%S.%fZ"))
    assert story.status.verified_at == observed


@pytest.mark.parametrize("event", [Event.CORRUPT, Event.LOST])
def test_a_bad_replica_beside_a_good_one_degrades_the_product(story: Story, event: Event) -> None:
    story.then(Event.CREATE)
    story.then(Event.COPY, "RSE-B")
    bad = story.then(event, "RSE-B")
    assert (story.status.status, story.status.trace_replicas) == (Status.DEGRADED, "1/2")
    assert story.status.replicas["RSE-B"].trace_id == bad.id
    assert story.status.replicas["RSE-B"].proven_at == START + 2 * HOUR  # last known good


def test_when_no_good_copy_is_left_the_product_is_tampered(story: Story) -> None:
    story.then(Event.CREATE)
    story.then(Event.CORRUPT)
    assert (story.status.status, story.status.trace_replicas) == (Status.TAMPERED, "0/1")
    assert story.status.verified_at is None


def test_a_bad_replica_read_again_and_found_good_is_good(story: Story) -> None:
    story.then(Event.CREATE)
    story.then(Event.CORRUPT)
    story.then(Event.VERIFY)
    assert story.status.status is Status.GENUINE


def test_deleting_the_bad_replica_heals_the_product(story: Story) -> None:
    story.then(Event.CREATE)
    story.then(Event.CORRUPT, "RSE-B")
    story.then(Event.DELETE, "RSE-B")
    assert (story.status.status, story.status.trace_replicas) == (Status.GENUINE, "1/1")


def test_a_product_with_no_replica_left_is_pending(story: Story) -> None:
    story.then(Event.CREATE)
    story.then(Event.DELETE)
    assert (story.status.status, story.status.trace_replicas) == (Status.PENDING, "0/0")


def test_a_late_look_at_a_deleted_replica_revives_nothing(story: Story) -> None:
    story.then(Event.CREATE)
    story.then(Event.COPY, "RSE-B")
    story.then(Event.DELETE, "RSE-B")
    story.then(Event.CORRUPT, "RSE-B")
    assert (story.status.status, story.status.trace_replicas) == (Status.GENUINE, "1/1")
    story.then(Event.COPY, "RSE-B")
    assert story.status.trace_replicas == "2/2"


@pytest.mark.parametrize("method", ["transfer", "none"])
def test_a_copy_nobody_read_is_waiting(story: Story, method: str) -> None:
    story.then(Event.CREATE)
    story.then(Event.COPY, "TAPE", method=method)
    assert (story.status.status, story.status.trace_replicas) == (Status.GENUINE, "1/2")
    assert story.status.replicas["TAPE"].state is State.WAITING
    assert story.status.replicas["TAPE"].proven_at is None


def test_a_cached_answer_never_moves_the_last_proof(story: Story) -> None:
    create = story.then(Event.CREATE)
    story.then(Event.VERIFY, method="transfer")
    assert story.status.replicas["RSE-A"].trace_id == create.id
    assert story.status.verified_at == START + HOUR


def test_new_bytes_have_yet_to_be_proven(story: Story) -> None:
    story.then(Event.CREATE)
    story.then(Event.CORRUPT)
    story.then(Event.COPY, method="transfer")
    assert story.status.replicas["RSE-A"].state is State.WAITING
    assert story.status.replicas["RSE-A"].proven_at is None
    assert story.status.status is Status.PENDING


def test_a_bad_replica_beside_a_waiting_one_is_not_the_end(story: Story) -> None:
    story.then(Event.CREATE)
    story.then(Event.COPY, "TAPE", method="transfer")
    story.then(Event.LOST)
    assert story.status.status is Status.PENDING


def test_an_obsolete_product_says_so_until_that_is_withdrawn(story: Story) -> None:
    story.then(Event.CREATE)
    obsolete = story.then(Event.OBSOLETE, None)
    assert story.status.status is Status.OBSOLETE
    undo = story.revoke(obsolete)
    assert story.status.status is Status.GENUINE
    story.revoke(undo)
    assert story.status.status is Status.OBSOLETE


def test_a_withdrawn_creation_revokes_the_product_until_that_is_undone(story: Story) -> None:
    create = story.then(Event.CREATE)
    story.then(Event.COPY, "RSE-B")
    revoke = story.revoke(create)
    assert story.status.status is Status.REVOKED
    story.revoke(revoke)
    assert (story.status.status, story.status.trace_replicas) == (Status.GENUINE, "2/2")


def test_a_withdrawn_deletion_never_happened(story: Story) -> None:
    story.then(Event.CREATE)
    deletion = story.then(Event.DELETE)
    story.revoke(deletion)
    assert story.status.trace_replicas == "1/1"


def test_two_producers_who_disagree_dispute_the_product_until_one_gives_in(story: Story) -> None:
    story.then(Event.CREATE, None)
    other = story.then(Event.CREATE, None, bytes_of="other")
    story.then(Event.COPY)
    assert story.status.status is Status.DISPUTED
    story.revoke(other)
    assert story.status.status is Status.GENUINE


def test_a_producer_s_word_goes_before_what_was_read_first(story: Story) -> None:
    story.then(Event.COPY, bytes_of="what arrived")
    assert story.status.status is Status.GENUINE
    word = story.then(Event.CREATE, None, bytes_of="what was made")
    assert story.status.origin is word
    assert story.status.replicas["RSE-A"].state is State.CORRUPT
    assert story.status.status is Status.TAMPERED


def test_a_producer_and_a_site_whose_creations_differ_dispute_the_product(story: Story) -> None:
    observed = story.then(Event.CREATE, bytes_of="what arrived")
    word = story.then(Event.CREATE, None, bytes_of="what was made")
    assert story.status.status is Status.DISPUTED
    assert story.status.origin is None
    assert story.status.replicas["RSE-A"].state is State.WAITING
    story.revoke(observed)
    assert story.status.origin is word


def test_a_renamed_rse_is_still_one_replica(story: Story) -> None:
    story.then(Event.CREATE, "OLD-NAME")
    story.then(Event.VERIFY, "NEW-NAME")
    status = product_status(story.history, lambda _name: "the id")
    assert list(status.replicas) == ["the id"]
    assert status.trace_replicas == "1/1"


def test_a_clock_set_back_does_not_turn_the_order_of_one_site(story: Story) -> None:
    story.then(Event.CREATE, "RSE-B")
    story.then(Event.COPY, after=10 * HOUR)
    story.then(Event.DELETE, after=2 * HOUR)
    assert "RSE-A" not in story.status.replicas
    story.then(Event.COPY, after=1 * HOUR)
    assert proven("RSE-A", story)


def test_between_sites_the_times_of_the_events_decide(story: Story) -> None:
    story.then(Event.CREATE, "RSE-B")
    story.then(Event.CORRUPT, after=10 * HOUR, site="AUDITOR")
    story.then(Event.COPY, after=5 * HOUR)  # kept waiting in an outbox and registered late
    assert story.status.replicas["RSE-A"].state is State.CORRUPT


def test_several_products_have_no_status_together(story: Story) -> None:
    story.then(Event.CREATE)
    other = stored(unsigned(Event.CREATE, product(2)), 2)
    with pytest.raises(ValueError, match="one product"):
        product_status([*story.history, other], str)


# ---------------------------------------------------------------------------------- for any history

EVENTS = st.tuples(
    st.sampled_from(list(Event)),
    st.sampled_from(["RSE-A", "RSE-B", "RSE-C"]),
    st.integers(0, 6),  # hours: clocks step back, and stand still
    st.sampled_from(["SITE", "OTHER-SITE"]),
    st.sampled_from(["read", "storage", "transfer", "none"]),
    st.sampled_from(["", "", "", "other bytes"]),
    st.integers(0, 20),
)


@st.composite
def histories(draw: st.DrawFn) -> Sequence[Stored]:
    story = Story()
    for event, rse, hours, site, method, content, target in draw(st.lists(EVENTS, max_size=12)):
        fields: dict[str, Any] = {"after": hours * HOUR, "site": site, "bytes_of": content}
        if event is Event.REVOKE:
            if story.history:
                story.then(event, None, revokes=story.history[target % len(story.history)].id, **fields)
        elif event is Event.OBSOLETE:
            story.then(event, None, **fields)
        else:
            story.then(event, rse, method=method, **fields)
    return story.history


@settings(max_examples=200, deadline=None)
@given(histories(), st.randoms(use_true_random=False))
def test_the_order_of_a_history_never_matters(history: Sequence[Stored], shuffler: random.Random) -> None:
    shuffled = list(history)
    shuffler.shuffle(shuffled)
    assert product_status(shuffled, str) == product_status(history, str)


@settings(max_examples=100, deadline=None)
@given(histories())
def test_what_is_withdrawn_and_restored_leaves_no_mark(history: Sequence[Stored]) -> None:
    before = product_status(history, str)
    for target in history:
        story = Story()
        story.history = list(history)
        story.revoke(story.revoke(target))
        after = product_status(story.history, str)
        assert (after.status, after.replicas) == (before.status, before.replicas)


@settings(max_examples=100, deadline=None)
@given(histories())
def test_a_status_fits_its_replicas(history: Sequence[Stored]) -> None:
    status = product_status(history, str)
    states = [replica.state for replica in status.replicas.values()]
    assert status.proven == states.count(State.PROVEN) <= status.total == len(states)
    if status.status in (Status.GENUINE, Status.DEGRADED):
        assert status.origin is not None
        assert status.verified_at is not None
        assert (status.status is Status.DEGRADED) == bool({State.CORRUPT, State.LOST} & set(states))
    if status.status is Status.TAMPERED:
        assert states
        assert not {State.PROVEN, State.WAITING} & set(states)
    if status.status is Status.PENDING:
        assert not status.proven


def left(story: Story) -> list[tuple[int, int, bool]]:
    return [(found.proven, found.waiting, found.last) for _, found in sorted(left_after(story.history, str).items())]


def test_what_was_left_is_told_of_each_copy_that_went(story: Story) -> None:
    story.then(Event.CREATE)
    story.then(Event.COPY, "RSE-B")
    story.then(Event.CORRUPT, "RSE-B")
    story.then(Event.DELETE, "RSE-A")
    story.then(Event.DELETE, "RSE-B")  # which was not good any more
    assert left(story) == [(1, 0, False), (0, 0, True), (0, 0, False)]


def test_a_copy_that_nobody_has_read_may_still_be_good(story: Story) -> None:
    story.then(Event.CREATE)
    story.then(Event.COPY, "TAPE", method="none", observed=None)
    story.then(Event.LOST)
    story.then(Event.DELETE, "TAPE")
    assert left(story) == [(0, 1, False), (0, 0, True)]


def test_the_deletion_of_a_copy_nobody_had_looked_at_may_be_that_of_the_last(story: Story) -> None:
    story.then(Event.DELETE, "RSE-B", unobserved=True, method=None)
    assert left(story) == [(0, 0, True)]


def test_a_copy_that_came_corrupt_was_never_the_last(story: Story) -> None:
    story.then(Event.CORRUPT)
    assert left(story) == [(0, 0, False)]


def test_a_withdrawn_deletion_left_everything(story: Story) -> None:
    story.then(Event.CREATE)
    wrong = story.then(Event.DELETE)
    undo = story.revoke(wrong)
    assert left(story) == []
    story.revoke(undo)
    assert left(story) == [(0, 0, True)]


# ------------------------------------------------------------------------------- lines of batches


def a_line(position: int, *, after: timedelta, rse: str = "RSE-A", stands: bool = True, **of: Any) -> BatchLine:
    """A line registered at *position*; its bytes were read *after* the start."""
    one = line(after=after, **of)
    made = Trace(
        statement=batch_statement([one], rse=rse, signer="0" * 64), message="{}", signature=b"", certificate=b""
    )
    return BatchLine(stored(made, position), one, 0, position, stands)


def with_lines(story: Story, *lines: BatchLine) -> ProductStatus:
    return product_status(story.history, str, lines)


def test_a_line_moves_the_last_proof(story: Story) -> None:
    story.then(Event.CREATE)
    status = with_lines(story, found := a_line(2, after=5 * HOUR))
    assert status.replicas["RSE-A"] == ReplicaStatus(State.PROVEN, found.batch.id, START + 5 * HOUR)
    assert (status.status, status.position, status.verified_at) == (Status.GENUINE, 2, START + 5 * HOUR)


def test_an_older_line_moves_nothing(story: Story) -> None:
    create = story.then(Event.CREATE, after=9 * HOUR)
    status = with_lines(story, a_line(2, after=5 * HOUR))
    assert status.replicas["RSE-A"] == ReplicaStatus(State.PROVEN, create.id, START + 9 * HOUR)
    assert status.position == 2


def test_a_line_registered_late_says_nothing_of_what_came_after_its_bytes_were_read(story: Story) -> None:
    story.then(Event.CREATE)
    story.then(Event.CORRUPT, after=6 * HOUR)
    assert with_lines(story, a_line(3, after=5 * HOUR)).replicas["RSE-A"].state is State.CORRUPT
    assert with_lines(story, a_line(3, after=7 * HOUR)).replicas["RSE-A"].state is State.PROVEN


def test_a_line_on_an_earlier_arrival_does_not_prove_the_present_one(story: Story) -> None:
    story.then(Event.CREATE)
    story.then(Event.DELETE, after=6 * HOUR)
    gone = with_lines(story, a_line(3, after=7 * HOUR))
    assert gone.replicas == {}
    story.then(Event.COPY, after=8 * HOUR, method="transfer", observed=None)
    assert with_lines(story, a_line(4, after=7 * HOUR)).replicas["RSE-A"].state is State.WAITING
    assert with_lines(story, a_line(4, after=9 * HOUR)).replicas["RSE-A"].state is State.PROVEN


def test_a_line_with_other_bytes_than_the_origin_is_corrupt(story: Story) -> None:
    story.then(Event.CREATE)
    status = with_lines(story, a_line(2, after=5 * HOUR, bytes_of="other"))
    assert (status.status, status.replicas["RSE-A"].state) == (Status.TAMPERED, State.CORRUPT)
    assert status.replicas["RSE-A"].proven_at == START + HOUR


def test_a_line_that_cannot_be_compared_says_nothing(story: Story) -> None:
    only_blake3 = {"hash_algorithm": "BLAKE3", "hash": "0" * 64}
    create = story.then(Event.CREATE, **only_blake3)
    assert with_lines(story, a_line(2, after=5 * HOUR)).replicas["RSE-A"].trace_id == create.id
    assert product_status([], str, [a_line(2, after=5 * HOUR)]).replicas == {}


def test_a_withdrawn_line_counts_for_nothing_but_the_position(story: Story) -> None:
    create = story.then(Event.CREATE)
    status = with_lines(story, a_line(7, after=5 * HOUR, stands=False))
    assert (status.replicas["RSE-A"].trace_id, status.position) == (create.id, 7)


def test_a_line_gives_no_origin(story: Story) -> None:
    story.then(Event.COPY, method="none", observed=None)
    status = with_lines(story, a_line(2, after=5 * HOUR))
    assert (status.origin, status.status) == (None, Status.PENDING)


@given(st.permutations(range(4)))
def test_the_order_of_lines_does_not_matter(order: list[int]) -> None:
    story = Story()
    story.then(Event.CREATE)
    lines = [a_line(2 + n, after=(3 + n) * HOUR, rse=("RSE-A", "RSE-B")[n % 2]) for n in range(4)]
    assert with_lines(story, *(lines[n] for n in order)) == with_lines(story, *lines)
