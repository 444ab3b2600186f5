"""Whether the driver is there, and the load of the node, as an engine knows them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from clock_loop import run

from disbatch.engine.liveness import FIRST_HEARTBEAT, DriverWatch, node_load
from disbatch.model.task import Way
from disbatch.wire.engine_protocol import PROTOCOL, Bootstrap, Welcome


def test_of_this_machine() -> None:
    load, used, total = node_load()
    assert load >= 0 and 0 < used < total


@pytest.mark.parametrize(
    ("text", "memory"),
    [
        ("MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:  400 kB\n", (600 << 10, 1000 << 10)),
        ("MemTotal:  1000 kB\nMemAvailable:  4000 kB\n", (0, 1000 << 10)),
        ("MemTotal:  1000 kB\nMemFree: 1 kB\n", (0, 0)),
        ("MemTotal:  0 kB\nMemAvailable:  0 kB\n", (0, 0)),
        ("", (0, 0)),
        ("MemTotal:  many kB\nMemAvailable:  4000 kB\n", (0, 0)),
    ],
)
def test_what_the_kernel_says(tmp_path: Path, text: str, memory: tuple[int, int]) -> None:
    path = tmp_path / "meminfo"
    path.write_text(text)
    assert node_load(str(path))[1:] == memory


def test_a_system_that_does_not_say(tmp_path: Path) -> None:
    assert node_load(str(tmp_path / "none"))[1:] == (0, 0)
    assert node_load(str(tmp_path))[1:] == (0, 0)


class Watched:
    """A watch over a driver that is heard at these times; what it did, and when."""

    def __init__(self, way: Way = Way.SSH, orphan_patience: float = 600.0) -> None:
        self.loop = asyncio.get_running_loop()
        self.heard: float | None = None
        self.beats: list[float] = []
        self.orphaned: list[tuple[float, str]] = []
        orders = Bootstrap(
            *(PROTOCOL, "e", "n", 1, 1.0, b"/", b"/log", [], b"", b"", b"", {}),
            way=way,
            orphan_patience=orphan_patience,
            lifeline=False,
        )
        self.watch = DriverWatch(
            self.loop,
            orders,
            heard=lambda: self.heard,
            beat=lambda: self.beats.append(self.loop.time()),
            orphaned=lambda reason: self.orphaned.append((self.loop.time(), reason)),
        )
        self.watch.start()

    def welcome(self) -> None:
        self.heard = self.loop.time()
        self.watch.welcome(
            Welcome(0, "1", b"", 3.0, 15.0, orphan_patience=60.0, grace=5.0, results_seen=0, next_order=1)
        )

    async def until(self, time: float) -> None:
        await asyncio.sleep(time - self.loop.time())


@pytest.mark.parametrize(
    ("way", "patience", "gone"),
    [(Way.CHILD, 10.0, 120), (Way.SSH, 600.0, 120), (Way.SSH, 50.0, 50), (Way.STEP, 5.0, 5)],
)
def test_a_driver_that_never_answers(way: Way, patience: float, gone: float) -> None:
    async def play() -> Watched:
        watched = Watched(way, patience)
        await watched.until(130)
        watched.watch.close()
        return watched

    watched = run(play())
    first, reason = watched.orphaned[0]
    assert gone < first <= gone + FIRST_HEARTBEAT
    assert reason == f"no message from the driver for {gone} s"
    assert watched.beats == []


def test_a_driver_that_falls_silent(caplog: pytest.LogCaptureFixture) -> None:
    """Its silence is logged once, and again after it was heard; then the engine is an orphan."""

    async def play() -> Watched:
        watched = Watched()
        watched.welcome()
        await watched.until(40)
        silences = [record.message for record in caplog.records if "takeover" in record.message]
        assert len(silences) == 1 and silences[0].startswith("no message from the driver for 15 s")
        watched.heard = 40.0
        watched.watch.answered(known=True)
        await watched.until(99)
        assert len([record for record in caplog.records if "takeover" in record.message]) == 2
        assert watched.orphaned == []
        await watched.until(104)
        watched.watch.close()
        return watched

    watched = run(play())
    assert watched.orphaned[0] == (102.0, "no message from the driver for 60 s")
    assert watched.beats == [3.0 * beat for beat in range(35)]
