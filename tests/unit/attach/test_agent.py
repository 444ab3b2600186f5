"""An attached context and a driver that is none: what it asks, and what it makes of the answers."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import zmq

from deadline import DEADLINE
from disbatch.attach.agent import Attachment
from disbatch.contexts.hosts import Hosts
from disbatch.contexts.nodes import Node
from disbatch.contexts.pool import Pool
from disbatch.contexts.ssh import SshOptions
from disbatch.model.errors import SilenceError, UsageError
from disbatch.model.task import Way
from disbatch.wire.client_protocol import (
    Answer,
    Attach,
    Attached,
    Detach,
    Ended,
    Event,
    Fate,
    Heed,
    News,
    Request,
    Verb,
)
from disbatch.wire.client_socket import Caller, request_for
from disbatch.wire.connect import ConnectFile, RunKeys
from disbatch.wire.driver_socket import Hub
from disbatch.wire.engine_protocol import PROTOCOL
from disbatch.wire.verbs import Pause

KEYS = RunKeys.generate()
Course = Callable[["Driver"], Awaitable[None]]


class Driver:
    """Answers what it is told to, when it is told to. `directory` is that of the run."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.loop = asyncio.get_running_loop()
        self.asked: list[Verb] = []
        self.waiting: list[Request] = []
        self.said: list[str] = []
        self.changed = asyncio.Event()
        self.refuses = ""
        self.answers_attach = True
        self.history = 0
        self.starts = 0
        self.start()

    def start(self) -> None:
        """Be there (again), as another process would be."""
        self.context = zmq.Context[zmq.Socket[bytes]]()
        self.hub = Hub(
            *(self.loop, self.context, KEYS),
            hello=lambda peer, message: None,
            receive=lambda peer, number, message: None,
            bad=lambda text: None,
            request=self.request,
        )
        # Under a new name each time, as libzmq removes the old one some time after it was closed.
        self.starts += 1
        self.hub.bind(f"ipc://{self.directory}/driver-{self.starts}")
        (self.directory / "new").symlink_to(f"driver-{self.starts}")
        (self.directory / "new").replace(self.directory / "driver")

    def connect_file(self) -> ConnectFile:
        keys = (KEYS.server_key, KEYS.server_secret, KEYS.client_key, KEYS.client_secret)
        host, address = socket.gethostname(), f"ipc://{self.directory}/driver"
        return ConnectFile(PROTOCOL, "J", host, os.getpid(), 0.0, [address, "tcp://x:1"], *keys, "s", "d")

    def request(self, request: Request) -> Answer | None:
        verb = request.verb
        self.asked.append(verb)
        self.changed.set()
        if self.refuses:
            return Answer(request.id, False, [self.refuses])
        if isinstance(verb, Heed) or (isinstance(verb, Attach) and not self.answers_attach):
            self.waiting.append(request)
            return None
        return Answer(request.id, True, [], self.attached() if isinstance(verb, Attach) else None)

    def attached(self) -> Attached:
        prefix = os.fsencode(self.directory / "P")
        return Attached("c1", os.fsencode(self.directory), prefix, {b"RUN": b"1"}, 5.0, 2.0, 600.0)

    def news(self, *fates: tuple[str, Fate], since: int = 0, over: bool = False) -> None:
        """Answer the Heed that waits."""
        request = self.waiting.pop()
        events = [Event(engine, fate) for engine, fate in fates]
        answer = News(since, events, over, self.history)
        self.hub.answer(request, Answer(request.id, True, [], answer))

    def say(self, text: str) -> None:
        self.said.append(text)
        self.changed.set()

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(DEADLINE):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def until_asked(self, kind: type[Verb]) -> Any:
        await self.until(lambda: any(isinstance(verb, kind) for verb in self.asked))
        return next(verb for verb in self.asked if isinstance(verb, kind))

    async def until_heeded(self, known: int, history: int = 0) -> None:
        await self.until(lambda: Heed("c1", known, history) in self.asked)

    def attachment(self, *nodes: str, **changes: Any) -> Attachment:
        """Of hosts whose ssh is in `directory`."""
        ssh = SshOptions(python="python3")
        hosts = [Node(node, 2, 2, Way.SSH, 1.0) for node in nodes or ("n1",)]
        return Attachment(
            Pool(nodes=hosts, context=Hosts(ssh), ssh=ssh, **changes),
            self.connect_file(),
            str(self.directory / "P"),
            None,
            hostname="here",
            say=self.say,
            enter=self.enter,
        )

    def enter(self, environment: Mapping[bytes, bytes]) -> None:
        assert environment[b"RUN"] == b"1" and environment[b"PWD"] == os.fsencode(self.directory)

    def close(self) -> None:
        self.hub.close()
        self.context.term()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Course], None]:
    """Runs a course with a driver; `ssh` waits for ever, or fails at once for the host `bad`."""
    ssh = tmp_path / "bin" / "ssh"
    ssh.parent.mkdir()
    os.mkfifo(tmp_path / "never")
    ssh.write_text(
        f'#!/bin/sh\ncase "$*" in *"-- bad "*) echo no >&2; exit 255; esac\nexec cat {tmp_path}/never\n'
    )
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{ssh.parent}:{os.environ['PATH']}")

    def with_driver(course: Course) -> None:
        async def bounded() -> None:
            driver = Driver(tmp_path)
            try:
                async with asyncio.timeout(DEADLINE):
                    await course(driver)
            finally:
                driver.close()

        asyncio.run(bounded())

    return with_driver


