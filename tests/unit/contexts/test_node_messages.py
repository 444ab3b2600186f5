"""contexts/node_messages.py: how the user hears what happened to nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from deadline import DEADLINE
from disbatch.contexts.node_messages import NodeMessages


def said(course: Callable[[NodeMessages], None]) -> list[str]:
    lines: list[str] = []

    async def run() -> None:
        messages = NodeMessages(asyncio.get_running_loop(), lines.append)
        course(messages)
        messages.flush()
        messages.flush()

    asyncio.run(run())
    return lines


@pytest.mark.parametrize(
    ("nodes", "reason", "scheduler", "line"),
    [
        ("a", "ended by SIGTERM", "", "a: its engine left: ended by SIGTERM"),
        ("a b", "ended by SIGTERM", "", "a, b: their engines left: ended by SIGTERM"),
        (
            "a",
            "ended by SIGTERM",
            "Slurm",
            "a: Slurm ended the engine (SIGTERM: cancelled, preempted, or out of time)",
        ),
        (
            "a b c d e f g",
            "ended by SIGTERM",
            "Slurm",
            "a, b, c, d, e and 2 more: Slurm ended the engines "
            "(SIGTERM: cancelled, preempted, or out of time)",
        ),
        ("a", "the driver is gone", "Slurm", "a: its engine left: the driver is gone"),
    ],
)
def test_one_line(nodes: str, reason: str, scheduler: str, line: str) -> None:
    def course(messages: NodeMessages) -> None:
        for node in nodes.split():
            messages.left(node, reason, scheduler=scheduler)

    assert said(course) == [line]


def test_a_line_for_each_reason() -> None:
    def course(messages: NodeMessages) -> None:
        messages.left("a", "x", scheduler="")
        messages.left("b", "y", scheduler="")
        messages.left("c", "x", scheduler="")

    assert said(course) == ["a, c: their engines left: x", "b: its engine left: y"]


def test_a_line_comes_by_itself() -> None:
    async def run() -> str:
        loop = asyncio.get_running_loop()
        line: asyncio.Future[str] = loop.create_future()
        NodeMessages(loop, line.set_result).left("a", "x", scheduler="")
        async with asyncio.timeout(DEADLINE):
            return await line

    assert asyncio.run(run()) == "a: its engine left: x"


def test_nodes_that_join_have_one_line() -> None:
    async def course() -> list[str]:
        said: list[str] = []
        enough = asyncio.Event()

        def write(text: str) -> None:
            said.append(text)
            enough.set()

        messages = NodeMessages(asyncio.get_running_loop(), write)
        for number in range(9):
            messages.joined(f"n{number}", 4)
        assert said == []
        await asyncio.wait_for(enough.wait(), DEADLINE)
        return said

    assert asyncio.run(course()) == ["n0, n1, n2, n3, n4 and 4 more: joined with 36 slots"]
