"""Processes of this host that are no children of the driver: their end is noticed."""

from __future__ import annotations

import asyncio
import os
import subprocess

import pytest

from disbatch.driver.process_watch import ProcessWatch
from disbatch.engine import process_tree

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs pidfds")


def test_the_end_of_a_process_is_noticed_once() -> None:
    async def play() -> list[str]:
        ended: list[str] = []
        watch = ProcessWatch(asyncio.get_running_loop(), ended.append)
        with subprocess.Popen(["sleep", "1000"]) as process:
            seen = process_tree.look(process.pid)
            assert seen is not None
            assert not watch.watch("other", process.pid, seen.start + 1), "a later process with that pid"
            assert watch.watch("e", process.pid, seen.start) and watch.watch("e", process.pid, seen.start)
            assert "e" in watch and "other" not in watch
            watch.end("e")
            await watch.close(60.0)
            assert "e" not in watch
        assert not watch.watch("e", process.pid, seen.start), "it is gone"
        return ended

    assert asyncio.run(play()) == ["e"]


def test_what_has_not_ended_in_time_is_not_watched_any_more() -> None:
    async def play() -> None:
        watch = ProcessWatch(asyncio.get_running_loop(), lambda engine: None)
        with subprocess.Popen(["sleep", "1000"]) as process:
            assert watch.watch("e", process.pid, 0)
            await watch.close(0.01)
            assert "e" not in watch
            process.kill()

    asyncio.run(play())
