"""Runs over ssh in which hosts lose power, cables are cut, and engines and drivers are killed."""

from __future__ import annotations

import os
import signal
from collections import Counter

import pytest
from ssh_run import HELD, QUICK, TELL, Run, Told

from disbatch.model.statusline import Mark

TWO = "nodeA:2,nodeB:2"
ALONE = (
    f"trap '' TERM; exec 9> lock; flock -n 9 || : > beside; hostname >> began; {TELL}; "
    "test $(wc -l < began) -gt 1 || sleep 1000"
)
"""Its first copy ends by SIGKILL only; its second one ends at once, and tells if the first is still there."""


def _on(told: list[Told], host: str) -> list[int]:
    return sorted(task for task, where, _ in told if where == host)


def test_a_host_loses_power(ssh_run: Run) -> None:
    ssh_run.tasks("#DISBATCH REPEAT 12 " + HELD)
    ssh_run.start("-s", TWO, *QUICK, "Tasks")
    lost = _on(ssh_run.until_told(4), "nodeA")
    assert len(lost) == 2
    ssh_run.lab.poweroff("nodeA")
    ssh_run.until_said("nodeA: engine lost")
    ssh_run.open_gate()
    assert ssh_run.end() == 0
    records = ssh_run.check_each_once(12)
    assert {record.node for record in records} == {"nodeB"}
    assert ssh_run.stderr.count("engine lost") == 1
    assert "nodeA: engine lost: not heard for 6 s; its 2 tasks run again elsewhere" in ssh_run.stderr
    again = [told for told in ssh_run.told if told.task in lost]
    assert sorted(task for task, where, _ in again if where == "nodeB") == lost


def test_all_hosts_lose_power(ssh_run: Run) -> None:
    ssh_run.tasks("#DISBATCH REPEAT 12 " + HELD)
    ssh_run.start("-s", TWO, *QUICK, "Tasks")
    ssh_run.until_told(4)
    for host in ("nodeA", "nodeB"):
        ssh_run.lab.poweroff(host)
    assert ssh_run.end() == 3
    assert "no engine is left" in ssh_run.stderr
    assert "tasks may still run there, for at most" in ssh_run.stderr
    assert ssh_run.stderr.count("engine lost") == 2
    assert "elsewhere" not in ssh_run.stderr.splitlines()[1]
    assert f"disbatch -s {TWO} {' '.join(QUICK)} Tasks -r {ssh_run.status_file.name}" in ssh_run.stderr
    assert ssh_run.counting() == []


@pytest.mark.parametrize("hosts", [TWO, "nodeA:2"])
def test_a_short_cut_costs_nothing(ssh_run: Run, hosts: str) -> None:
    """Results and orders of the time of the cut arrive when it is healed."""
    slots = 4 if hosts == TWO else 2
    ssh_run.tasks("#DISBATCH REPEAT 12 " + HELD)
    ssh_run.start("-s", hosts, "--patience", "60", "--heartbeat", "0.5", "Tasks")
    ssh_run.until_told(slots)
    ssh_run.lab.cut("nodeA")
    ssh_run.open_gate()
    if hosts == TWO:
        ssh_run.until_told(10)
        assert _on(ssh_run.told, "nodeA") == _on(ssh_run.told[:4], "nodeA")
    ssh_run.lab.heal("nodeA")
    assert ssh_run.end() == 0
    ssh_run.check_each_once(12)
    assert len(ssh_run.told) == len(ssh_run.records()) == 12
    assert "engine lost" not in ssh_run.stderr


def test_a_long_cut(ssh_run: Run) -> None:
    """Four tasks run on nodeA when it is cut, and it is given up. Two of them are then given to nodeB.
    Meanwhile on nodeA one of these ends, and one of the others. When nodeA is back, its late result of a task
    that was replaced does not count, the other one does; what still runs and was replaced is ended there, the
    last one goes on."""
    held = f'{TELL}; test $DISBATCH_TASKID -gt 5 || : < "gate.$DISBATCH_TASKID.$(hostname)"'
    for host in ("nodeA", "nodeB"):
        for task in range(6):
            os.mkfifo(ssh_run.directory / f"gate.{task}.{host}")
    ssh_run.tasks("#DISBATCH REPEAT 12 " + held)
    ssh_run.start("-s", "nodeA:4,nodeB:2", *QUICK, "Tasks")
    ssh_run.until_told(6)
    late, ended, early, kept = away = _on(ssh_run.told, "nodeA")
    there = _on(ssh_run.told, "nodeB")
    ssh_run.lab.cut("nodeA")
    ssh_run.until_said("nodeA: engine lost: not heard for 6 s; its 4 tasks run again elsewhere")
    for task in (late, early):
        (shell,) = ssh_run.attempt(task, "nodeA")
        ssh_run.open_gate(f"gate.{task}.nodeA")
        ssh_run.until_ended(shell)
    for task in there:
        ssh_run.open_gate(f"gate.{task}.nodeB")
    ssh_run.until_told(8)
    assert _on(ssh_run.told[6:], "nodeB") == [late, ended]
    (replaced,) = ssh_run.attempt(ended, "nodeA")
    ssh_run.lab.heal("nodeA")
    ssh_run.until_said("nodeA: the engine is heard again and goes on")
    ssh_run.until_ended(replaced)
    ssh_run.until(lambda: any(host == "nodeA" for _, host, _ in ssh_run.told[8:]), "new work on nodeA")
    ssh_run.open_gate(f"gate.{kept}.nodeA")
    for task in (late, ended):
        ssh_run.open_gate(f"gate.{task}.nodeB")
    assert ssh_run.end() == 0
    records = ssh_run.check_each_once(12)
    nodes = {record.id: record.node for record in records}
    assert [nodes[task] for task in away] == ["nodeB", "nodeB", "nodeA", "nodeA"]
    assert Counter(told.task for told in ssh_run.told) == Counter([*range(12), late, ended])
    assert [(record.id, record.node) for record in ssh_run.records() if record.mark is Mark.SUPERSEDED] == [
        (late, "nodeA")
    ]


