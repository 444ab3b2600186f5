"""watch/mail.py: when a mail is sent, and what stands in it; and that trouble is told once."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Callable
from email.message import EmailMessage

import pytest

from deadline import DEADLINE
from disbatch.model.view import RunView
from disbatch.watch import mail
from disbatch.watch.mail import Mailer, MailServer
from views import view

POST = MailServer("mail.example.org")


class Office:
    """Takes mails when it is told to, each in the mailer's thread; knows what is said."""

    def __init__(self, every: int = 1, total: int | None = None) -> None:
        self.mails: list[EmailMessage] = []
        self.said: list[str] = []
        self.answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.done = self.failures = self.cancelled = 0
        self.total = total
        self.arrived: asyncio.Queue[EmailMessage] = asyncio.Queue()
        self.loop = asyncio.get_running_loop()
        self.mailer = Mailer(
            *(POST, ["a@x", "b@x"], every), name="Tasks_7", notify_user=self.said.append, deliver=self.deliver
        )
        self.mailer.start(self.view)

    def view(self) -> RunView:
        counts = {"total": self.total, "done": self.done, "failed": self.failures}
        return view([], cancelled=self.cancelled, **counts)

    def deliver(self, post: MailServer, message: EmailMessage) -> str:
        assert post is POST
        self.loop.call_soon_threadsafe(self.arrived.put_nowait, message)
        return self.answers.get(timeout=DEADLINE)

    def end(self, count: int = 1, flags: str = "    ") -> None:
        for _ in range(count):
            self.done += 1
            self.failures += flags[0] == "R"
            self.cancelled += flags[4:] == "X"
            self.mailer.ended(self.done, f"{flags}\t{self.done}\trest\n".encode())

    async def next(self, answer: str = "") -> EmailMessage:
        """The next mail, which is answered so."""
        message = await asyncio.wait_for(self.arrived.get(), 30)
        self.answers.put(answer)
        return message

    async def settled(self) -> None:
        while (sending := self.mailer._sending) is not None:
            await asyncio.wait([sending])


def text(message: EmailMessage) -> str:
    return str(message.get_content())


def run(story: Callable[[], object]) -> None:
    asyncio.run(story())  # type: ignore[arg-type]


def test_every_n_completions() -> None:
    async def story() -> None:
        office = Office(every=3)
        office.end(2)
        office.end(1, "R   ")
        message = await office.next()
        assert message["Subject"] == "Tasks_7 has completed 3 tasks (1 failed)"
        assert message["From"] == "a@x" and message["To"] == "a@x, b@x"
        assert message["Auto-Submitted"] == "auto-generated" and message["Date"]
        assert text(message) == "Last 3:\n\n    \t1\trest\n    \t2\trest\nR   \t3\trest\n"
        await office.settled()
        office.end(2)
        assert office.mailer._sending is None
        office.end(1)
        assert text(await office.next()).startswith("Last 3:\n\n    \t4\t")
        await office.settled()
        assert office.said == []

    run(story)


def test_cancelled_tasks_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mail, "MOST_WAITING", 2)

    async def story() -> None:
        office = Office(every=2)
        office.end(2, "R   X")
        first = await asyncio.wait_for(office.arrived.get(), 30)
        assert first["Subject"] == "Tasks_7 has completed 2 tasks (2 cancelled)"
        office.end(1, "R   X")
        office.end(2, "R   ")
        office.end(1)
        office.answers.put("")
        message = await office.next()
        assert message["Subject"] == "Tasks_7 has completed 6 tasks (2 failed, 3 cancelled)"
        await office.settled()

    run(story)


def test_barriers_and_what_was_done_before_are_not_counted() -> None:
    async def story() -> None:
        office = Office(every=2)
        for flags in ("   B", "   S", "    "):
            office.mailer.ended(1, f"{flags}\t1\n".encode())
        assert office.mailer._sending is None and office.mailer._window.count == 1

    run(story)


def test_many_that_wait_become_one(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        office = Office(every=2)
        office.end(2)
        first = await asyncio.wait_for(office.arrived.get(), 30)
        office.end(40)
        office.end(4, "R   ")
        office.answers.put("")
        assert text(first).startswith("Last 2:")
        for number in range(2, mail.MOST_WAITING):
            message = await office.next()
            assert message["Subject"] == f"Tasks_7 has completed {2 * number} tasks"
        message = await office.next()
        assert message["Subject"] == "Tasks_7 has completed 46 tasks (4 failed)"
        assert text(message).startswith("Last 28:\n\n    \t19\t")
        await office.settled()

    run(story)


def test_trouble_is_told_once_and_nothing_is_left_out() -> None:
    async def story() -> None:
        office = Office(every=1)
        office.end(1)
        await office.next("451 later")
        await office.settled()
        office.end(1)
        assert office.mailer._sending is None, "it waits before it tries again"
        office.mailer._not_before = 0.0
        office.end(1)
        await office.next("451 later")
        await office.settled()
        assert office.said == ["--mailTo: mail.example.org:25: 451 later; the run goes on"]
        office.mailer._not_before = 0.0
        office.end(1)
        for number in range(1, 5):
            assert text(await office.next()).startswith(f"Last 1:\n\n    \t{number}\t")
        await office.settled()

    run(story)


def test_a_large_mail_has_the_newest_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mail, "MOST_BYTES", 100)

    async def story() -> None:
        office = Office(every=50)
        office.end(50)
        words = text(await office.next())
        assert words.startswith("Last 50:\n\n(the first 43 are left out here)\n\n    \t44\trest\n")
        assert words.endswith("\t50\trest\n")
        await office.settled()

    run(story)


def test_the_last_mail_waits_for_the_one_before_it() -> None:
    async def story() -> None:
        office = Office(every=1)
        office.end(1)
        closing = asyncio.ensure_future(office.mailer.close("complete (1 done)", "summary\n"))
        await office.next()
        message = await office.next()
        await closing
        assert message["Subject"] == "Tasks_7: complete (1 done)" and text(message) == "summary\n"

    run(story)


def test_the_end_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mail, "LAST_PATIENCE", 0.05)

    async def story() -> None:
        office = Office(every=1)
        office.end(1)
        await asyncio.wait_for(office.arrived.get(), 30)
        await office.mailer.close("complete", "summary\n")
        assert office.said == ["--mailTo: mail.example.org:25: no answer within 0.05 s; the run goes on"]
        office.answers.put("")
        await office.settled()

    run(story)


def test_many_mails_are_worth_a_word() -> None:
    async def story() -> None:
        assert Office(every=10, total=9_000).said == []
        (said,) = Office(total=1_000_000).said
        assert said == "--mailTo: a mail for each task, 1,000,000 in all; --mailFreq N sends fewer"

    run(story)


def test_a_name_that_no_header_can_hold() -> None:
    async def story() -> None:
        mailer = Mailer(
            POST, ["a"], 1, name="T\nBcc: x\udc80", notify_user=print, deliver=lambda post, message: ""
        )
        assert mailer._message(f"{mailer._name}: x", "text")["Subject"] == "T Bcc: x\\x80: x"

    run(story)
