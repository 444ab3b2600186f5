"""Takes tasks that are handed in while the run goes on, and tells whoever handed them in how they ended.

Theory of operation
-------------------
Who wants to know names a *session* with what it hands in. When a task of a session has its line in the status
file, the line is kept for the session until that has asked for what comes after it: so a broken connection
loses nothing. Which session a task belongs to is noted in the run file, so that a driver that takes the run
over can tell it what was recorded before, too; then from the beginning, and the session sees by the ids what
it knows already.

A session that was not heard for SESSION_PATIENCE is gone, and what is kept for it is forgotten.
"""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from disbatch.driver.told import Closed, Handed
from disbatch.model.errors import UsageError
from disbatch.sources.submitted import SubmittedSource
from disbatch.wire.requests import (
    MAX_SUBMITTED,
    Answer,
    Close,
    Collect,
    Request,
    Results,
    Submit,
    Taken,
)

log = logging.getLogger(__name__)

NOTHING_NEW = 10.0
"""Seconds after which a session is told that there is nothing new."""
SESSION_PATIENCE = 600.0
BYTES_A_TIME = 1 << 19
MOST_SESSIONS = 10_000
NO_MORE = "the run takes no more tasks: its list was read to the end"


@dataclass
class Session:
    """Who handed tasks in: lines that are kept for it, of which the first comes after `since` others."""

    name: str
    heard: float
    since: int = 0
    lines: deque[bytes] = field(default_factory=deque)
    waiting: tuple[Request, asyncio.TimerHandle] | None = None


@dataclass
class _Range:
    """Ids of one session; `left` of them have not ended."""

    first: int
    last: int
    session: Session
    left: int


