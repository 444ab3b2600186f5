"""A node that is slow, or on which tasks fail, stands out; chance does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from report_lines import line, reported, write

from disbatch.watch.report.figures import Node

Take = Callable[[int, Random], float]


def usual(node: int, random: Random) -> float:
    return random.lognormvariate(1, 0.6)


def compared(path: Path, nodes: int, tasks: int, take: Take, fail: Take = lambda node, _: 0.0) -> list[Node]:
    """Nodes of one slot that take turns; `take` says for how long, `fail` how likely a task fails."""
    random = Random(5)
    free = [0.0] * nodes
    lines = []
    for id in range(tasks):
        node = id % nodes
        took = round(take(node, random), 3)
        code = int(random.random() < fail(node, random))
        lines.append(line(id, free[node], took, node=f"node{node}", code=code))
        free[node] += took
    return reported(write(path / "s", *lines)).nodes


def remarks(nodes: list[Node]) -> dict[str, list[str]]:
    return {node.name: node.remarks for node in nodes if node.remarks}


@pytest.mark.parametrize("nodes", [2, 4, 40])
def test_a_slow_node(tmp_path: Path, nodes: int) -> None:
    def take(node: int, random: Random) -> float:
        return usual(node, random) * (3 if node == 1 else 1)

    found = compared(tmp_path, nodes, 60 * nodes, take)
    assert "slow" in remarks(found)["node1"]
    slow = found[1]
    assert slow.ratio is not None
    assert slow.ratio > 1.3
    assert set(remarks(found)) == {"node1"} or nodes == 2


def test_a_node_that_fails(tmp_path: Path) -> None:
    found = compared(tmp_path, 8, 400, usual, lambda node, _: 0.5 if node == 3 else 0.01)
    assert remarks(found) == {"node3": ["fails"]}


def test_two_nodes_of_which_one_fails(tmp_path: Path) -> None:
    found = compared(tmp_path, 2, 200, usual, lambda node, _: 0.4 if node == 1 else 0.0)
    assert remarks(found) == {"node1": ["fails"]}


@pytest.mark.parametrize(("nodes", "tasks"), [(2, 20), (10, 1000), (500, 5000), (2000, 4000)])
def test_nodes_that_are_alike(tmp_path: Path, nodes: int, tasks: int) -> None:
    assert remarks(compared(tmp_path, nodes, tasks, usual, lambda node, _: 0.02)) == {}


def test_tasks_that_fail_everywhere(tmp_path: Path) -> None:
    assert remarks(compared(tmp_path, 4, 100, usual, lambda node, _: 1.0)) == {}


def test_one_node_is_not_compared(tmp_path: Path) -> None:
    (node,) = compared(tmp_path, 1, 50, usual, lambda node, _: 0.5)
    assert (node.remarks, node.slots, node.tasks) == ([], 1, 50)


def test_how_busy_a_node_was_while_it_was_there(tmp_path: Path) -> None:
    path = write(tmp_path / "s", line(0, 0, 100), line(1, 50, 5, node="b"), line(2, 60, 5, node="b"))
    busy = {node.name: node.busy for node in reported(path).nodes}
    assert busy == {"node1": 1.0, "b": pytest.approx(10 / 15)}
