"""How the user hears that engines left by themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from deadline import DEADLINE
from disbatch.driver.departures import Departures


def said(course: Callable[[Departures], None], *, by_slurm: bool) -> list[str]:
    lines: list[str] = []

    async def run() -> None:
        departures = Departures(asyncio.get_running_loop(), lines.append, by_slurm=by_slurm)
        course(departures)
        departures.tell()
        departures.tell()

    asyncio.run(run())
    return lines


@pytest.mark.parametrize(
    ("nodes", "reason", "by_slurm", "line"),
    [
        ("a", "ended by SIGTERM", False, "a: its engine left: ended by SIGTERM"),
        ("a b", "ended by SIGTERM", False, "a, b: their engines left: ended by SIGTERM"),
        (
            "a",
            "ended by SIGTERM",
            True,
            "a: Slurm ended the engine (SIGTERM: cancelled, preempted, or out of time)",
        ),
        (
            "a b c d e f g",
            "ended by SIGTERM",
            True,
            "a, b, c, d, e and 2 more: Slurm ended the engines "
            "(SIGTERM: cancelled, preempted, or out of time)",
        ),
        ("a", "the driver is gone", True, "a: its engine left: the driver is gone"),
    ],
)
def test_one_line(nodes: str, reason: str, by_slurm: bool, line: str) -> None:
    def course(departures: Departures) -> None:
        for node in nodes.split():
            departures.note(node, reason)

    assert said(course, by_slurm=by_slurm) == [line]


def test_a_line_for_each_reason() -> None:
    def course(departures: Departures) -> None:
        departures.note("a", "x")
        departures.note("b", "y")
        departures.note("c", "x")

    assert said(course, by_slurm=False) == ["a, c: their engines left: x", "b: its engine left: y"]


def test_a_line_comes_by_itself() -> None:
    async def run() -> str:
        loop = asyncio.get_running_loop()
        line: asyncio.Future[str] = loop.create_future()
        Departures(loop, line.set_result, by_slurm=False).note("a", "x")
        async with asyncio.timeout(DEADLINE):
            return await line

    assert asyncio.run(run()) == "a: its engine left: x"
