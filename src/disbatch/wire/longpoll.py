"""Requests that wait for news: each is answered when there is some, or after a while that there is none."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

NOTHING_NEW = 10.0
"""Seconds after which a client is told that there is nothing new: it learns that the driver is there."""

Question = TypeVar("Question")


class LongPoll(Generic[Question]):
    """Questions without an answer yet, each under a key. `nothing_new` answers one that has waited for
    `seconds`; all others are answered by whoever takes them out."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        nothing_new: Callable[[Question], None],
        seconds: float = NOTHING_NEW,
    ) -> None:
        self._loop = loop
        self._nothing_new = nothing_new
        self._seconds = seconds
        self._waiting: dict[Hashable, tuple[Question, asyncio.TimerHandle | None]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def wait(self, key: Hashable, question: Question, seconds: float | None = None) -> None:
        """Keep a question that has no answer now; `seconds`: not the usual limit (math.inf: none)."""
        delay = self._seconds if seconds is None else seconds
        self.take(key)
        timer = None if delay == math.inf else self._loop.call_later(delay, self._time_is_up, key)
        self._waiting[key] = question, timer

    def _time_is_up(self, key: Hashable) -> None:
        question, _ = self._waiting.pop(key)
        self._nothing_new(question)

    def get(self, key: Hashable) -> Question | None:
        """The question that waits under this key."""
        waiting = self._waiting.get(key)
        return None if waiting is None else waiting[0]

    def take(self, key: Hashable) -> Question | None:
        """The same; it waits no longer."""
        question, timer = self._waiting.pop(key, (None, None))
        if timer is not None:
            timer.cancel()
        return question

    def take_all(self, concerned: Callable[[Question], bool] = lambda question: True) -> list[Question]:
        """The questions that are concerned, oldest first; they wait no longer."""
        keys = [key for key, (question, _) in self._waiting.items() if concerned(question)]
        return [question for key in keys if (question := self.take(key)) is not None]
