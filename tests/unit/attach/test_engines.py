"""What is said and done when engines of an attached context come and go, as histories."""

from __future__ import annotations

import asyncio

import pytest

from disbatch.attach.engines import LaunchedEngines
from disbatch.contexts.node_messages import NodeMessages
from disbatch.contexts.nodes import Node
from disbatch.contexts.pool import Pool
from disbatch.model.task import Way
from disbatch.wire.client_protocol import Fate

JOINED, LOST, LEFT, SPARE = Fate.JOINED, Fate.LOST, Fate.LEFT, Fate.SPARE


class Owner:
    """Notes what it is told of nodes."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def joined(self, node: str) -> None:
        self.told.append(f"{node} in use")

    def retire(self, node: str, return_code: int, *, spare: bool) -> None:
        self.told.append(f"{node} retired {return_code}{' spare' if spare else ''}")

    async def finish(self) -> None:
        self.told.append("finished")

    def abandon(self) -> None:
        self.told.append("abandoned")


class Bench:
    """Two nodes, n1 with two slots and n2 with one."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.lines = NodeMessages(asyncio.get_running_loop(), self.said.append)
        nodes = [Node("n1", 2, 2, Way.SSH, 1.0), Node("n2", 1, 1, Way.SSH, 1.0)]
        self.party = LaunchedEngines(Pool(nodes=nodes), "here", self.lines)
        self.owner = self.party.retirement = Owner()
        self.n1, self.n2 = self.party.engines.values()

    def tell(self, *history: tuple[str, Fate]) -> list[str]:
        """What was said of that."""
        for node, fate in history:
            self.party.became(self.n1 if node == "n1" else self.n2, fate)
        self.lines.flush()
        said, self.said[:] = list(self.said), []
        return said


@pytest.mark.parametrize(
    ("history", "said", "told", "staying"),
    [
        ([("n1", JOINED), ("n2", JOINED)], ["n1, n2: joined with 3 slots"], ["n1 in use", "n2 in use"], True),
        (
            [("n1", JOINED), ("n1", SPARE), ("n2", LEFT)],
            ["n1: joined with 2 slots", "n1: left", "n2: no longer needs to join"],
            ["n1 in use", "n1 retired 0 spare"],
            False,
        ),
        (
            [("n1", JOINED), ("n1", LOST), ("n1", JOINED), ("n2", JOINED), ("n2", LEFT)],
            [
                "n1: joined with 2 slots",
                "n1: the driver no longer hears its engine",
                "n1: the driver hears its engine again",
                "n2: joined with 1 slot",
                "n2: left",
            ],
            ["n1 in use", "n2 in use", "n2 retired 0"],
            True,
        ),
        # A driver that takes the run over tells it all again.
        (
            [("n1", JOINED), ("n1", JOINED), ("n1", SPARE), ("n1", SPARE), ("n2", LEFT), ("n2", LEFT)],
            ["n1: joined with 2 slots", "n1: left", "n2: no longer needs to join"],
            ["n1 in use", "n1 retired 0 spare"],
            False,
        ),
        # One that did not come in time may come all the same.
        ([("n1", LEFT), ("n1", JOINED), ("n2", LEFT)], None, ["n1 in use"], True),
    ],
)
def test_histories(
    history: list[tuple[str, Fate]], said: list[str] | None, told: list[str], *, staying: bool
) -> None:
    async def course() -> None:
        bench = Bench()
        assert bench.tell(*history) == said or said is None
        assert bench.owner.told == told
        assert bench.party.is_staying is staying

    asyncio.run(course())


def test_what_we_know_first_is_not_said_twice() -> None:
    """A process that ended, and a launch that failed."""

    async def course() -> None:
        bench = Bench()
        bench.tell(("n1", JOINED))
        assert bench.party.exited(bench.n1, 9, "it ended with signal 9")
        bench.party.failed(bench.n2, "n2: no such host")
        assert bench.said == ["n1: its engine is gone: it ended with signal 9", "n2: no such host"]
        bench.said.clear()
        assert bench.tell(("n1", LOST), ("n2", LEFT)) == []
        assert bench.owner.told == ["n1 in use", "n1 retired 9"]
        assert (bench.party.failures, bench.party.came, bench.party.is_staying) == (2, True, False)
        assert not bench.party.exited(bench.n1, 9, "again") and not bench.party.ended_by_others

    asyncio.run(course())


def test_a_process_that_ends_before_the_driver_tells() -> None:
    async def course() -> None:
        bench = Bench()
        bench.tell(("n1", JOINED))
        assert bench.party.exited(bench.n1, 0, "it ended")
        assert bench.tell(("n1", LEFT)) == ["n1: left"]
        assert (bench.party.failures, bench.party.ended_by_others) == (0, True)

    asyncio.run(course())


def test_going() -> None:
    async def course(*, at_once: bool) -> list[str]:
        bench = Bench()
        bench.tell(("n1", JOINED), ("n2", JOINED), ("n2", LOST))
        bench.owner.told.clear()
        assert bench.party.lost == {bench.n2.id}
        await bench.party.go(at_once=at_once)
        assert not bench.party.is_staying
        return bench.owner.told

    retired = ["n1 retired 0", "n2 retired 0", "finished"]
    assert asyncio.run(course(at_once=False)) == retired
    assert asyncio.run(course(at_once=True)) == ["abandoned", *retired]