class Submissions:
    """`request` answers a request, or returns None: the answer comes later, through `answer`. `safely` calls
    back when all lines so far are in the status file; `note` gets lines for the run file. `driver`: which one
    of the run this is. `why_not`: why this run takes no tasks, if it does not."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        answer: Callable[[Request, Answer], None],
        driver: int,
        note: Callable[[Handed | Closed], object],
        safely: Callable[[Callable[[], None]], None],
        ending: Callable[[], bool],
        why_not: str,
    ) -> None:
        self._loop = loop
        self._answer = answer
        self._driver = driver
        self._note = note
        self._safely = safely
        self._ending = ending
        self._why_not = why_not
        self._source: SubmittedSource | None = None
        self._sessions: dict[str, Session] = {}
        self._ranges: list[_Range] = []
        self._firsts: list[int] = []
        self._dead = 0
        self._fresh: list[tuple[Session, bytes]] = []
        """Lines that are to be told when they are in the status file, and not before."""
        self._performers: dict[type, Callable[[Request, Any], Answer | None]] = {
            Submit: self._submit,
            Collect: self._collect,
            Close: self._close,
        }

    def feed(self, source: SubmittedSource) -> None:
        """Tasks go there."""
        self._source = source

    def request(self, request: Request) -> Answer | None:
        """Do it."""
        return self._performers[type(request.verb)](request, request.verb)

    def again(self, handed: Handed) -> None:
        """A former driver of the run took these."""
        session = self._session(handed.session)
        if session is not None:
            self._own(session, handed.first, handed.last)

    def close_soon(self) -> None:
        """Nothing more will be handed in."""
        if self._source is not None:
            self._note(Closed())
            self._source.close_soon()

    # ---- requests ----

    def _submit(self, request: Request, verb: Submit) -> Answer:
        source = self._source
        problem = self._problem(verb)
        if problem or source is None:
            return Answer(request.id, False, [problem])
        session = self._session(verb.session) if verb.session else None
        if verb.session and session is None:
            return Answer(request.id, False, ["too many sessions hand in tasks"])
        try:
            first, counts = source.add(verb.lines)
        except UsageError as error:
            return Answer(request.id, False, [str(error)])
        last = first + sum(counts) - 1
        if session is not None and first <= last:
            self._note(Handed(session.name, first, last))
            self._own(session, first, last)
        return Answer(request.id, True, [_words(first, last)], Taken(first, counts))

    def _problem(self, verb: Submit) -> str:
        if self._source is None:
            return self._why_not
        if self._ending():
            return "the run is ending already"
        if self._source.closed:
            return NO_MORE
        if sum(map(len, verb.lines)) > MAX_SUBMITTED:
            return f"more than {MAX_SUBMITTED >> 20} MiB of commands at once"
        return ""

    def _close(self, request: Request, verb: Close) -> Answer:
        if self._source is None:
            return Answer(request.id, False, [self._why_not])
        if self._source.closed:
            return Answer(request.id, True, ["the run takes no more tasks already"])
        self.close_soon()
        return Answer(request.id, True, ["no more tasks are taken; the run ends when all are done"])

    def _collect(self, request: Request, verb: Collect) -> Answer | None:
        session = self._session(verb.session)
        if session is None:
            return Answer(request.id, False, ["too many sessions hand in tasks"])
        session.heard = self._loop.time()
        known = verb.known if verb.driver == self._driver else 0
        while session.lines and session.since < known:
            session.lines.popleft()
            session.since += 1
        if session.lines or verb.driver != self._driver:
            return self._results(session, request)
        if session.waiting is not None:  # by a connection that is not there any more
            session.waiting[1].cancel()
            self._tell(session)
        session.waiting = (request, self._loop.call_later(NOTHING_NEW, self._tell, session))
        return None

    def _results(self, session: Session, request: Request, *, over: bool = False) -> Answer:
        lines, size = [], 0
        for line in session.lines:
            if size > BYTES_A_TIME:
                over = False
                break
            lines.append(line)
            size += len(line)
        return Answer(request.id, True, [], Results(self._driver, session.since, lines, over))

    def _tell(self, session: Session, *, over: bool = False) -> None:
        if session.waiting is not None:
            (request, timer), session.waiting = session.waiting, None
            timer.cancel()
            self._answer(request, self._results(session, request, over=over))

    def _session(self, name: str) -> Session | None:
        session = self._sessions.get(name)
        if session is None:
            self._forget_the_silent()
            if len(self._sessions) >= MOST_SESSIONS:
                return None
            session = self._sessions[name] = Session(name, self._loop.time())
        return session

    def _forget_the_silent(self) -> None:
        now = self._loop.time()
        for session in list(self._sessions.values()):
            if session.waiting is None and now - session.heard > SESSION_PATIENCE:
                log.info("session %s is not heard any more", session.name)
                del self._sessions[session.name]

    # ---- results ----

    def _own(self, session: Session, first: int, last: int) -> None:
        newest = self._ranges[-1] if self._ranges else None
        if newest is not None and newest.session is session and newest.last + 1 == first and newest.left:
            newest.last = last
            newest.left += last - first + 1
            return
        if self._dead * 2 > len(self._ranges) + 16:
            self._ranges = [one for one in self._ranges if one.left]
            self._firsts = [one.first for one in self._ranges]
            self._dead = 0
        self._ranges.append(_Range(first, last, session, last - first + 1))
        self._firsts.append(first)

    def ended(self, id: int, line: bytes) -> None:
        """The task or barrier of that id got this line, which is on its way to the status file."""
        at = bisect_right(self._firsts, id) - 1
        if at < 0 or id > self._ranges[at].last or not self._ranges[at].left:
            return
        found = self._ranges[at]
        found.left -= 1
        self._dead += not found.left
        if self._sessions.get(found.session.name) is not found.session:
            return
        if not self._fresh:
            self._loop.call_soon(self._mark)
        self._fresh.append((found.session, b"\t".join(line.split(b"\t", 14)[:14])))

    def _mark(self) -> None:
        fresh, self._fresh = self._fresh, []
        self._safely(lambda: self._keep(fresh))

    def _keep(self, fresh: list[tuple[Session, bytes]]) -> None:
        for session, line in fresh:
            session.lines.append(line)
        for session in {session.name: session for session, _ in fresh}.values():
            self._tell(session)

    def close(self) -> None:
        """The run is over."""
        for session in self._sessions.values():
            self._tell(session, over=True)


def _words(first: int, last: int) -> str:
    if last < first:
        return "taken; no task is in it"
    return f"task {first}" if first == last else f"tasks {first}-{last}"
