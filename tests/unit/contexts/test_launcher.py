"""contexts/launcher.py: engines whose orders do not come on standard input."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_driver import FakeDriver

from deadline import DEADLINE
from disbatch.contexts.context import Context, Delivery, Launch, Lifeline
from disbatch.contexts.hosts import Hosts
from disbatch.contexts.launcher import Launcher, orders_file
from disbatch.contexts.local import engine_argv
from disbatch.contexts.nodes import Node
from disbatch.engine.bootstrap import read_bootstrap_file
from disbatch.model.errors import LaunchError
from disbatch.model.task import Ending, Way
from disbatch.wire.engine_protocol import Bootstrap, Hello, StepVariables

NODE = Node("here", 2, 2, Way.STEP)


class OutOfReach(Hosts):
    """A scheduler whose command forwards neither standard input nor output, as `pbsdsh`."""

    variables = StepVariables()

    def launch(self, node: Node) -> Launch:
        return Launch(
            ["sh", "-c", 'exec "$@" </dev/null >/dev/null 2>&1', "sh", *engine_argv()],
            delivery=Delivery.FILE,
            lifeline=Lifeline.CONNECTION,
            answers=False,
        )


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[FakeDriver]:
    driver = FakeDriver(tmp_path)
    yield driver
    driver.close()


class Events:
    """What a launcher reports, in order."""

    def __init__(self) -> None:
        self.seen: list[tuple[object, ...]] = []
        self._changed = asyncio.Event()

    def _note(self, *event: object) -> None:
        self.seen.append(event)
        self._changed.set()

    def launcher(self, context: Context) -> Launcher:
        return Launcher(
            asyncio.get_running_loop(),
            context,
            on_started=lambda engine: self._note("started", engine),
            on_failed=lambda engine, error: self._note("failed", engine, str(error)),
            on_exit=lambda engine, code, words: self._note("exit", engine, code),
            on_trouble=lambda text: self._note("trouble", text),
        )

    async def until(self, count: int) -> None:
        async with asyncio.timeout(DEADLINE):
            while len(self.seen) < count:
                self._changed.clear()
                await self._changed.wait()


def orders_beside(folder: Path) -> list[Path]:
    return [path for path in folder.glob("run_here_engine.txt.*") if path.suffix != ".txt"]


def test_an_engine_whose_orders_are_a_file(driver: FakeDriver, tmp_path: Path) -> None:
    def course() -> None:
        assert driver.expect(Hello).node == "here"
        assert not orders_beside(tmp_path)  # nobody finds the keys later
        assert driver.run("echo hello").ending is Ending.OWN
        driver.leave()

    async def play() -> None:
        events = Events()
        launcher = events.launcher(OutOfReach())
        launcher.start(NODE, driver.bootstrap(way=Way.STEP, step=OutOfReach.variables))
        await events.until(1)
        await asyncio.to_thread(course)
        await events.until(2)
        await launcher.close()
        assert events.seen == [("started", "engine-of-tests"), ("exit", "engine-of-tests", 0)]

    asyncio.run(play())


def test_orders_are_for_their_engine_alone(driver: FakeDriver) -> None:
    launch = OutOfReach().launch(NODE)
    bootstrap: Bootstrap = driver.bootstrap(way=Way.STEP)
    with orders_file(bootstrap, launch) as (path,):
        assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600
        read = read_bootstrap_file(path)
        assert (read.client_secret, read.lifeline) == (bootstrap.client_secret, False)
        assert not Path(path).exists()
        with pytest.raises(LaunchError, match=r"cannot read the driver's orders, .*: No such file"):
            read_bootstrap_file(path)


def test_orders_that_nobody_read_are_removed(driver: FakeDriver, tmp_path: Path) -> None:
    with orders_file(driver.bootstrap(), OutOfReach().launch(NODE)) as (path,):
        assert Path(path).exists()
    assert not Path(path).exists()
    with orders_file(driver.bootstrap(), Launch(["true"])) as arguments:
        assert arguments == []


def test_orders_that_cannot_be_written(driver: FakeDriver, tmp_path: Path) -> None:
    async def play() -> None:
        events = Events()
        launcher = events.launcher(OutOfReach())
        launcher.start(NODE, driver.bootstrap(log=f"{tmp_path}/missing/log".encode()))
        await events.until(1)
        await launcher.close()
        ((kind, _, words),) = events.seen
        assert kind == "failed" and "its orders cannot be written to" in str(words)

    asyncio.run(play())
