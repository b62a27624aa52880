"""Registration: bounded, and in groups, so that many small requests cost as few commits as one large one.

A request's traces are queued all or none, in slices; a thread takes the slices that wait and registers them at once. A
small request is queued as it came, and read by that thread.
Nobody is answered before the traces are durable, and what was queued is finished before the service ends.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from rucio_trace.errors import StorageError, TraceabilityError
from rucio_trace.service.bodies import received
from rucio_trace.service.problems import Busy, TooLarge, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from fastapi import Request

    from rucio_trace.identity import Trust
    from rucio_trace.service.app import Service
    from rucio_trace.store import Item, Registration
    from rucio_trace.store.register import Judged

    _Add = Callable[[Sequence["Judged"], str | None], list[Registration]]

__all__ = ["GROUP_TRACES", "THREADS", "Intake", "adding", "registered", "trusted"]

GROUP_TRACES = 1_000
"""A transaction of so many takes well below a second, which is what a small request behind it waits."""

THREADS = 1  # several would share what waits into small groups, each with a commit, and take turns at the store's lock

_GATHER_SECONDS: Final = 0.01
"""Where several clients come at a time, a moment's wait makes one transaction of twice as many requests."""

LOG = logging.getLogger("rucio-trace.service")


@dataclass(eq=False, slots=True)
class _Slice:
    """A part of a request, and who waits for its answers."""

    judged: Callable[[], Sequence[Judged]]
    count: int
    provider: str | None
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[list[Registration]]


_Part = tuple["Callable[[], Sequence[Judged]]", int]  # and how many traces it counts as
_Read = tuple[_Slice, "Sequence[Judged]"]


class Intake:
    """What waits to be registered, and the threads that do it; they start when there is something to do."""

    def __init__(self, add: _Add, most: int, tell: Callable[[int], object] = lambda _held: None) -> None:
        """*add* stores judged traces of one provider; *tell* is told how many wait whenever that changes."""
        self._add, self._most, self._tell = add, most, tell
        self._waiting: deque[_Slice] = deque()
        self._held = 0
        self._changed = threading.Condition()
        self._closed = False
        self._threads: list[threading.Thread] = []

    @property
    def held(self) -> int:
        """How many traces are not answered yet; a small request counts as one."""
        return self._held

    async def register(self, items: Sequence[Judged], provider: str | None) -> list[Registration]:
        """The answers to *items*, in their order, once all are durable.

        Raises:
            Busy, TooLarge, Unavailable: nothing of them was queued.
            TraceabilityError: the store did not answer; repeating all of them is safe.
        """
        parts = [items[start : start + GROUP_TRACES] for start in range(0, len(items), GROUP_TRACES)]
        return await self._answers([(partial(list, part), len(part)) for part in parts], provider)

    async def register_unread(self, judge: Callable[[], Sequence[Judged]], provider: str | None) -> list[Registration]:
        """The answers to what *judge* finds in a small request, which counts as one trace: it is asked by the thread.

        Raises:
            Busy, Unavailable, TraceabilityError: as `register`, and what *judge* raises.
        """
        return await self._answers([(judge, 1)], provider)

    async def _answers(self, parts: Sequence[_Part], provider: str | None) -> list[Registration]:
        slices = self._queue(parts, provider)
        answers = await asyncio.gather(
            *(each.future for each in slices),
            return_exceptions=True,  # of none the answer may be missed
        )
        found: list[Registration] = []
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
            found += answer
        return found

    def check_room(self) -> None:
        """Before anything is judged. Raises Busy: not one trace more could be queued now."""
        if self._held >= self._most:
            raise Busy("traces that wait", expected=f"at most {self._most}", found=f"{self._held} already")

    def close(self) -> None:
        """Finish what waits and end the threads; nothing is queued any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _queue(self, parts: Sequence[_Part], provider: str | None) -> list[_Slice]:
        total = sum(count for _, count in parts)
        if total > self._most:
            raise TooLarge("traces", expected=f"at most {self._most}", found=str(total))
        loop = asyncio.get_running_loop()
        slices = [_Slice(judged, count, provider, loop, loop.create_future()) for judged, count in parts]
        with self._changed:
            if self._closed:
                raise Unavailable("service", expected="one that goes on", found="one that is ending")
            if self._held + total > self._most:
                raise Busy("traces that wait", expected=f"at most {self._most}", found=f"{self._held} already")
            self._hold(total)
            self._waiting.extend(slices)
            while len(self._threads) < THREADS:
                self._threads.append(threading.Thread(target=self._work, name="intake"))
                self._threads[-1].start()
            self._changed.notify(len(slices))
        return slices

    def _work(self) -> None:
        several = False
        while group := self._next(gather=several):
            several = len(group) > 1
            try:
                self._take(group)
            except BaseException as error:
                LOG.exception("a group of %d requests is not registered", len(group))
                _tell(group, [RuntimeError(repr(error))] * len(group))
            with self._changed:
                self._hold(-sum(each.count for each in group))

    def _take(self, group: Sequence[_Slice]) -> None:
        """Read and register; small requests may hold more than they count, and so want several transactions."""
        read: list[_Read] = []
        traces = 0
        for each in group:
            if each.future.cancelled():
                continue
            try:
                read.append((each, each.judged()))
            except StorageError as error:  # which does not answer the others either
                _tell(group, [error] * len(group))
                return
            except BaseException as error:  # noqa: BLE001 - such as a panic of a library; it is not the others'
                _tell([each], [error if isinstance(error, Exception) else RuntimeError(repr(error))])
            else:
                traces += len(read[-1][1])
            if traces >= GROUP_TRACES:
                self._answer(read)
                read, traces = [], 0
        self._answer(read)

    def _hold(self, more: int) -> None:
        self._held += more
        self._tell(self._held)

    def _next(self, *, gather: bool) -> list[_Slice]:
        """The slices to register at once, those of the next moment among them where told to; none when all is done."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
            if gather:
                time.sleep(_GATHER_SECONDS)
            with self._changed:
                if group := self._group():
                    return group
                if self._closed:
                    return []

    def _group(self) -> list[_Slice]:
        """Of what waits the first, and those behind it that belong to the same provider, while it is not too much."""
        group: list[_Slice] = []
        traces = 0
        while self._waiting and (not group or self._waiting[0].provider == group[0].provider):
            traces += self._waiting[0].count
            if group and traces > GROUP_TRACES:
                break
            group.append(self._waiting.popleft())
        return group

    def _answer(self, group: Sequence[_Read]) -> None:
        if not group:
            return
        waiting = [each for each, _ in group]
        try:
            added = iter(self._add([item for _, judged in group for item in judged], waiting[0].provider))
            answers = [[next(added) for _ in judged] for _, judged in group]
        except Exception as error:  # whoever waits gets it; the thread serves others too
            if len(group) == 1 or isinstance(error, TraceabilityError):
                _tell(waiting, [error] * len(group))
            else:  # a bug that one of them meets is not the others'
                LOG.exception("a group of %d requests is registered one by one", len(group))
                for each in group:
                    self._answer([each])
        else:
            _tell(waiting, answers)


