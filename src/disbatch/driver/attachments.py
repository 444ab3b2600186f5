"""The contexts that are attached to the run: other processes that launch engines for it, here or elsewhere.

Theory of operation
-------------------
A context announces its engines (`Attach`) before it launches them, so that each has a rank and a place from
the beginning. It then stays until they have left: it holds what they need (an allocation, tunnels), and asks
the driver what happened to each (`Heed`), as a history of events that it can request again. It reports what
it learns first (a failed launch, a process that ended; `Ended`). If it dies, its engines continue by
themselves, because they talk to the driver, not to the context.

Contexts outlive the driver: a takeover finds them in the journal. Their histories then begin anew, under
another number, which is the new driver's number within the run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from disbatch.contexts.walltime import grace_within
from disbatch.driver.engine_table import EngineEntry
from disbatch.wire.client_protocol import Answer, Attach, Event, Fate, Heed, News, Request
from disbatch.wire.longpoll import NOTHING_NEW, LongPoll

HEARD = 3 * NOTHING_NEW
"""A context counts as present if it sent `Heed` within so many seconds."""
EVENTS_A_TIME = 1000


@dataclass
class Attachment:
    """An attached context: its request, and the events of its engines."""

    name: str
    asked: Attach
    heard: float
    """When it last asked, by the loop's time."""
    events: list[Event] = field(default_factory=list)


class _Waiting(NamedTuple):
    """A question for news that has no answer yet."""

    attachment: Attachment
    request: Request
    verb: Heed


class Attachments:
    """All of them. `answer` takes the answers to requests that had to wait; `history` is the number of
    these."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        answer: Callable[[Request, Answer], None],
        history: int = 0,
    ) -> None:
        self._loop = loop
        self._answer = answer
        self._history = history
        self._attached: dict[str, Attachment] = {}
        self._waiting: LongPoll[_Waiting] = LongPoll(loop, self._tell)

    def add(self, asked: Attach, name: str = "") -> Attachment:
        """Add a context; `name`: the name that a former driver gave it."""
        name = name or f"c{len(self._attached) + 1}"
        self._attached[name] = attachment = Attachment(name, asked, self._loop.time())
        return attachment

    def find(self, asked: Attach) -> str | None:
        """The name of the context with this request, which it repeats after a takeover; None: it is new."""
        return next((name for name, one in self._attached.items() if one.asked == asked), None)

    def __len__(self) -> int:
        return len(self._attached)

    def get(self, name: str) -> Attachment | None:
        """The context with that name."""
        return self._attached.get(name)

    def label(self, name: str) -> str:
        """The label of its nodes."""
        attachment = self._attached.get(name)
        return "" if attachment is None else attachment.asked.label

    def engines(self, name: str) -> list[str]:
        """The engines that it announced."""
        attachment = self._attached.get(name)
        return [] if attachment is None else [node.engine for node in attachment.asked.nodes]

    def is_heard(self, name: str) -> bool:
        """True if the process that attached it is present."""
        attachment = self._attached.get(name)
        return attachment is not None and self._loop.time() - attachment.heard < HEARD

    def grace(self, name: str, grace: float) -> float:
        """The grace period (seconds) that tasks can have on its nodes."""
        attachment = self._attached.get(name)
        return grace if attachment is None else grace_within(attachment.asked.kill_wait, grace)

    def is_scheduled(self, name: str) -> bool:
        """True if its nodes belong to a scheduler."""
        attachment = self._attached.get(name)
        return attachment is not None and attachment.asked.scheduled

    def became(self, entry: EngineEntry, fate: Fate) -> None:
        """Report this event of the engine to its context."""
        attachment = self._attached.get(entry.context)
        if attachment is None:
            return
        attachment.events.append(Event(entry.engine, fate))
        for waiting in self._waiting.take_all(lambda each: each.attachment is attachment):
            self._tell(waiting)

    def heed(self, request: Request, verb: Heed) -> Answer | None:
        """Answer at once if there are new events, else later."""
        attachment = self._attached.get(verb.context)
        if attachment is None:
            return Answer(request.id, False, ["this run does not know that context"])
        attachment.heard = self._loop.time()
        if verb.history != self._history or len(attachment.events) != verb.known:
            return self._news(attachment, request, verb)
        self._waiting.wait(request.id, _Waiting(attachment, request, verb))
        return None

    def _tell(self, waiting: _Waiting) -> None:
        self._answer(waiting.request, self._news(*waiting))

    def _news(self, attachment: Attachment, request: Request, verb: Heed) -> Answer:
        known = verb.known if verb.history == self._history else 0
        events = attachment.events[known : known + EVENTS_A_TIME]
        return Answer(request.id, True, [], News(known, events, history=self._history))

    def close(self) -> None:
        """The run is over: answer all that wait."""
        for _, request, _ in self._waiting.take_all():
            self._answer(request, Answer(request.id, True, [], News(0, [], over=True)))