def test_orders_that_were_lost_in_a_cut_arrive(ssh_run: Run) -> None:
    """Tasks are given to an idle host whose cable is cut, and the connection breaks before it is healed."""
    read, write = os.pipe()
    ssh_run.start("-s", TWO, "--patience", "60", "--heartbeat", "0.5", "-", stdin=read)
    os.write(write, f"#DISBATCH REPEAT 4 {HELD}\n#DISBATCH BARRIER\n{TELL}\n".encode())
    ssh_run.until_told(4)
    ssh_run.open_gate()
    ssh_run.until_told(5)
    ssh_run.lab.cut("nodeA")
    os.write(write, f"#DISBATCH REPEAT 4 {TELL}\n".encode())
    os.close(write)
    ssh_run.until_told(7)  # those of nodeB, so those of nodeA are on their way, too
    ssh_run.lab.reset_connections("nodeA")
    ssh_run.lab.heal("nodeA")
    assert ssh_run.end() == 0
    os.close(read)
    assert Counter(record.id for record in ssh_run.counting()) == Counter([0, 1, 2, 3, 5, 6, 7, 8, 9])
    assert len(ssh_run.told) == 9
    assert ssh_run.log("nodeA").count("connected to") == 2
    assert "engine lost" not in ssh_run.stderr


def test_an_engine_is_killed(ssh_run: Run) -> None:
    ssh_run.tasks("#DISBATCH REPEAT 8 " + HELD)
    ssh_run.start("-s", TWO, *QUICK, "Tasks")
    ssh_run.until_told(4)
    lost = _on(ssh_run.told, "nodeA")
    (engine,) = ssh_run.engines("nodeA")
    ssh_run.kill(engine)
    ssh_run.until_gone("nodeA")
    ssh_run.until_said("nodeA: engine lost")
    ssh_run.open_gate()
    assert ssh_run.end() == 0
    records = ssh_run.check_each_once(8)
    assert {record.node for record in records} == {"nodeB"}
    assert set(lost) <= set(_on(ssh_run.told, "nodeB"))


def test_patience_shorter_than_a_keeper_takes(ssh_run: Run) -> None:
    """Of an engine that was killed on another host nothing is heard, while its keeper ends its tasks."""
    ssh_run.tasks(ALONE)
    ssh_run.start("-s", "nodeA:1,nodeB:1", "--patience", "1", "--heartbeat", "0.5", "Tasks")
    (first,) = ssh_run.until_told(1)
    (engine,) = ssh_run.engines(first.host)
    ssh_run.kill(engine)
    assert ssh_run.end() == 0, str(ssh_run)
    assert len((ssh_run.directory / "began").read_text().split()) == 2
    assert not (ssh_run.directory / "beside").exists()


def test_the_driver_is_killed_and_the_run_resumed(ssh_run: Run) -> None:
    ssh_run.tasks("#DISBATCH REPEAT 8 " + HELD)
    ssh_run.start("-s", TWO, *QUICK, "--orphan-patience", "4", "Tasks")
    ssh_run.until_told(4)
    ssh_run.kill_driver()
    ssh_run.until_gone()
    former = ssh_run.status_file
    assert ssh_run.counting() == []
    ssh_run.open_gate()
    ssh_run.start("-s", TWO, *QUICK, "-r", former.name, "Tasks")
    assert ssh_run.end() == 0
    ssh_run.check_each_once(8)


def test_a_run_ends_while_a_host_is_cut_off(ssh_run: Run) -> None:
    """What runs there may run until the engine gives up; before, a second run would run it beside itself."""
    ssh_run.tasks("#DISBATCH REPEAT 8 " + HELD)
    ssh_run.start("-s", TWO, *QUICK, "--orphan-patience", "12", "Tasks")
    ssh_run.until_told(4)
    ssh_run.lab.cut("nodeA")
    ssh_run.until_said("nodeA: engine lost")
    ssh_run.signal(signal.SIGTERM)
    assert ssh_run.end() == 128 + signal.SIGTERM
    assert "nodeA: tasks may still run there, for at most 12 s; resume after that" in ssh_run.stderr
    former = ssh_run.status_file
    ssh_run.start("-s", TWO, *QUICK, "-r", former.name, "Tasks")
    assert ssh_run.end() == 2
    assert "nodeA could not be reached when that run ended, and may still run tasks for" in ssh_run.stderr
    ssh_run.lab.heal("nodeA")
    ssh_run.until_gone()
    ssh_run.open_gate()
    ssh_run.start("-s", TWO, *QUICK, "-r", former.name, "Tasks")
    assert ssh_run.end() == 0
    ssh_run.check_each_once(8)