def _tell(group: Sequence[_Slice], answers: Sequence[list[Registration] | Exception]) -> None:
    """Wake the event loop once for all of them."""
    with suppress(RuntimeError):  # it was closed, and nobody waits any more
        group[0].loop.call_soon_threadsafe(_settle, group, answers)


def _settle(group: Sequence[_Slice], answers: Sequence[list[Registration] | Exception]) -> None:
    for each, answer in zip(group, answers, strict=True):
        if each.future.done():  # cancelled, or told before
            continue
        if isinstance(answer, Exception):
            each.future.set_exception(answer)
        else:
            each.future.set_result(answer)


def trusted(service: Service) -> Trust:
    """Whom the service believes now.

    Raises:
        Unavailable: nobody, so nothing can be registered.
        ConfigurationError: a file that says it is missing or wrong.
    """
    trust = service.trust()
    if trust is None:
        hint = "the operator sets federation or anchors under [trust], or starts `rucio-trace serve --federation FILE`"
        raise Unavailable("registration", expected="a service that trusts some signers", found="nobody", hint=hint)
    return trust


async def registered(
    request: Request, provider: str | None, read: Callable[[Iterator[bytes]], Iterable[Item]]
) -> list[Registration]:
    """What became of the items that *read* finds in the body of *request*, once all that are stored are durable.

    They are judged one after another as they are parsed, while they are in the caches; and whom to trust is asked then,
    since a body may have taken minutes to come.
    """
    service: Service = request.app.state.service
    intake: Intake = request.app.state.intake

    def judged(pieces: Iterator[bytes]) -> list[Judged]:
        return service.store.judge(read(pieces), trusted(service), allow_stale_crl=service.allow_stale_crl)

    def judged_if_room(pieces: Iterator[bytes]) -> list[Judged]:
        intake.check_room()  # by now: it may have waited for its turn
        return judged(pieces)

    body = await received(request)
    if body.small:
        answers = await intake.register_unread(lambda: judged(body.pieces()), provider)
    else:
        answers = await intake.register(await body.parsed(judged_if_room), provider)
    request.app.state.metrics.registered(answers)
    return answers


def adding(service: Service) -> _Add:
    """How `Intake` stores what was judged."""
    store, private = service.store, service.access.private
    return lambda judged, provider: store.add(
        judged, provider=provider, private=private, defer_index=store.indexes_later
    )
