"""Runs whose engines reach the driver inside ssh connections only: --tunnel."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest
from processes import command_line
from ssh_run import DEADLINE, HELD, QUICK, TELL, Run

from disbatch.contexts.ssh import TUNNEL_MARK, SshOptions, Tunnel, new_place
from disbatch.model.statusline import Mark

TWO = "nodeA:2,nodeB:2"


def _listening(run: Run) -> str:
    """The TCP sockets on the head that listen."""
    done: str = run.lab.on_head(["ss", "-Htln"])
    return done


def _tunnels(run: Run, host: str) -> list[int]:
    """The driver's ssh processes that carry a tunnel to a host."""
    commands = {pid: command_line(pid) for pid in run.children()}
    return [pid for pid, command in commands.items() if " -R " in command and f" -- {host} " in command]


def test_no_port_is_open(ssh_run: Run) -> None:
    ssh_run.tasks(f"#DISBATCH REPEAT 8 {HELD}")
    ssh_run.start("-s", TWO, "--tunnel", "Tasks")
    ssh_run.until_told(4)
    assert _listening(ssh_run) == ""
    ssh_run.open_gate()
    assert ssh_run.end() == 0
    ssh_run.check_each_once(8)
    ssh_run.until_gone()
    assert "connected to ipc:///tmp/disbatch-" in ssh_run.log("nodeA")


def test_a_tunnel_is_killed_in_mid_run(ssh_run: Run) -> None:
    ssh_run.tasks(f"#DISBATCH REPEAT 8 {HELD}")
    ssh_run.start("-s", TWO, "--tunnel", "--patience", "60", "Tasks")
    ssh_run.until_told(4)
    (tunnel,) = _tunnels(ssh_run, "nodeA")
    ssh_run.kill(tunnel)
    ssh_run.open_gate()
    ssh_run.until_said("nodeA: the tunnel works again")
    assert ssh_run.end() == 0
    ssh_run.check_each_once(8)
    assert len(ssh_run.told) == 8
    lines = [line for line in ssh_run.stderr.splitlines() if line.startswith("disbatch: nodeA: ")]
    assert lines == [
        "disbatch: nodeA: the tunnel broke: ssh was ended by signal 9; making it again",
        "disbatch: nodeA: the tunnel works again",
    ]


def test_a_cut_shorter_than_the_patience(ssh_run: Run) -> None:
    ssh_run.tasks(f"#DISBATCH REPEAT 12 {HELD}")
    ssh_run.start("-s", TWO, "--tunnel", "--patience", "60", "--heartbeat", "0.5", "Tasks")
    ssh_run.until_told(4)
    ssh_run.lab.cut("nodeA")
    ssh_run.open_gate()
    ssh_run.until_told(10)
    ssh_run.lab.heal("nodeA")
    assert ssh_run.end() == 0
    ssh_run.check_each_once(12)
    assert len(ssh_run.told) == 12


def test_a_cut_that_breaks_the_tunnel_and_outlasts_the_patience(ssh_run: Run) -> None:
    ssh_run.tasks(f"#DISBATCH REPEAT 8 {HELD}")
    ssh_run.start("-s", TWO, "--tunnel", *QUICK, "Tasks")
    ssh_run.until_told(4)
    away = sorted(task for task, host, _ in ssh_run.told if host == "nodeA")
    ssh_run.lab.cut("nodeA")
    ssh_run.until_said("nodeA: engine lost")
    (tunnel,) = _tunnels(ssh_run, "nodeA")
    ssh_run.kill(tunnel)
    ssh_run.until_said("nodeA: the tunnel broke")
    ssh_run.lab.heal("nodeA")
    ssh_run.until_said("nodeA: the engine is heard again and goes on")
    ssh_run.open_gate()
    assert ssh_run.end() == 0
    nodes = {record.id: record.node for record in ssh_run.check_each_once(8)}
    assert [nodes[task] for task in away] == ["nodeA", "nodeA"]  # nobody else had room for them meanwhile
    assert not [record for record in ssh_run.records() if record.mark is Mark.SUPERSEDED]


def test_sigterm_ends_everything(ssh_run: Run) -> None:
    ssh_run.tasks(f"#DISBATCH REPEAT 8 {HELD}")
    ssh_run.start("-s", TWO, "--tunnel", *QUICK, "Tasks")
    ssh_run.until_told(4)
    ssh_run.signal(signal.SIGTERM)
    assert ssh_run.end() == 143
    ssh_run.until_gone()


def test_the_driver_is_killed(ssh_run: Run) -> None:
    """Tunnels end with the driver, and the engines notice soon."""
    ssh_run.tasks(f"#DISBATCH REPEAT 8 {TELL}; sleep 1000")
    ssh_run.start("-s", TWO, "--tunnel", *QUICK, "--orphan-patience", "3", "Tasks")
    ssh_run.until_told(4)
    tunnels = [pid for host in ("nodeA", "nodeB") for pid in _tunnels(ssh_run, host)]
    assert len(tunnels) == 2
    ssh_run.kill_driver()
    for pid in tunnels:
        ssh_run.until_ended(pid)
    ssh_run.until_gone()


def test_closing_does_not_wait_for_a_host_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ssh").write_text(f"#!/bin/sh\necho {TUNNEL_MARK}\nexec sleep 1000\n")
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    async def play() -> None:
        tunnel = Tunnel(
            asyncio.get_running_loop(),
            "host",
            SshOptions(connect_timeout=1000),
            str(tmp_path / "driver"),
            new_place(),
            trouble=print,
            timeout=DEADLINE,
        )
        async with asyncio.timeout(DEADLINE):
            await tunnel.open()
            await tunnel.close(0.1)

    asyncio.run(play())
