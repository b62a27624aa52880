"""Registration in groups: bounded, all or none of a request, and everyone gets their own answers."""

from __future__ import annotations

import asyncio
import threading
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from fastapi import Request
from rucio_trace_sandbox.processes import wait_until

from rucio_trace.config import Service as ServiceSettings
from rucio_trace.envelope import Trace
from rucio_trace.service.access import Access
from rucio_trace.service.app import Service
from rucio_trace.service.bodies import Bounded
from rucio_trace.service.intake import GROUP_TRACES, THREADS, Intake, registered
from rucio_trace.service.problems import BadRequest, Busy, TooLarge, Unavailable
from rucio_trace.statement import Event, Statement
from rucio_trace.store import Outcome, Registration, Store
from rucio_trace.store.errors import StoreUnavailable
from rucio_trace.store.register import Judged

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from starlette.types import Message, Receive, Scope, Send


def item(number: int) -> Judged:
    said = Statement(hash="", name="n", size=0, event=Event.CREATE, event_id=f"id-{number}")
    made = Trace(statement=said, message="{}", signature=b"", certificate=b"")
    return Judged(made, Registration(f"id-{number}", None, Outcome.REFUSED))


class Gate:
    """A store that waits to be opened, and notes which traces come together."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.groups: list[tuple[str | None, list[str]]] = []
        self.entered = threading.Semaphore(0)
        self.poison: dict[str, BaseException] = {}

    def register(self, items: Sequence[Judged], provider: str | None) -> list[Registration]:
        self.entered.release()
        assert self.open.wait(30)
        ids = [each.trace.id for each in items]
        self.groups.append((provider, ids))
        for id_ in ids:
            if id_ in self.poison:
                raise self.poison[id_]
        return [Registration(id_, 1, Outcome.STORED) for id_ in ids]


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def intake(gate: Gate) -> Iterator[Intake]:
    intake = Intake(gate.register, 5_000)
    yield intake
    gate.open.set()
    intake.close()


async def occupied(intake: Intake, gate: Gate) -> list[asyncio.Task[list[Registration]]]:
    """Every thread has something to do."""
    tasks = [asyncio.create_task(intake.register([item(1_000_000 + n)], f"P{n}")) for n in range(THREADS)]
    for _ in tasks:
        await asyncio.to_thread(gate.entered.acquire)
    return tasks


def test_what_waits_is_registered_at_once_and_each_gets_its_own_answers(intake: Intake, gate: Gate) -> None:
    async def main() -> list[list[Registration]]:
        first = await occupied(intake, gate)
        tasks = [asyncio.create_task(intake.register([item(2 * n), item(2 * n + 1)], "P")) for n in range(100)]
        await asyncio.sleep(0)
        gate.open.set()
        await asyncio.gather(*first)
        return await asyncio.gather(*tasks)

    answers = asyncio.run(main())
    assert [[each.id for each in some] for some in answers] == [[f"id-{2 * n}", f"id-{2 * n + 1}"] for n in range(100)]
    assert len(gate.groups) == THREADS + 1
    assert intake.held == 0


def test_traces_of_different_providers_never_come_together(intake: Intake, gate: Gate) -> None:
    async def main() -> None:
        first = await occupied(intake, gate)
        tasks = [asyncio.create_task(intake.register([item(n)], f"P{n % 2}")) for n in range(10)]
        await asyncio.sleep(0)
        gate.open.set()
        await asyncio.gather(*first, *tasks)

    asyncio.run(main())
    for provider, ids in gate.groups:
        assert {f"P{int(id_[3:]) % 2}" for id_ in ids} == {provider}


def test_a_large_request_is_taken_in_slices(intake: Intake, gate: Gate) -> None:
    gate.open.set()
    count = 2 * GROUP_TRACES + 1
    answers = asyncio.run(intake.register([item(n) for n in range(count)], "P"))
    assert [each.id for each in answers] == [f"id-{n}" for n in range(count)]
    assert sorted(len(ids) for _, ids in gate.groups) == [1, GROUP_TRACES, GROUP_TRACES]


def test_beyond_the_bound_nothing_of_a_request_is_queued(gate: Gate) -> None:
    told: list[int] = []
    intake = Intake(gate.register, 10, told.append)

    async def main() -> None:
        first = await occupied(intake, gate)
        waiting = asyncio.create_task(intake.register([item(n) for n in range(10 - THREADS)], "P"))
        await asyncio.sleep(0)
        assert intake.held == 10
        with pytest.raises(Busy):
            intake.check_room()
        with pytest.raises(Busy):
            await intake.register([item(100)], "P")
        with pytest.raises(TooLarge):
            await intake.register([item(n) for n in range(11)], "P")
        assert intake.held == 10
        gate.open.set()
        await asyncio.gather(*first, waiting)
        wait_until(lambda: intake.held == 0, "all answered")
        await intake.register([item(n) for n in range(10)], "P")

    asyncio.run(main())
    intake.close()
    assert (max(told), told[-1]) == (10, 0), "a gauge shows what waits, whoever reads it"
    assert not any("id-100" in ids for _, ids in gate.groups)


def test_of_no_traces_there_are_no_answers(intake: Intake) -> None:
    assert asyncio.run(intake.register([], "P")) == []


def test_when_the_store_does_not_answer_everyone_is_told(intake: Intake, gate: Gate) -> None:
    gate.open.set()
    gate.poison["id-1"] = StoreUnavailable("store", "gone")
    with pytest.raises(StoreUnavailable):
        asyncio.run(intake.register([item(n) for n in range(3)], "P"))
    gate.poison.clear()
    assert len(asyncio.run(intake.register([item(n) for n in range(3)], "P"))) == 3


def test_a_bug_that_one_request_meets_is_not_the_others(intake: Intake, gate: Gate) -> None:
    gate.poison["id-5"] = ZeroDivisionError()

    async def main() -> list[list[Registration] | BaseException]:
        first = await occupied(intake, gate)
        tasks = [asyncio.create_task(intake.register([item(n)], "P")) for n in range(10)]
        await asyncio.sleep(0)
        gate.open.set()
        await asyncio.gather(*first)
        return await asyncio.gather(*tasks, return_exceptions=True)

    answers = asyncio.run(main())
    assert [isinstance(each, ZeroDivisionError) for each in answers] == [n == 5 for n in range(10)]
    assert len(asyncio.run(intake.register([item(1)], "P"))) == 1, "the threads go on"


def test_closing_finishes_what_was_accepted_and_takes_no_more(gate: Gate) -> None:
    intake = Intake(gate.register, 100)

    async def main() -> list[Registration]:
        first = await occupied(intake, gate)
        waiting = asyncio.create_task(intake.register([item(n) for n in range(10)], "P"))
        await asyncio.sleep(0)
        closing = asyncio.create_task(asyncio.to_thread(intake.close))
        gate.open.set()
        await asyncio.gather(*first, closing)
        with pytest.raises(Unavailable):
            await intake.register([item(50)], "P")
        return await waiting

    assert len(asyncio.run(main())) == 10


def test_who_has_gone_away_is_not_waited_for(intake: Intake, gate: Gate) -> None:
    async def main() -> None:
        first = await occupied(intake, gate)
        gone = asyncio.create_task(intake.register([item(1)], "P"))
        stays = asyncio.create_task(intake.register([item(2)], "P"))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        gate.open.set()
        await asyncio.gather(*first)
        assert len(await stays) == 1

    asyncio.run(main())
    wait_until(lambda: intake.held == 0, "nothing held")


def test_a_small_request_is_read_when_its_turn_comes_and_costs_itself_alone_if_it_cannot_be(
    intake: Intake, gate: Gate
) -> None:
    read: list[int] = []

    def judge(number: int) -> list[Judged]:
        read.append(number)
        if number == 5:
            raise BadRequest("body", expected="traces", found="none")
        return [item(number), item(number + 100)]

    async def main() -> list[list[Registration] | BaseException]:
        first = await occupied(intake, gate)
        tasks = [asyncio.create_task(intake.register_unread(partial(judge, n), "P")) for n in range(10)]
        await asyncio.sleep(0)
        assert (read, intake.held) == ([], THREADS + 10)
        gate.open.set()
        await asyncio.gather(*first)
        return await asyncio.gather(*tasks, return_exceptions=True)

    answers = asyncio.run(main())
    assert isinstance(answers.pop(5), BadRequest)
    others = [n for n in range(10) if n != 5]
    assert [[each.id for each in some] for some in answers if isinstance(some, list)] == [
        [f"id-{n}", f"id-{n + 100}"] for n in others
    ]
    assert len(gate.groups) == THREADS + 1, "all the others at once"
    wait_until(lambda: intake.held == 0, "nothing held")


def test_what_small_requests_hold_is_registered_in_bounded_groups(intake: Intake, gate: Gate) -> None:
    each = GROUP_TRACES // 2

    def judge(number: int) -> list[Judged]:
        return [item(number * each + n) for n in range(each)]

    async def main() -> list[list[Registration]]:
        first = await occupied(intake, gate)
        tasks = [asyncio.create_task(intake.register_unread(partial(judge, n), "P")) for n in range(6)]
        await asyncio.sleep(0)
        gate.open.set()
        await asyncio.gather(*first)
        return await asyncio.gather(*tasks)

    answers = asyncio.run(main())
    assert [len(some) for some in answers] == [each] * 6
    assert [len(ids) for provider, ids in gate.groups if provider == "P"] == [GROUP_TRACES] * 3


class Panic(BaseException):
    """As a library that is not written in Python may raise."""


@pytest.mark.parametrize("where", ["read", "store"])
def test_whatever_happens_everyone_is_answered_and_the_thread_goes_on(intake: Intake, gate: Gate, where: str) -> None:
    def judge() -> list[Judged]:
        if where == "read":
            raise Panic
        return [item(1)]

    gate.open.set()
    gate.poison["id-1"] = Panic()
    with pytest.raises(RuntimeError, match="Panic"):
        asyncio.run(intake.register_unread(judge, "P"))
    assert len(asyncio.run(intake.register([item(2)], "P"))) == 1
    wait_until(lambda: intake.held == 0, "nothing held")


@pytest.mark.parametrize("size", [0, 100_000], ids=["small", "large"])
def test_whom_to_trust_is_asked_when_the_traces_have_come_and_if_there_is_room(
    tmp_path: Path, gate: Gate, size: int
) -> None:
    """They may have taken minutes, in which a certificate may have been revoked."""
    asked: list[str] = []
    store = Store.open(f"sqlite:///{tmp_path / 'traces.db'}")
    access = Access(lambda _token: None, frozenset())
    service = Service(store, lambda: asked.append("trust"), False, access, ServiceSettings())  # type: ignore[func-returns-value]
    intake = Intake(gate.register, 1)
    state = SimpleNamespace(service=service, intake=intake)

    async def post() -> None:
        async def app(scope: Scope, receive: Receive, _send: Send) -> None:
            await registered(Request(scope, receive), "P", lambda _pieces: [])

        async def receive() -> Message:
            assert not asked, "before the body has come"
            return {"type": "http.request", "body": b" " * size}

        async def send(_message: Message) -> None:
            pass

        scope = {"type": "http", "headers": [], "app": SimpleNamespace(state=state)}
        await Bounded(app, service.settings)(scope, receive, send)

    async def main() -> None:
        with pytest.raises(Unavailable, match="nobody"):
            await post()
        assert asked.pop()
        first = await occupied(intake, gate)
        with pytest.raises(Busy):
            await post()
        assert not asked
        gate.open.set()
        await asyncio.gather(*first)

    asyncio.run(main())
    intake.close()