def test_from_the_first_to_the_last(run: Callable[[Course], None]) -> None:
    async def course(driver: Driver) -> None:
        attachment = driver.attachment("n1", "n2", label="rack", task_limit=7)
        going = asyncio.create_task(attachment.run())
        attach = await driver.until_asked(Attach)
        assert (attach.label, attach.limit, attach.host, attach.pid) == ("rack", 7, "here", os.getpid())
        assert [(node.node, node.slots) for node in attach.nodes] == [("n1", 2), ("n2", 2)]
        one, two = (node.engine for node in attach.nodes)
        await driver.until_heeded(0)
        driver.news((one, Fate.JOINED), (two, Fate.JOINED))
        await driver.until_heeded(2)
        driver.history = 1  # another driver tells all of it again
        driver.news((one, Fate.JOINED))
        await driver.until_heeded(1, 1)
        driver.news((two, Fate.JOINED), (one, Fate.LEFT), (two, Fate.SPARE), since=1)
        assert await going == 0
        assert driver.said == ["n1, n2: joined with 4 slots", "n1, n2: left"]

    run(course)


def test_the_run_is_over_before_anybody_has_joined(run: Callable[[Course], None]) -> None:
    async def course(driver: Driver) -> None:
        going = asyncio.create_task(driver.attachment().run())
        await driver.until_heeded(0)
        driver.news(over=True)
        assert await going == 0 and driver.said == ["the run is over"]

    run(course)


def test_a_launch_that_fails(run: Callable[[Course], None]) -> None:
    """The driver hears of it; the others go on. If all fail, so does the whole."""

    async def course(driver: Driver) -> None:
        going = asyncio.create_task(driver.attachment("bad", "n2").run())
        attach = await driver.until_asked(Attach)
        ended = await driver.until_asked(Ended)
        words = "bad: ssh failed: no; try `ssh bad true` by hand"
        assert ended == Ended("c1", attach.nodes[0].engine, False, 0, words)
        driver.news((attach.nodes[0].engine, Fate.LEFT), (attach.nodes[1].engine, Fate.JOINED))
        await driver.until_heeded(2)
        driver.news((attach.nodes[1].engine, Fate.LEFT), since=2)
        assert await going == 0 and driver.said == [words, "n2: joined with 2 slots", "n2: left"]
        driver.asked.clear()
        going = asyncio.create_task(driver.attachment("bad").run())
        await driver.until_asked(Ended)
        driver.news((driver.asked[0].nodes[0].engine, Fate.LEFT))  # type: ignore[union-attr]
        assert await going == 3

    run(course)


