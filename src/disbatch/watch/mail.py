"""Mails how a run goes: every N completions, with the lines of the status file, and once it has ended.

Theory of operation
-------------------
One mail is on its way at a time, in a thread of its own, so that a mail server that does not answer holds
nothing up. Others wait, in order; of more than MOST_WAITING the last ones become one. A mail that was not
taken is tried again when there is another one, but not before RETRY seconds; the trouble is told once.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import formatdate, make_msgid

from disbatch.model.quantity import counted
from disbatch.model.snapshot import Snapshot, TaskView
from disbatch.model.text import printable
from disbatch.watch.post import Post, deliver

PATIENCE = 120.0
"""Seconds that a mail may take while the run goes on."""
LAST_PATIENCE = 15.0
"""Seconds that the end of a run waits for its mails."""
RETRY = 60.0
MOST_BYTES = 1 << 20
"""Of status lines in one mail; the oldest are left out."""
MOST_WAITING = 10
MANY_MAILS = 1000
"""More than so many are worth a word."""
_OF_A_TASK = ord(" ")
_CANCELLED = ord("X")

Deliver = Callable[[Post, EmailMessage], str]


class _Window:
    """The newest lines of what has completed since the last mail; `failed` of the `count` have, and
    `cancelled` were."""

    def __init__(self) -> None:
        self.lines: deque[bytes] = deque()
        self.count = 0
        self.failed = 0
        self.cancelled = 0
        self._bytes = 0

    def add(self, line: bytes) -> None:
        self.count += 1
        cancelled = line[4] == _CANCELLED
        self.failed += line.startswith(b"R") and not cancelled
        self.cancelled += cancelled
        self.lines.append(line)
        self._bytes += len(line)
        while self._bytes > MOST_BYTES and len(self.lines) > 1:
            self._bytes -= len(self.lines.popleft())

    def extend(self, other: _Window) -> None:
        counts = (self.count + other.count, self.failed + other.failed, self.cancelled + other.cancelled)
        for line in other.lines:
            self.add(line)
        self.count, self.failed, self.cancelled = counts

    def text(self) -> str:
        """As the original words it."""
        left_out = self.count - len(self.lines)
        more = f"(the first {counted(left_out, 'is', 'are')} left out here)\n\n" if left_out else ""
        lines = b"".join(self.lines)[-2 * MOST_BYTES :]
        return f"Last {self.count}:\n\n{more}{lines.decode('utf-8', 'replace')}"


@dataclass
class _Letter:
    """A mail that waits: what stands in it, and how many were done, had failed or were cancelled by then."""

    window: _Window
    done: int
    failed: int
    cancelled: int

    def extend(self, window: _Window) -> None:
        self.window.extend(window)
        self.done += window.count
        self.failed += window.failed
        self.cancelled += window.cancelled

    def subject(self, name: str) -> str:
        """As the original words it, but for those that were cancelled."""
        words = f"{name} has completed {counted(self.done, 'task')}"
        numbers = ((self.failed, "failed"), (self.cancelled, "cancelled"))
        ended = ", ".join(f"{number} {how}" for number, how in numbers if number)
        return f"{words} ({ended})" if ended else words


class Mailer:
    """A `Listener` that mails `recipients` through `post` every so many completions of the run called `name`.
    `say` gets a line for the user; `deliver` hands a mail in, and blocks."""

    def __init__(
        self,
        post: Post,
        recipients: Sequence[str],
        every: int,
        *,
        name: str,
        say: Callable[[str], None],
        deliver: Deliver = deliver,
    ) -> None:
        self._post = post
        self._recipients = recipients
        self._every = every
        self._name = printable(name)
        self._say = say
        self._deliver = deliver
        self._window = _Window()
        self._letters: deque[_Letter] = deque()
        self._sending: asyncio.Task[None] | None = None
        self._not_before = 0.0
        self._trouble = ""

    def start(self, snapshot: Callable[[], Snapshot]) -> None:
        """The run begins."""
        self._loop = asyncio.get_running_loop()
        self._snapshot = snapshot
        total = snapshot().total or 0
        if total > MANY_MAILS * self._every:
            each = "each task" if self._every == 1 else f"every {self._every:,} tasks"
            mails = f"a mail for {each}, {total // self._every:,} in all"
            self._say(f"--mailTo: {mails}; --mailFreq N sends fewer")

    def ended(self, id: int, line: bytes) -> None:
        """A task is done; of barriers, and of tasks that were done before, there are no mails."""
        if line[3] == _OF_A_TASK:
            self._window.add(line)
            if self._window.count >= self._every:
                self._post_window()

    def failed(self, task: TaskView) -> None:
        """Its line comes, too."""

    def _post_window(self) -> None:
        window, self._window = self._window, _Window()
        if len(self._letters) < MOST_WAITING:
            run = self._snapshot()
            self._letters.append(_Letter(window, run.done, run.failed - run.cancelled, run.cancelled))
        else:
            self._letters[-1].extend(window)
        if self._sending is None and self._loop.time() >= self._not_before:
            self._sending = self._loop.create_task(self._carry())

    async def _carry(self) -> None:
        """All mails that wait, until one is not taken."""
        while self._letters:
            letter = self._letters[0]
            if not await self._mail(letter.subject(self._name), letter.window.text(), PATIENCE):
                self._not_before = self._loop.time() + RETRY
                break
            self._letters.popleft()
        self._sending = None

    async def close(self, words: str, text: str) -> None:
        """The run is over: the last mail, after the one that is on its way. `words` for its subject."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_PATIENCE):
                if self._sending is not None:
                    await asyncio.wait([self._sending])
                await self._mail(f"{self._name}: {words}", text, LAST_PATIENCE)
                return
        self._tell_trouble(f"no answer within {LAST_PATIENCE:g} s")

    async def _mail(self, subject: str, text: str, patience: float) -> bool:
        """True if it was taken."""
        over: asyncio.Future[str] = self._loop.create_future()
        message = self._message(subject, text)

        def carry() -> None:
            problem = self._deliver(self._post, message)
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(arrive, problem)

        def arrive(problem: str) -> None:
            if not over.done():
                over.set_result(problem)

        # Not one of the loop's own threads, for whose end the interpreter would wait.
        threading.Thread(target=carry, name="mail", daemon=True).start()
        await asyncio.wait([over], timeout=patience)
        self._tell_trouble(over.result() if over.done() else f"no answer within {patience:g} s")
        return over.done() and not over.result()

    def _message(self, subject: str, text: str) -> EmailMessage:
        message = EmailMessage()
        message["Subject"] = subject
        message["From"] = self._recipients[0]
        message["To"] = ", ".join(self._recipients)
        message["Date"] = formatdate(localtime=True)
        message["Message-ID"] = make_msgid(domain="disbatch.invalid")
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(text)
        return message

    def _tell_trouble(self, problem: str) -> None:
        """Once, until a mail was taken again."""
        if problem and not self._trouble:
            self._say(f"--mailTo: {self._post}: {problem}; the run goes on")
        self._trouble = problem
