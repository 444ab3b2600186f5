"""kill -9 of a driver whose engines are behind ssh, then `disbatch --takeover`."""

from __future__ import annotations

import os
import re

from ssh_run import HELD, QUICK, Run

from disbatch.model.statusline import Mark

TWO = "nodeA:2,nodeB:2"


def test_tasks_on_other_hosts_run_on(ssh_run: Run) -> None:
    ssh_run.tasks("#DISBATCH REPEAT 8 " + HELD)
    ssh_run.start("-s", TWO, *QUICK, "-p", "P", "Tasks")
    ssh_run.until_told(4)
    ssh_run.kill_driver()
    ssh_run.start("--takeover", "P")
    ssh_run.until_said("all engines are there")
    ssh_run.open_gate()
    assert ssh_run.end() == 0
    ssh_run.check_each_once(8)
    assert sorted(told.task for told in ssh_run.told) == list(range(8)), "started once"
    ssh_run.until_gone()


def test_results_of_a_time_without_driver(ssh_run: Run) -> None:
    ssh_run.tasks("#DISBATCH REPEAT 8 " + HELD)
    ssh_run.start("-s", TWO, *QUICK, "-p", "P", "Tasks")
    ssh_run.until_told(4)
    ssh_run.kill_driver()
    ssh_run.open_gate()
    ssh_run.start("--takeover", "P")
    assert ssh_run.end() == 0
    ssh_run.check_each_once(8)
    assert sorted(told.task for told in ssh_run.told) == list(range(8))
    ssh_run.until_gone()


def test_a_host_that_comes_late_has_its_tasks_back(ssh_run: Run) -> None:
    """It was cut off when the driver was replaced: its node could not be started anew either."""
    ssh_run.tasks("#DISBATCH REPEAT 4 " + HELD)
    ssh_run.start("-s", TWO, *QUICK, "-p", "P", "Tasks")
    ssh_run.until_told(4)
    there = [told.task for told in ssh_run.told if told.host == "nodeA"]
    ssh_run.lab.cut("nodeA")
    ssh_run.kill_driver()
    ssh_run.start("--takeover", "P")
    ssh_run.until_said("starting anew there")
    ssh_run.lab.heal("nodeA")
    ssh_run.until_said("nodeA: the engine of the former driver has reconnected late")
    ssh_run.open_gate()
    assert ssh_run.end() == 0
    records = ssh_run.check_each_once(4)
    assert {record.id for record in records if record.node == "nodeA"} >= set(there)
    assert all(record.mark in (Mark.TASK, Mark.SUPERSEDED) for record in ssh_run.records())
    ssh_run.until_gone()


def test_tunnels_are_made_again(ssh_run: Run) -> None:
    """The engines find the new driver where the old one was: at a path on their own hosts."""
    ssh_run.tasks("#DISBATCH REPEAT 8 " + HELD)
    ssh_run.start("-s", TWO, "--tunnel", "-p", "P", "Tasks")
    ssh_run.until_told(4)
    for _ in range(2):
        ssh_run.kill_driver()
        ssh_run.start("--takeover", "P")
        ssh_run.until_said("all engines are there")
    assert ssh_run.lab.on_head(["ss", "-Htln"]) == ""
    ssh_run.open_gate()
    assert ssh_run.end() == 0
    ssh_run.check_each_once(8)
    assert sorted(told.task for told in ssh_run.told) == list(range(8)), "started once"
    ssh_run.until_gone()
    ends = {path for host in ("nodeA", "nodeB") for path in tunnel_ends(ssh_run, host)}
    assert len(ends) == 2 and not any(map(os.path.lexists, ends)), "the hosts share /tmp with the head"


def tunnel_ends(run: Run, host: str) -> list[str]:
    """Where the engine on that host found a driver, each time."""
    return re.findall(r"connected to ipc://(\S+)", run.log(host))


def test_host_whose_tunnel_cannot_be_made_at_once(ssh_run: Run) -> None:
    ssh_run.tasks("#DISBATCH REPEAT 4 " + HELD)
    ssh_run.start("-s", TWO, *QUICK, "--tunnel", "--patience", "60", "-p", "P", "Tasks")
    ssh_run.until_told(4)
    ssh_run.lab.cut("nodeA")
    ssh_run.kill_driver()
    ssh_run.start("--takeover", "P")
    ssh_run.until_said("nodeA: no tunnel")
    ssh_run.lab.heal("nodeA")
    ssh_run.until_said("nodeA: the tunnel works again")
    ssh_run.until_said("all engines are there")
    ssh_run.open_gate()
    assert ssh_run.end() == 0
    ssh_run.check_each_once(4)
    assert len(ssh_run.told) == 4
    ssh_run.until_gone()


def test_engine_that_ends_while_it_is_expected(ssh_run: Run) -> None:
    """What it left beside the status file is recorded, not done again."""
    ssh_run.tasks("#DISBATCH REPEAT 4 " + HELD)
    patience = ("--orphan-patience", "3", "--grace", "0.5")
    ssh_run.start("-s", "nodeA:2", *QUICK, *patience, "-p", "P", "Tasks")
    ssh_run.until_told(2)
    ssh_run.lab.cut("nodeA")
    ssh_run.kill_driver()
    ssh_run.start("--takeover", "P", "--patience", "12")
    ssh_run.until_said("expecting the engines of nodeA")
    ssh_run.open_gate()
    ssh_run.until(lambda: "INFO gone" in ssh_run.log("nodeA"), "the engine's end")
    ssh_run.lab.heal("nodeA")
    assert ssh_run.end() == 0
    ssh_run.check_each_once(4)
    assert sorted(told.task for told in ssh_run.told) == [0, 1, 2, 3]
    ssh_run.until_gone()
