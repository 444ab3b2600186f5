"""Answer clients that watch the run, when its state has changed.

Theory of operation
-------------------
Each event marks the state as changed, which costs next to nothing while no client waits. If clients wait, all
of them are answered together, from one view of the run, a moment later. Between two views there are at least
INTERVAL seconds, or more if needed so that collecting and sending take only a small share of the driver's
time, however many engines and watchers there are. A client's first request is answered at once, from the last
view if that is recent.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from disbatch.driver.status_collector import StatusCollector
from disbatch.model.view import View
from disbatch.wire.client_protocol import Answer, Request, Seen, Wants, Watch
from disbatch.wire.longpoll import NOTHING_NEW, LongPoll

INTERVAL = 0.5
"""Seconds between two looks, at least."""
SHARE = 0.02
"""Of the driver's time, for looking and telling, at most."""


class _Waiting(NamedTuple):
    """Somebody who waits; `tell` gets the view."""

    wants: Wants
    tell: Callable[[View], None]


class StatusFeed:
    """`request` answers a request, or returns None: the answer comes later, through `answer`. `driver` is the
    number of this driver among those of the run."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        collector: StatusCollector,
        answer: Callable[[Request, Answer], None],
        driver: int,
        *,
        interval: float = INTERVAL,
        nothing_new: float = NOTHING_NEW,
    ) -> None:
        self._loop = loop
        self._collector = collector
        self._answer = answer
        self._driver = driver
        self._shortest = self._interval = interval
        self._number = 1
        """Rises with each change."""
        self._seen = 0
        """The number at the last look."""
        self._looked: float | None = None
        self._waiting: LongPoll[_Waiting] = LongPoll(loop, self._tell, nothing_new)
        self._timer: asyncio.TimerHandle | None = None
        self._over: str | None = None
        """How the run ended, once it has."""

    def stir(self) -> None:
        """Something happened."""
        self._number += 1
        if self._waiting and self._timer is None:
            self._timer = self._loop.call_later(max(0.0, self._rest()), self._tell_all)

    def _rest(self) -> float:
        """Seconds for which the last look is fresh."""
        return 0.0 if self._looked is None else self._looked + self._interval - self._loop.time()

    # ---- who asks ----

    def request(self, request: Request, verb: Watch) -> Answer | None:
        """Answer it, or let it wait."""
        known = verb.known if verb.driver == self._driver else 0
        wants = verb.wants if known else msgspec.structs.replace(verb.wants, failures_known=0, log_known=0)
        if not known or self._over is not None:
            return self._seen_by(request, verb, self.view(wants))

        def tell(view: View) -> None:
            self._answer(request, self._seen_by(request, verb, view))

        self._wait(request.id, wants, known, tell)
        return None

    def _seen_by(self, request: Request, verb: Watch, view: View) -> Answer:
        running = self._collector.running_of(verb.ids) if verb.ids else []
        return Answer(request.id, True, [], Seen(view, self._over is not None, running))

    def view(self, wants: Wants) -> View:
        """How the run stands, or stood a moment ago."""
        if self._rest() <= 0:
            self._look()
        view = self._collector.view(wants, self._seen)
        if self._over is not None:
            return msgspec.structs.replace(view, mode="over", notice=self._over, barrier=None, remaining=None)
        return view

    async def next(self, wants: Wants, known: int) -> View:
        """The view after the one of that number, or, after a while, the same again."""
        if self._over is not None:
            return self.view(wants)
        found: asyncio.Future[View] = self._loop.create_future()
        key = object()
        self._wait(key, wants, known, lambda view: None if found.done() else found.set_result(view))
        try:
            return await found
        finally:
            self._waiting.take(key)

    def _wait(self, key: str | object, wants: Wants, known: int, tell: Callable[[View], None]) -> None:
        self._waiting.wait(key, _Waiting(wants, tell))
        if known < self._number and self._timer is None:
            self._timer = self._loop.call_later(max(0.0, self._rest()), self._tell_all)

    # ---- who is told ----

    def _look(self) -> None:
        began = time.perf_counter()
        self._seen = self._number
        self._collector.look()
        self._looked = self._loop.time()
        self._interval = max(self._shortest, (time.perf_counter() - began) / SHARE)

    def _tell_all(self) -> None:
        self._timer = None
        began = time.perf_counter()
        self._look()
        for waiting in self._waiting.take_all():
            self._tell(waiting)
        self._interval = max(self._shortest, (time.perf_counter() - began) / SHARE)

    def _tell(self, waiting: _Waiting) -> None:
        waiting.tell(self.view(waiting.wants))

    def close(self, words: str) -> None:
        """The run is over; how it ended, in `words`."""
        self._over = words
        if self._timer is not None:
            self._timer.cancel()
        self._number += 1
        self._tell_all()
