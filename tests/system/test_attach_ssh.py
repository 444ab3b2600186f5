"""Nodes that are attached from other hosts, and other hosts that are attached."""

from __future__ import annotations

import json
import signal
import socket
import sys
from collections import Counter
from pathlib import Path

import pytest
from command import until
from pool_run import Attaching
from ssh_run import HELD, QUICK, TELL, Run

from disbatch.model.statusline import Mark

DBUTIL = Path(sys.executable).with_name("dbutil")
HERE = socket.gethostname()
WAITS = "no engines are there; waiting for some"


def start(run: Run, *options: str) -> None:
    """The driver, without nodes."""
    run.start("-S", "-p", "P", *options, "Tasks")
    run.until_said(WAITS)


def attach(run: Run, *options: str, on: str | None = None) -> Attaching:
    """P_dbUtil.sh on the head, or on a host to which somebody logged in from the head."""
    script = run.directory / "P_dbUtil.sh"
    wrapper = run.lab.head(["ssh", on] if on else [])
    return Attaching(script, run.directory, *options, env=run.lab.env, wrapper=wrapper)


def without_socket(run: Run) -> str:
    """The prefix of a connect file by which the driver's Unix socket is not found, as on another machine."""
    connect = json.loads((run.directory / "P_connect.json").read_text())
    connect["addresses"][0] = "ipc:///nowhere/driver"
    (run.directory / "Q_connect.json").write_text(json.dumps(connect))
    return str(run.directory / "Q")


def hosts(run: Run) -> Counter[str]:
    return Counter(told.host for told in run.told)


def test_from_another_host(ssh_run: Run) -> None:
    """Through the driver's socket, if that is seen there, and through its port."""
    ssh_run.tasks("#DISBATCH REPEAT 40 " + TELL)
    start(ssh_run)
    prefix = without_socket(ssh_run)
    wrapper = ssh_run.lab.head(["ssh", "nodeB"])
    words = ("attach", "--run", prefix, "-s", "localhost:1", "-C", "7")
    through_port = Attaching(DBUTIL, ssh_run.directory, *words, env=ssh_run.lab.env, wrapper=wrapper)
    with through_port, attach(ssh_run, "-s", "localhost:1", "-C", "9", on="nodeA") as through_socket:
        ssh_run.until_told(16)
        assert (through_port.ended(), through_socket.ended()) == (0, 0)
        assert through_port.said == ["dbutil: nodeB: joined with 1 slot", "dbutil: nodeB: left"]
    assert hosts(ssh_run) == Counter(nodeA=9, nodeB=7)
    assert "attached from nodeB: nodeB (1 slot)" in ssh_run.stderr
    with attach(ssh_run, "-s", "localhost:2", on="nodeC"):
        assert ssh_run.end() == 0
    ssh_run.check_each_once(40)
    ssh_run.until_gone()


def test_a_local_run_opens_a_port_when_hosts_are_attached(ssh_run: Run) -> None:
    """Not before: from elsewhere there is no way to it."""
    ssh_run.tasks("#DISBATCH REPEAT 12 " + HELD)
    ssh_run.start("-s", "localhost:1", "-p", "P", "Tasks")
    ssh_run.until_told(1)
    prefix = without_socket(ssh_run)
    wrapper = ssh_run.lab.head(["ssh", "nodeB"])
    with Attaching(
        DBUTIL, ssh_run.directory, "pause", "--run", prefix, env=ssh_run.lab.env, wrapper=wrapper
    ) as asked:
        assert asked.ended() == 2
        told = (
            f"on {HERE} can be asked on that machine alone, as the run has no port for other hosts: do it "
            f"there (`ssh {HERE}`), or start the run with --use-address {HERE}:0"
        )
        assert len(asked.said) == 1 and told in asked.said[0]
    with attach(ssh_run, "-s", "nodeA:2") as first:
        ssh_run.until_told(3)
        prefix = without_socket(ssh_run)
        words = ("attach", "--run", prefix, "-s", "localhost:1")
        with Attaching(DBUTIL, ssh_run.directory, *words, env=ssh_run.lab.env, wrapper=wrapper) as second:
            ssh_run.until_told(4)
            assert hosts(ssh_run) == Counter({HERE: 1, "nodeA": 2, "nodeB": 1})
            ssh_run.open_gate()
            assert ssh_run.end() == 0
            assert (first.ended(), second.ended()) == (0, 0)
    ssh_run.check_each_once(12)
    ssh_run.until_gone()


@pytest.mark.parametrize("way", [(), ("--tunnel",)])
def test_hosts_from_the_drivers(ssh_run: Run, way: tuple[str, ...]) -> None:
    ssh_run.tasks("#DISBATCH REPEAT 12 " + HELD)
    start(ssh_run)
    with attach(ssh_run, "-s", "nodeA:1,nodeB:2", *way) as two, attach(ssh_run, "-s", "nodeB:1", *way) as one:
        ssh_run.until_told(4)
        assert hosts(ssh_run) == Counter(nodeA=1, nodeB=3)
        ssh_run.open_gate()
        assert ssh_run.end() == 0
        assert (two.ended(), one.ended()) == (0, 0)
    ssh_run.check_each_once(12)
    ssh_run.until_gone()


def test_a_run_that_has_hosts_gets_more(ssh_run: Run) -> None:
    ssh_run.tasks("#DISBATCH REPEAT 12 " + HELD)
    ssh_run.start("-s", "nodeA:1", "-p", "P", "Tasks")
    ssh_run.until_told(1)
    with attach(ssh_run, "-s", "nodeB:1,nodeC:1", "-l", "more") as more:
        ssh_run.until_told(3)
        ssh_run.open_gate()
        assert ssh_run.end() == 0 and more.ended() == 0
    ssh_run.check_each_once(12)


