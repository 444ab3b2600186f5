"""Whole runs over ssh: where tasks run and what they find, and hosts that cannot be used."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest
from processes import command_line
from ssh_run import HELD, Run, most_at_once

ALL = "nodeA:3,nodeB:1,nodeC:2,nodeD:4"


def _slots(run: Run) -> dict[str, int]:
    """Checks that no node ran more at once than it has slots, as the summary names them; by node."""
    records = run.counting()
    return {
        node: most_at_once([record for record in records if record.node == node])
        for node in {record.node for record in records}
    }


def _held_run(run: Run, at_once: int, tasks: int, *arguments: str) -> Counter[str]:
    """Run held tasks until `at_once` of them run; where these are, once all is done and checked."""
    run.tasks(f"#DISBATCH REPEAT {tasks} {HELD}")
    run.start(*arguments, "Tasks")
    first = Counter(host for _, host, _ in run.until_told(at_once))
    run.open_gate()
    assert run.end() == 0
    run.check_each_once(tasks)
    assert len(run.told) == tasks
    most = _slots(run)
    assert all(most[host] <= first[host] for host in first), str(run)
    return first


def test_four_hosts_with_uneven_counts(ssh_run: Run) -> None:
    first = _held_run(ssh_run, 10, 40, "-s", ALL)
    assert first == Counter({"nodeA": 3, "nodeB": 1, "nodeC": 2, "nodeD": 4})
    slots = {host: {slot for _, where, slot in ssh_run.told if where == host} for host in first}
    assert slots == {host: set(range(count)) for host, count in first.items()}
    assert "of 10 slots on 4 nodes" in ssh_run.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-c", "2", "-s", "nodeA:4", "-s", "nodeB:3"], {"nodeA": 2, "nodeB": 1}),
        (["-c", "0.5", "-s", "nodeA:1,nodeB:2"], {"nodeA": 2, "nodeB": 4}),
        (["-t", "2", "-s", "nodeA:4,nodeB:1"], {"nodeA": 2, "nodeB": 1}),
        (["-s", "nodeA:1,nodeB:1", "-s", "nodeA:2"], {"nodeA": 3, "nodeB": 1}),
        (["-s", "root@nodeA:2,localhost:1"], {"nodeA": 2, "HERE": 1}),
    ],
)
def test_slots_of_each_host(ssh_run: Run, arguments: list[str], expected: dict[str, int]) -> None:
    expected = {os.uname().nodename if host == "HERE" else host: count for host, count in expected.items()}
    ssh_run.tasks(f"#DISBATCH REPEAT 12 {HELD}")
    ssh_run.start(*arguments, "Tasks")
    first = Counter(host for _, host, _ in ssh_run.until_told(sum(expected.values())))
    ssh_run.open_gate()
    assert ssh_run.end() == 0
    ssh_run.check_each_once(12)
    assert first == Counter(expected)


def test_the_node_list_of_the_environment_and_what_a_task_finds(ssh_run: Run) -> None:
    ssh_run.environment = {
        "DISBATCH_SSH_NODELIST": "nodeB:1",
        "DISBATCH_SMTP": "mail.invalid",
        "HOME": "/elsewhere",
        "MINE": "my own $value",
        "TMPDIR": str(ssh_run.directory),
    }
    ssh_run.tasks("env -0 > environment; pwd > directory; hostname > host")
    ssh_run.start("Tasks")
    assert ssh_run.end() == 0, ssh_run.stderr
    found = dict(
        line.split("=", 1) for line in (ssh_run.directory / "environment").read_text().split("\0") if line
    )
    assert (ssh_run.directory / "host").read_text() == "nodeB\n"
    assert (ssh_run.directory / "directory").read_text() == f"{ssh_run.directory}\n"
    assert found["MINE"] == "my own $value"
    assert found["HOME"] != "/elsewhere"
    assert "TMPDIR" not in found
    assert "DISBATCH_SMTP" not in found
    assert found["SSH_CONNECTION"].startswith("10.77.0.1 ")
    assert found["DISBATCH_TASKID"] == "0"
    # With less, a Debian bash reads ~/.bashrc, as for a command of ssh: 0.1 s and more for each task.
    assert int(found["SHLVL"]) >= 2


def test_secrets_are_nowhere(ssh_run: Run) -> None:
    ssh_run.tasks(f"{HELD}", f"{HELD}")
    ssh_run.start("-s", "nodeA:1,localhost:1", "--loglevel", "debug", "Tasks")
    ssh_run.until_told(2)
    (connect,) = ssh_run.directory.glob("*_connect.json")
    assert connect.stat().st_mode & 0o777 == 0o600
    values = json.loads(connect.read_text())
    secrets = [values[name].encode() for name in ("server_secret", "client_secret", "client_key")]
    looked_at = 0
    for entry in Path("/proc").iterdir():
        for name in ("cmdline", "environ"):
            try:
                data = (entry / name).read_bytes()
            except OSError:
                continue
            looked_at += b"disbatch" in data
            assert not any(secret in data for secret in secrets), f"{entry / name}"
    assert looked_at > 4
    ssh_run.open_gate()
    assert ssh_run.end() == 0
    assert not connect.exists()
    for path in ssh_run.directory.iterdir():
        if path.is_file():
            assert not any(secret in path.read_bytes() for secret in secrets), f"{path}"


def test_no_ssh_is_left_once_the_engines_run(ssh_run: Run) -> None:
    """The engines do not need the connection that started them; the run ends in order without it."""
    ssh_run.tasks(f"#DISBATCH REPEAT 4 {HELD}")
    ssh_run.start("-s", "nodeA:2,nodeB:2", "Tasks")
    ssh_run.until_told(4)
    assert ssh_run.process is not None
    for pid in ssh_run.children():
        if "ssh" in command_line(pid).split(" ")[0]:
            ssh_run.until_ended(pid)
    ssh_run.open_gate()
    assert ssh_run.end() == 0
    ssh_run.check_each_once(4)
    ssh_run.until_gone()
