"""The chaos test's own checks: forged evidence, of which each flaw must be seen, and processes that stay."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from math import inf
from pathlib import Path

import pytest
from chaos_check import complaints
from chaos_evidence import Attempt, Command, Engine, Evidence, Life, Order, Place, read_records, read_said
from chaos_plan import Flavour, make_plan
from chaos_world import World

from disbatch.model.statusline import Mark, Record

BARRIER = 2
HANDOVER = 60.0
"""When the second life begins."""


def record(id: int, node: str, pid: int, start: float, mark: Mark = Mark.TASK, code: int = 0) -> Record:
    return Record(mark, id, id + 2, -1, node, pid, code, 1.0, start, start + 1, 0, b"", 0, b"", b"x")


def attempt(id: int, engine: str, node: str, pid: int, start: float, *, ended: bool = True) -> Attempt:
    return Attempt(id, engine, Place(node, pid), start + 0.1, start + 0.9 if ended else None)


def sound() -> Evidence:
    """Two lives of two engines, five tasks and a barrier; nothing is wrong. Task 0 runs again because its
    engine was lost, 1 because it was ended by order, 3 is cancelled, and 4 waits for the second life."""
    first = Life(0.0, {name: Engine(name, f"n{name}") for name in "ab"})
    first.records = [
        record(1, "na", 11, 1.0, Mark.SUPERSEDED, -15),
        record(1, "nb", 21, 3.0),
        record(0, "nb", 22, 20.0),
        record(BARRIER, "head", 9, 5.0, Mark.BARRIER),
        record(3, "head", 0, 30.0, code=-15),
        record(4, "nb", 24, 31.0, Mark.SUPERSEDED, -15),
    ]
    first.lost, first.engines["a"].ever_gone = {"na": [15.0]}, True
    second = Life(HANDOVER, {"c": Engine("c", "na")})
    skipped = [record(1, "nb", 21, 3.0, Mark.SKIPPED), record(0, "nb", 22, 20.0, Mark.SKIPPED)]
    cancelled = record(3, "head", 0, 30.0, Mark.SKIPPED, -15)
    barrier = record(BARRIER, "head", 9, 61.0, Mark.BARRIER)
    second.records = [*skipped, barrier, cancelled, record(4, "na", 31, 62.0), record(5, "na", 32, 64.0)]
    attempts = [
        attempt(0, "a", "na", 10, 1.0),
        attempt(1, "a", "na", 11, 1.0, ended=False),
        attempt(1, "b", "nb", 21, 3.0),
        attempt(0, "b", "nb", 22, 20.0),
        attempt(4, "b", "nb", 24, 31.0, ended=False),
        attempt(4, "c", "na", 31, 62.0),
        attempt(5, "c", "na", 32, 64.0),
    ]
    commands = [Command(False, name, -1.0) for name in "abc"] + [Command(True, "c", 66.0)]
    orders = [Order(0, 29.0, inf, range(3, 4)), Order(0, 40.0, 50.0, None)]
    return Evidence(6, [BARRIER], 3, [first, second], attempts, commands, cancelled={3}, orders=orders)


def test_nothing_is_wrong() -> None:
    assert complaints(sound()) == []


def _never_ended(evidence: Evidence) -> None:
    evidence.attempts[-1].end = None


def _never_began(evidence: Evidence) -> None:
    evidence.attempts.pop()


def _on_another_node(evidence: Evidence) -> None:
    evidence.attempts[-1].place = Place("nb", 32)


def _ended_after_it_was_recorded(evidence: Evidence) -> None:
    evidence.attempts[-1].end = 66.0


def _recorded_twice(evidence: Evidence) -> None:
    evidence.lives[1].records.append(record(5, "na", 33, 66.0))
    evidence.attempts.append(attempt(5, "c", "na", 33, 66.0))


def _one_attempt_twice(evidence: Evidence) -> None:
    evidence.lives[1].records.append(record(5, "na", 32, 64.0, Mark.SUPERSEDED))


def _missing(evidence: Evidence) -> None:
    evidence.lives[1].records.pop()


def _barrier_missing(evidence: Evidence) -> None:
    evidence.lives[1].records = [r for r in evidence.lives[1].records if r.mark is not Mark.BARRIER]


def _failed_by_nobody(evidence: Evidence) -> None:
    evidence.lives[1].records[-1] = record(5, "na", 32, 64.0, code=-9)


def _cancelled_by_nobody(evidence: Evidence) -> None:
    evidence.cancelled.clear()


def _given_up_without_a_loss(evidence: Evidence) -> None:
    evidence.lives[0].lost.clear()
    evidence.lives[1].records[-1] = record(5, "na", 0, 64.0, code=-100)


def _result_dropped(evidence: Evidence) -> None:
    evidence.attempts.append(attempt(5, "b", "nb", 25, 31.0))


def _not_skipped(evidence: Evidence) -> None:
    evidence.lives[1].records[0] = record(1, "na", 33, 66.0)
    evidence.attempts.append(attempt(1, "c", "na", 33, 66.0))


def _left_by_an_engine_and_not_skipped(evidence: Evidence) -> None:
    evidence.lives[0].unrecorded.append(record(5, "nb", 25, 31.0))
    evidence.attempts.append(attempt(5, "b", "nb", 25, 31.0))


def _started_beside_one_that_counts(evidence: Evidence) -> None:
    evidence.attempts.append(attempt(5, "c", "na", 33, 64.5, ended=False))


def _lost_after_it_was_started_again(evidence: Evidence) -> None:
    evidence.lives[0].lost = {"na": [25.0]}


def _lost_and_back_before_it_began(evidence: Evidence) -> None:
    evidence.lives[0].lost, evidence.lives[0].joined = {"na": [-9.0]}, {"na": [-8.0]}


def _not_lost_at_all(evidence: Evidence) -> None:
    evidence.lives[0].engines["a"].ever_gone = False


def _ended_by_order_too_late(evidence: Evidence) -> None:
    evidence.lives[0].records[0] = record(1, "na", 11, 3.0, Mark.SUPERSEDED, -15)


def _ran_on_into_the_next_life(evidence: Evidence) -> None:
    evidence.attempts[4].end = 63.0


def _by_a_run_that_was_resumed(evidence: Evidence) -> None:
    evidence.attempts.append(attempt(5, "b", "nb", 25, 70.0, ended=False))


def _before_the_barrier(evidence: Evidence) -> None:
    evidence.attempts[3].start, evidence.attempts[4].start = 2.0, 2.5


def _beyond_the_limit(evidence: Evidence) -> None:
    evidence.lives[1].limits[""] = 1


def _command_twice(evidence: Evidence) -> None:
    evidence.commands.append(Command(False, "a", -0.5))


def _stop_command_twice(evidence: Evidence) -> None:
    evidence.commands.append(Command(True, "c", 67.0))


def _no_command(evidence: Evidence) -> None:
    del evidence.commands[2]


def _after_the_stop_command(evidence: Evidence) -> None:
    evidence.commands.append(Command(True, "b", 30.0))


def _although_it_was_cancelled(evidence: Evidence) -> None:
    evidence.attempts.append(attempt(3, "b", "nb", 25, 32.0, ended=False))


def _although_the_run_was_paused(evidence: Evidence) -> None:
    evidence.attempts.append(attempt(5, "b", "nb", 25, 43.0, ended=False))


FLAWS: list[tuple[Callable[[Evidence], None], str]] = [
    (_never_ended, "task 5, recorded with 0 of .*: it never came to its end"),
    (_never_began, "task 5, recorded with 0 of .*: it never began there"),
    (_on_another_node, "task 5, recorded with 0 of .*: it never began there"),
    (_ended_after_it_was_recorded, "task 5, recorded with 0 of .*: its times are"),
    (_recorded_twice, "life 1: task 5 is done 2 times"),
    (_one_attempt_twice, "life 1: 2 lines of one attempt"),
    (_missing, "task 5 is missing"),
    (_barrier_missing, "barrier 2 is not complete"),
    (_failed_by_nobody, "task 5, recorded with -9 of .*: nobody made it fail"),
    (_cancelled_by_nobody, "task 3, recorded with -15 of .*: nobody made it fail"),
    (_given_up_without_a_loss, "task 5, recorded with -100 of .*: no engine was lost"),
    (_result_dropped, "task 5 ended, and nothing of it is recorded"),
    (_not_skipped, "task 1 was done in life 0, and life 1 did not skip it"),
    (_left_by_an_engine_and_not_skipped, "task 5 was done in life 0, and life 1 did not skip it"),
    (_started_beside_one_that_counts, "task 5 was started again: the attempt before counted"),
    (_lost_after_it_was_started_again, "task 0 was started again: the attempt before counted"),
    (_lost_and_back_before_it_began, "task 0 was started again: the attempt before counted"),
    (_not_lost_at_all, "task 0 was started again: the attempt before counted"),
    (_ended_by_order_too_late, "task 1 was started again: the attempt before counted"),
    (_ran_on_into_the_next_life, "task 4 was started again: the attempt of the former life ran on"),
    (_by_a_run_that_was_resumed, "task 5 was started again: by a run that was resumed already"),
    (_before_the_barrier, "task 0 ended after tasks behind barrier 2 were started"),
    (_beyond_the_limit, "life 1: 2 tasks of context the driver's own, whose limit is 1"),
    (_command_twice, "engine a: 2 START commands"),
    (_stop_command_twice, "engine c: 2 STOP commands"),
    (_no_command, "engine c: task 4 began before the START command"),
    (_although_it_was_cancelled, "task 3 was started after it was told not to be"),
    (_although_the_run_was_paused, "a task was started after it was told not to be"),
    (_after_the_stop_command, "engine b: task 4 began after the STOP command"),
]


@pytest.mark.parametrize(("spoil", "words"), FLAWS, ids=[spoil.__name__.strip("_") for spoil, _ in FLAWS])
def test_each_flaw_is_seen(spoil: Callable[[Evidence], None], words: str) -> None:
    import re

    evidence = sound()
    spoil(evidence)
    found = complaints(evidence)
    assert any(re.match(words, line) for line in found), found


def test_an_engine_that_did_not_hear_that_it_was_given_up() -> None:
    """It starts what it had, after others were given that; and again when it was back, which is too late."""
    evidence = sound()
    evidence.attempts.append(attempt(0, "a", "na", 12, 22.0, ended=False))
    assert complaints(evidence) == []
    evidence.lives[0].joined = {"na": [19.0]}
    (found,) = complaints(evidence)
    assert found.startswith("task 0 was started again: the attempt before counted")


def test_what_only_the_engine_tells() -> None:
    """Its driver was killed: that it ended a task by order, or that it gave the driver up."""
    evidence = sound()
    del evidence.lives[0].records[0]
    assert complaints(evidence)
    evidence.lives[0].ordered = {("na", 1 + 3): [2.5]}
    assert complaints(evidence) == []
    evidence.lives[0].ordered = {("na", 1 + 3): [0.5, 3.5]}
    assert complaints(evidence)
    evidence.lives[0].ordered, evidence.lives[0].orphaned = {}, {"na": [2.5]}
    assert complaints(evidence) == []
    evidence.lives[0].orphaned = {"na": [3.5]}
    assert complaints(evidence)


def test_another_attempt_was_recorded_when_the_driver_was_replaced() -> None:
    evidence = sound()
    evidence.attempts.append(attempt(1, "b", "nb", 25, 2.6))
    evidence.lives[0].records[0] = record(1, "na", 11, 1.0, Mark.SUPERSEDED, -15)
    evidence.lives[0].drivers = [0.0]
    assert any("nothing of it is recorded" in line for line in complaints(evidence))
    evidence.lives[0].drivers = [0.0, 10.0]
    assert not any("nothing of it is recorded" in line for line in complaints(evidence))


def test_what_tasks_say() -> None:
    attempts, commands, odd = read_said(
        "A 0 e n 4 1.0\nZ 0 e n 4 9.0\nS 7 e n 5 2.0\nS 8 e n 6 2,5\nE 7 e n 5 3.0\nE 9 e n 7 4.0\nS 1 e n\n"
    )
    assert attempts == [Attempt(7, "e", Place("n", 5), 2.0, 3.0), Attempt(8, "e", Place("n", 6), 2.5)]
    assert commands == [Command(False, "e", 1.0), Command(True, "e", 9.0)]
    assert odd == ["E 9 e n 7 4.0", "S 1 e n"]


def test_a_status_file_with_something_else_in_it(tmp_path: Path) -> None:
    path = tmp_path / "status"
    path.write_text("this is none\n")
    with pytest.raises(ValueError, match="not all lines"):
        read_records(path)


def test_processes_that_stay_are_seen(tmp_path: Path) -> None:
    """By the run's mark in the environment, and engines by what they are called."""
    world = World(tmp_path, None)
    named = ["python3", "-c", "import time; time.sleep(600)", "disbatch.engine"]
    staying = [
        subprocess.Popen(["sleep", "600"], env=world.environment),
        subprocess.Popen(named, cwd=tmp_path, env={"PATH": os.environ["PATH"]}),
    ]
    try:
        assert {p.pid for p in world.until_gone(world.processes, 0.5)} == {p.pid for p in staying}
        for each in staying:
            each.send_signal(signal.SIGKILL)
        assert world.until_gone(world.processes, 30) == []
    finally:
        for each in staying:
            each.kill()
            each.wait()


def test_a_seed_means_one_plan() -> None:
    for flavour in Flavour:
        assert make_plan(flavour, 5, "here") == make_plan(flavour, 5, "here")
        assert make_plan(flavour, 5, "here").steps != make_plan(flavour, 6, "here").steps