def test_results_that_no_driver_took_count_on_resume(ssh_run: Run) -> None:
    ssh_run.tasks("#DISBATCH REPEAT 4 " + HELD, f"{HELD}")
    ssh_run.start("-s", TWO, *QUICK, "--orphan-patience", "4", "Tasks")
    ssh_run.until_told(4)
    ssh_run.kill_driver()
    ssh_run.open_gate()  # the tasks end, and their results find no driver
    ssh_run.until_gone()
    former = ssh_run.status_file
    assert ssh_run.counting() == []
    unrecorded = sorted(ssh_run.directory.glob("Tasks_*_unrecorded.txt"))
    assert sum(len(ssh_run.records(path)) for path in unrecorded) == 4
    ssh_run.start("-s", TWO, *QUICK, "-r", former.name, "Tasks")
    assert ssh_run.end() == 0
    assert [told.task for told in ssh_run.told[4:]] == [4]
    marks = {record.id: record.mark for record in ssh_run.records()}
    assert marks == {**dict.fromkeys(range(4), Mark.SKIPPED), 4: Mark.TASK}


def test_sigterm_ends_everything_everywhere(ssh_run: Run) -> None:
    stubborn = "trap '' TERM; sleep 1000 & " + HELD
    ssh_run.tasks("#DISBATCH REPEAT 8 " + HELD, "#DISBATCH REPEAT 8 " + stubborn)
    ssh_run.start("-s", "nodeA:2,nodeB:1,nodeC:1,nodeD:8", *QUICK, "Tasks")
    ssh_run.until_told(12)
    ssh_run.signal(signal.SIGTERM)
    assert ssh_run.end() == 143
    ssh_run.until_gone()
    assert ssh_run.counting() == []
    assert "-r " + ssh_run.status_file.name in ssh_run.stderr


def test_sigterm_while_a_host_is_cut_off(ssh_run: Run) -> None:
    """The driver does not wait for it longer than it must, and its engine ends its tasks by itself."""
    ssh_run.tasks("#DISBATCH REPEAT 8 " + HELD)
    ssh_run.start("-s", TWO, *QUICK, "--orphan-patience", "4", "Tasks")
    ssh_run.until_told(4)
    ssh_run.lab.cut("nodeA")
    ssh_run.signal(signal.SIGTERM)
    assert ssh_run.end() == 143
    assert "elsewhere" not in ssh_run.stderr
    ssh_run.until_gone()
    ssh_run.lab.heal("nodeA")


def test_a_host_with_nothing_to_do_is_cut_off(ssh_run: Run) -> None:
    """The run is complete without it."""
    ssh_run.tasks(f"#DISBATCH REPEAT 3 {HELD}", "#DISBATCH BARRIER", f"{TELL}; : < other")
    os.mkfifo(ssh_run.directory / "other")
    ssh_run.start("-s", "nodeA:2,nodeB:1", *QUICK, "--orphan-patience", "4", "Tasks")
    ssh_run.until_told(3)
    ssh_run.open_gate()
    busy = ssh_run.until_told(4)[3].host
    idle = "nodeB" if busy == "nodeA" else "nodeA"
    ssh_run.lab.cut(idle)
    ssh_run.until_said(f"{idle}: engine lost: not heard for 6 s\n")
    ssh_run.open_gate("other")
    assert ssh_run.end() == 0
    assert Counter(record.id for record in ssh_run.counting()) == Counter([0, 1, 2, 4])
    assert {record.node for record in ssh_run.counting() if record.id == 4} == {busy}
    ssh_run.until_gone()
    ssh_run.lab.heal(idle)


def test_who_waited_for_a_host_that_is_cut_off_is_let_go(ssh_run: Run) -> None:
    """nodeB has ended its tasks and waits for the end of the run; the end must not leave it waiting."""
    ssh_run.tasks("#DISBATCH REPEAT 8 " + HELD)
    ssh_run.start("-s", TWO, "--grace", "0.5", "--orphan-patience", "100000", "Tasks")
    ssh_run.until_told(4)
    ssh_run.lab.cut("nodeA")
    ssh_run.signal(signal.SIGTERM)
    ssh_run.until_said("SIGTERM")
    ssh_run.signal(signal.SIGTERM)
    assert ssh_run.end() == 143
    assert "nodeA: engine lost: did not end its tasks in time" in ssh_run.stderr
    assert "nodeB: engine lost" not in ssh_run.stderr
    ssh_run.until_gone("nodeB")
    ssh_run.lab.heal("nodeA")
