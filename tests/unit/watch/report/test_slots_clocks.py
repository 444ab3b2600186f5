"""Wrong clocks are told by the order of lines."""

from __future__ import annotations

from array import array
from pathlib import Path

import pytest
from report_lines import line, reported, write

from disbatch.watch.report.slots import clock_errors

NODES = 3
TASKS = 300


def errors(ahead: dict[int, float]) -> dict[int, float]:
    """Tasks end one after the other, on one node after the other."""
    rows: dict[int, list[int]] = {node: list(range(node, TASKS, NODES)) for node in range(NODES)}
    finishes = array("d", [row + ahead.get(row % NODES, 0.0) for row in range(TASKS)])
    return {node: pytest.approx(by, abs=2) for node, by in clock_errors(rows, finishes).items()}


@pytest.mark.parametrize(
    ("ahead", "found"),
    [
        ({}, {}),
        ({1: 3.0}, {}),
        ({1: 3600.0}, {1: 3600.0}),
        ({2: -90.0}, {2: -90.0}),
        ({0: 3600.0}, {0: 3600.0}),
        ({0: 3600.0, 1: 3600.0}, {2: -3600.0}),
        ({0: 1e9, 1: -50.0}, {0: 1e9, 1: -50.0}),
    ],
)
def test_clocks(ahead: dict[int, float], found: dict[int, float]) -> None:
    assert errors(ahead) == found


def test_one_node_has_no_other_to_compare_with() -> None:
    assert clock_errors({0: [0, 1]}, array("d", [5000.0, 0.0])) == {}


def test_nodes_that_worked_one_after_the_other() -> None:
    """A node that came later finished later: that is no error. One that seems to have come before is."""
    assert clock_errors({0: [0, 1, 2], 1: [3, 4]}, array("d", [0.0, 1.0, 2.0, 900.0, 901.0])) == {}
    late = clock_errors({0: [0, 1, 2], 1: [3, 4]}, array("d", [0.0, 1.0, 2.0, -900.0, -900.0]))
    assert late == {1: pytest.approx(-902)}


def test_long_tasks_that_end_together_are_no_error() -> None:
    rows = {0: [0, 2], 1: [1, 3]}
    assert clock_errors(rows, array("d", [100.0, 5000.0, 9000.0, 9100.0])) == {}


def test_a_wrong_clock_is_put_right_and_told(tmp_path: Path) -> None:
    good = [line(id, id * 1.0, 1.0) for id in range(0, 40, 2)]
    wrong = [line(id, id * 1.0 + 7200, 1.0, node="node2") for id in range(1, 40, 2)]
    path = write(tmp_path / "s", *(each for pair in zip(good, wrong, strict=True) for each in pair))
    report = reported(path)
    assert report.notes == ["node2: its clock seems to be 2:00:00 ahead; corrected in what follows"]
    assert report.seconds == pytest.approx(40, abs=2)
    assert [node.clock for node in report.nodes] == [0, pytest.approx(7200, abs=2)]
