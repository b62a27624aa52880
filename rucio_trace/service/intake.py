"""Registration: bounded, and in groups, so that many small requests cost as few commits as one large one.

A request's traces are queued all or none, in slices; a thread takes the slices that wait and registers them at once.
Nobody is answered before the traces are durable, and what was queued is finished before the service ends.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rucio_trace.errors import TraceabilityError
from rucio_trace.service.problems import Busy, TooLarge, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from rucio_trace.identity import Trust
    from rucio_trace.service.app import Service
    from rucio_trace.store import Item, Registration
    from rucio_trace.store.register import Judged

    _Add = Callable[[Sequence["Judged"], str | None], list[Registration]]

__all__ = ["GROUP_TRACES", "THREADS", "Intake", "adding", "judging", "trusted"]

GROUP_TRACES = 1_000
"""A transaction of so many takes well below a second, which is what a small request behind it waits."""

THREADS = 1  # several would share what waits into small groups, each with a commit, and take turns at the store's lock

LOG = logging.getLogger("rucio-trace.service")


@dataclass(eq=False, slots=True)
class _Slice:
    """A part of a request, and who waits for its answers."""

    items: Sequence[Judged]
    provider: str | None
    future: Future[list[Registration]] = field(default_factory=Future)


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
        """How many traces are not answered yet."""
        return self._held

    async def register(self, items: Sequence[Judged], provider: str | None) -> list[Registration]:
        """The answers to *items*, in their order, once all are durable.

        Raises:
            Busy, TooLarge, Unavailable: nothing of them was queued.
            TraceabilityError: the store did not answer; repeating all of them is safe.
        """
        slices = self._queue(items, provider)
        answers = await asyncio.gather(
            *(asyncio.wrap_future(each.future) for each in slices),
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

    def _queue(self, items: Sequence[Judged], provider: str | None) -> list[_Slice]:
        if len(items) > self._most:
            raise TooLarge("traces", expected=f"at most {self._most}", found=str(len(items)))
        parts = [items[start : start + GROUP_TRACES] for start in range(0, len(items), GROUP_TRACES)]
        slices = [_Slice(part, provider) for part in parts]
        with self._changed:
            if self._closed:
                raise Unavailable("service", expected="one that goes on", found="one that is ending")
            if self._held + len(items) > self._most:
                raise Busy("traces that wait", expected=f"at most {self._most}", found=f"{self._held} already")
            self._hold(len(items))
            self._waiting.extend(slices)
            while len(self._threads) < THREADS:
                self._threads.append(threading.Thread(target=self._work, name="intake"))
                self._threads[-1].start()
            self._changed.notify(len(slices))
        return slices

    def _work(self) -> None:
        while group := self._next():
            if standing := [each for each in group if each.future.set_running_or_notify_cancel()]:
                self._answer(standing)
            with self._changed:
                self._hold(-sum(len(each.items) for each in group))

    def _hold(self, more: int) -> None:
        self._held += more
        self._tell(self._held)

    def _next(self) -> list[_Slice]:
        """The slices to register at once; none when all is done."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            group: list[_Slice] = []
            while self._waiting and (not group or self._fits(group)):
                group.append(self._waiting.popleft())
            return group

    def _fits(self, group: list[_Slice]) -> bool:
        """Whether the next slice may join."""
        following = self._waiting[0]
        traces = sum(len(each.items) for each in group) + len(following.items)
        return traces <= GROUP_TRACES and following.provider == group[0].provider

    def _answer(self, group: list[_Slice]) -> None:
        items = [item for each in group for item in each.items]
        try:
            answers = iter(self._add(items, group[0].provider))
        except Exception as error:  # whoever waits gets it; the thread serves others too
            if len(group) == 1 or isinstance(error, TraceabilityError):
                for each in group:
                    each.future.set_exception(error)
            else:  # a bug that one of them meets is not the others'
                LOG.exception("a group of %d requests is registered one by one", len(group))
                for each in group:
                    self._answer([each])
        else:
            for each in group:
                each.future.set_result([next(answers) for _ in each.items])


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


def judging(service: Service, intake: Intake) -> Callable[[Iterable[Item]], list[Judged]]:
    """How items are judged before they wait: one after another as they are parsed, while they are in the caches.

    By whom is trusted then: a body may have taken minutes to come. And only if there is room in *intake*.
    """

    def judge(items: Iterable[Item]) -> list[Judged]:
        intake.check_room()
        return service.store.judge(items, trusted(service), allow_stale_crl=service.allow_stale_crl)

    return judge


def adding(service: Service) -> _Add:
    """How `Intake` stores what was judged."""
    store, private = service.store, service.access.private
    return lambda judged, provider: store.add(
        judged, provider=provider, private=private, defer_index=store.indexes_later
    )