def test_one_host_of_two_cannot_be_reached(ssh_run: Run) -> None:
    ssh_run.tasks(TELL)
    start(ssh_run)
    with attach(ssh_run, "-s", "nodeX:1") as none:
        assert none.ended() == 3
        assert none.said == ["dbutil: nodeX: no such host (" + none.said[0].partition("(")[2]]
    with attach(ssh_run, "-s", "nodeX:1,nodeA:1") as one:
        assert ssh_run.end() == 0 and one.ended() == 0
    assert ssh_run.stderr.count("nodeX: no such host") == 2


@pytest.mark.parametrize("way", [(), ("--tunnel",)])
def test_killed_its_hosts_go_on(ssh_run: Run, way: tuple[str, ...]) -> None:
    """A tunnel stays, too, as long as an engine speaks through it."""
    ssh_run.tasks("#DISBATCH REPEAT 8 " + HELD)
    start(ssh_run, *QUICK)
    with attach(ssh_run, "-s", "nodeA:2", *way) as killed:
        ssh_run.until_told(2)
        killed.signal(signal.SIGKILL)
        assert killed.ended() == -signal.SIGKILL
    ssh_run.open_gate()
    assert ssh_run.end() == 0
    ssh_run.check_each_once(8)
    assert len(ssh_run.told) == 8
    ssh_run.until_gone()


def test_a_host_that_loses_its_power(ssh_run: Run) -> None:
    ssh_run.tasks("#DISBATCH REPEAT 8 " + HELD)
    start(ssh_run, *QUICK)
    with attach(ssh_run, "-s", "nodeA:2,nodeB:1", "-C", "8") as both:
        ssh_run.until_told(3)
        ssh_run.lab.poweroff("nodeA")
        ssh_run.until_said("nodeA: engine lost: not heard for 6 s; its 2 tasks run again elsewhere")
        both.until_said("nodeA: the driver no longer hears its engine")
        ssh_run.open_gate()
        assert ssh_run.end() == 0 and both.ended() == 0
    ssh_run.check_each_once(8)


def test_a_host_that_is_cut_off_and_comes_back(ssh_run: Run) -> None:
    ssh_run.tasks("#DISBATCH REPEAT 4 " + HELD)
    start(ssh_run, *QUICK)
    with attach(ssh_run, "-s", "nodeA:2") as two:
        ssh_run.until_told(2)
        ssh_run.lab.cut("nodeA")
        ssh_run.until_said("nodeA: engine lost")
        ssh_run.lab.heal("nodeA")
        ssh_run.until_said("nodeA: the engine is heard again and goes on")
        two.until_said("nodeA: the driver hears its engine again")
        ssh_run.open_gate()
        assert ssh_run.end() == 0 and two.ended() == 0
    ssh_run.check_each_once(4)
    assert len(ssh_run.told) == 4


def test_interrupted(ssh_run: Run) -> None:
    ssh_run.tasks("#DISBATCH REPEAT 6 " + HELD)
    start(ssh_run, *QUICK)
    with attach(ssh_run, "-s", "nodeA:2,nodeB:1") as three, attach(ssh_run, "-s", "nodeC:1") as one:
        ssh_run.until_told(4)
        three.signal(signal.SIGINT)
        assert three.ended() == 130
        assert three.said[-1] == "dbutil: nodeA, nodeB: left"
        ssh_run.until_gone("nodeA", "nodeB")
        ssh_run.open_gate()
        assert ssh_run.end() == 0 and one.ended() == 0
    ssh_run.check_each_once(6)
    ended = [record for record in ssh_run.records() if record.mark is Mark.SUPERSEDED]
    assert Counter(record.node for record in ended) == Counter(nodeA=2, nodeB=1)


def test_takeover(ssh_run: Run) -> None:
    """Hosts of two contexts go on, with their limit and label."""
    ssh_run.tasks("#DISBATCH REPEAT 20 " + HELD)
    start(ssh_run, *QUICK)
    with (
        attach(ssh_run, "-s", "nodeA:1,nodeB:1", "-C", "5", "-l", "five") as five,
        attach(ssh_run, "-s", "nodeC:1", "-l", "more") as more,
    ):
        ssh_run.until_told(3)
        ssh_run.kill_driver()
        ssh_run.start("--takeover", "P")
        ssh_run.until_said("all engines are there")
        ssh_run.open_gate()
        assert five.ended() == 0
        done = Counter(record.node for record in ssh_run.counting())
        assert done["nodeA"] + done["nodeB"] == 5
        assert ssh_run.end() == 0 and more.ended() == 0
    ssh_run.check_each_once(20)
    assert len(ssh_run.told) == 20
    ssh_run.until_gone()


def test_from_a_host_to_another(ssh_lab: object, tmp_path: Path) -> None:
    """The tunnel leads to the driver's port then, as its socket is not seen there."""
    run = Run(ssh_lab, tmp_path)
    try:
        run.tasks("#DISBATCH REPEAT 6 " + HELD)
        start(run)
        words = ("attach", "--run", without_socket(run), "-s", "nodeB:2", "--tunnel")
        wrapper = run.lab.head(["ssh", "nodeA"])
        with Attaching(DBUTIL, tmp_path, *words, env=run.lab.env, wrapper=wrapper) as there:
            run.until_told(2)
            run.open_gate()
            assert run.end() == 0 and there.ended() == 0
        assert hosts(run) == Counter(nodeB=6)
        run.check_each_once(6)
        log = until(lambda: run.log("nodeB"), "a log", tmp_path)
        assert "connected to ipc:///tmp/disbatch-" in log
    finally:
        run.close()
