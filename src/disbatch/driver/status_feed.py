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
from disbatch.wire.client_protocol import Answer, Request, Seen, Watch
from disbatch.wire.longpoll import NOTHING_NEW, LongPoll

INTERVAL = 0.5
"""The least number of seconds between two views."""
SHARE = 0.02
"""The most of the driver's time that views take."""


class _Question(NamedTuple):
    request: Request
    verb: Watch


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
        self._collected = 0
        """The number when the view was collected last."""
        self._collected_at: float | None = None
        self._waiting: LongPoll[_Question] = LongPoll(loop, self._answer_now, nothing_new)
        self._timer: asyncio.TimerHandle | None = None
        self._over: str | None = None
        """How the run ended, once it has."""

    def mark_changed(self) -> None:
        """The state of the run has changed."""
        self._number += 1
        if self._waiting:
            self._answer_soon()

    def request(self, request: Request, verb: Watch) -> Answer | None:
        """Answer it, or let it wait for a change."""
        known = verb.known if verb.driver == self._driver else 0
        if known and self._over is None:
            self._waiting.wait(request.id, _Question(request, verb))
            if known < self._number:
                self._answer_soon()
            return None
        if not known:
            wants = msgspec.structs.replace(verb.wants, failures_known=0, log_known=0)
            verb = msgspec.structs.replace(verb, wants=wants)
        if self._fresh_for() <= 0:
            self._collect()
        return self._seen(request, verb)

    def _fresh_for(self) -> float:
        """The seconds for which what was collected last may still be sent."""
        return 0.0 if self._collected_at is None else self._collected_at + self._interval - self._loop.time()

    def _answer_soon(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(max(0.0, self._fresh_for()), self._answer_all)

    def _answer_all(self) -> None:
        self._timer = None
        began = time.perf_counter()
        self._collect()
        for question in self._waiting.take_all():
            self._answer_now(question)
        self._interval = max(self._shortest, (time.perf_counter() - began) / SHARE)

    def _collect(self) -> None:
        began = time.perf_counter()
        self._collected = self._number
        self._collector.look()
        self._collected_at = self._loop.time()
        self._interval = max(self._shortest, (time.perf_counter() - began) / SHARE)

    def _answer_now(self, question: _Question) -> None:
        """Answer even without a change, so that the client knows that the driver lives."""
        if self._fresh_for() <= 0:
            self._collect()
        self._answer(question.request, self._seen(*question))

    def _seen(self, request: Request, verb: Watch) -> Answer:
        view = self._collector.view(verb.wants, self._collected)
        if self._over is not None:
            over = {"mode": "over", "notice": self._over, "barrier": None, "remaining": None}
            view = msgspec.structs.replace(view, **over)
        running = self._collector.running_of(verb.ids) if verb.ids else []
        return Answer(request.id, True, [], Seen(view, self._over is not None, running))

    def close(self, words: str) -> None:
        """The run is over; how it ended, in `words`."""
        self._over = words
        if self._timer is not None:
            self._timer.cancel()
        self._number += 1
        self._answer_all()