def test_refused(run: Callable[[Course], None]) -> None:
    async def course(driver: Driver) -> None:
        driver.refuses = "the run is ending already"
        with pytest.raises(UsageError, match="the run is ending already"):
            await driver.attachment().run()
        with pytest.raises(UsageError, match="at most 10,000 nodes"):
            driver.attachment(*[f"n{number}" for number in range(10_001)])

    run(course)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_interrupted(run: Callable[[Course], None], number: signal.Signals) -> None:
    """The driver is told; with the second signal (a terminal may send SIGHUP twice) nobody is waited for."""

    async def course(driver: Driver) -> None:
        attachment = driver.attachment()
        going = asyncio.create_task(attachment.run())
        await driver.until_heeded(0)
        attachment.interrupt(number)
        assert await driver.until_asked(Detach) == Detach("c1")
        attachment.interrupt(signal.SIGHUP)
        assert not going.done()
        attachment.interrupt(signal.SIGTERM)
        assert await going == 128 + number
        leaving = "leaving; what runs here runs again elsewhere; once more to leave at once"
        assert driver.said == [f"{number.name}: {leaving}"]

    run(course)


def test_interrupted_before_the_driver_has_answered(run: Callable[[Course], None]) -> None:
    """Once: what it lets in leaves at once, and nothing is started. Twice: nobody is waited for."""

    async def course(driver: Driver) -> None:
        driver.answers_attach = False
        attachment = driver.attachment()
        going = asyncio.create_task(attachment.run())
        await driver.until_asked(Attach)
        attachment.interrupt(signal.SIGTERM)
        request = driver.waiting.pop()
        driver.hub.answer(request, Answer(request.id, True, [], driver.attached()))
        await driver.until_asked(Detach)
        await driver.until_heeded(0)
        attach = request.verb
        assert isinstance(attach, Attach)
        driver.news((attach.nodes[0].engine, Fate.LEFT))
        assert await going == 143
        assert driver.said == ["SIGTERM: leaving; once more to leave at once", "n1: no longer needs to join"]
        attachment = driver.attachment()
        going = asyncio.create_task(attachment.run())
        await driver.until(lambda: len(driver.waiting) == 1)
        attachment.interrupt(signal.SIGINT)
        attachment.interrupt(signal.SIGINT)
        assert await going == 130

    run(course)


def test_an_error_of_ours_ends_it(run: Callable[[Course], None]) -> None:
    async def course(driver: Driver) -> None:
        going = asyncio.create_task(driver.attachment().run())
        await driver.until_heeded(0)
        driver.loop.call_soon(lambda: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            await going

    run(course)


# ---- asking ----


def test_a_request_survives_the_driver(run: Callable[[Course], None]) -> None:
    """The one that comes in its place is asked again; it answers later, or not at all."""

    async def course(driver: Driver) -> None:
        context = zmq.Context[zmq.Socket[bytes]]()
        caller = Caller(driver.loop, context, driver.connect_file())
        try:
            call = asyncio.create_task(caller.call(request_for(Heed("c1", 0))))
            await driver.until_heeded(0)
            driver.close()
            driver.asked.clear()
            driver.waiting.clear()
            driver.start()
            await driver.until_heeded(0)
            driver.news()
            assert (await call).value == News(0, [])
            assert caller.proven == f"ipc://{driver.directory}/driver"
            assert (await caller.call(request_for(Pause()))).ok
            assert "was asked, but did not answer within 2 s" in caller.silence(2.0)
            waiting = asyncio.create_task(caller.call(request_for(Heed("c1", 6))))
            await driver.until_heeded(6)
        finally:
            caller.close()
            caller.close()
            context.term()
        for call in (waiting, asyncio.create_task(caller.call(request_for(Pause())))):
            with pytest.raises(SilenceError, match="given up"):
                await call

    run(course)
