"""dbutil and runs that go on: each verb, on this machine and over ssh, and runs that cannot be asked."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest
from command import until
from slurm_run import SlurmRun
from ssh_run import DEADLINE, HELD, TELL, Run

from disbatch.model.statusline import Mark
from disbatch.model.task import Reason
from disbatch.wire.connect import ConnectFile

DBUTIL = str(Path(sys.executable).with_name("dbutil"))
TWO = "nodeA:2,nodeB:2"
STUBBORN = f"trap '' TERM; {HELD}"
HERE = os.uname().nodename
ALONE = "no other node is there: with the last one the run ends, to be resumed if anything is left\n"

Answer = tuple[int, str, str]


class ThisMachine:
    """What `Run` needs of a lab, for runs without one."""

    def __init__(self) -> None:
        self.env = dict(os.environ)

    def head(self, argv: list[str]) -> list[str]:
        return argv


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    """Starts a run of these lines in two slots, in a directory that may be shared."""
    runs = []

    def begin(*lines: str, options: tuple[str, ...] = ("-s", "localhost:2"), name: str = "one") -> Run:
        directory = tmp_path / name
        directory.mkdir()
        run = Run(ThisMachine(), directory)
        runs.append(run)
        run.tasks(*lines)
        run.start(*options, "Tasks")
        return run

    yield begin
    for run in runs:
        run.close()


def asked(run: Run, *words: str, directory: Path | None = None, command: str = DBUTIL) -> Answer:
    """What `dbutil WORDS` comes to in the run's directory: exit status, stdout, stderr."""
    done = subprocess.run(
        run.lab.head([command, *words]),
        cwd=directory or run.directory,
        env=run.lab.env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") <= 1
    return done.returncode, done.stdout, done.stderr


def prefix(run: Run) -> str:
    return str(run.status_file).removesuffix("_status.txt")


def resumed(run: Run, *options: str) -> int:
    """Go on where the run ended; the exit status."""
    run.start("-s", "localhost:2", *options, "-r", run.status_file.name, "Tasks")
    return run.end()


# ---- pause, resume, finish ----


def test_pause_and_resume(start: Callable[..., Run]) -> None:
    run = start(f"#DISBATCH REPEAT 6 {HELD}")
    run.until_told(2)
    assert asked(run, "pause") == (0, "paused: no more tasks start; 2 tasks running\n", "")
    run.open_gate()
    until(lambda: len(run.counting()) == 2, "what ran ends", run.directory)
    assert asked(run, "pause") == (0, "the run is paused already\n", "")
    before = time.time()
    assert asked(run, "resume") == (0, "resumed: tasks start again\n", "")
    assert run.end() == 0
    records = run.check_each_once(6)
    assert sum(record.start < before for record in records) == 2
    assert "paused by dbutil" in run.stderr and "resumed by dbutil" in run.stderr


def test_finish_then_resume(start: Callable[..., Run]) -> None:
    run = start("true", f"#DISBATCH REPEAT 5 {HELD}")
    run.until_told(2)
    assert asked(run, "finish") == (0, "ending the run, to be resumed; 2 tasks running\n", "")
    assert run.end() == 3
    assert "disbatch: ended by dbutil finish: 1 task" in run.stderr
    first = run.status_file
    assert f"disbatch -s localhost:2 Tasks -r {first.name}" in run.stderr
    assert [record.id for record in run.counting()] == [0]
    run.until_gone()
    run.open_gate()
    assert resumed(run) == 0
    assert sorted(record.id for record in run.counting()) == [1, 2, 3, 4, 5]


# ---- cancel ----


def test_cancelled_tasks_that_end_as_they_like(start: Callable[..., Run]) -> None:
    """Whatever a task does when it is told to end, the user cancelled it."""
    told = f"{TELL}; read line < gate"
    run = start(f"trap 'exit 0' TERM; {told}", f"trap 'exit 7' TERM; {told}", options=("-s", "localhost:2"))
    run.until_told(2)
    asked(run, "cancel", "0-1")
    assert run.end() == 0
    ended = {record.id: (record.reason, record.return_code) for record in run.counting()}
    assert ended == {0: (Reason.CANCELLED, -signal.SIGTERM), 1: (Reason.CANCELLED, 7)}
    assert "0 succeeded, 2 cancelled" in run.stderr


def test_cancel_then_resume(start: Callable[..., Run]) -> None:
    """A task that ended, one that runs, one that waits, some that are not read; all others run."""
    run = start("true", f"#DISBATCH REPEAT 300 {HELD}")
    assert sorted(task for task, _, _ in run.until_told(2)) == [1, 2]
    code, out, err = asked(run, "cancel", "0", "50", "1", "290-299", "300")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "task 0: is done already",
        f"task 1: is being ended on {HERE}",
        "task 50: will not run",
        "tasks 290-300: will not run",
    ]
    until(lambda: any(record.id == 1 for record in run.counting()), "the end of task 1", run.directory)
    assert asked(run, "cancel", "50", "1")[1] == "task 1: is done already\ntask 50: is done already\n"
    run.open_gate()
    assert run.end() == 0
    records = {record.id: record for record in run.counting()}
    assert len(records) == len(run.counting()) == 301
    cancelled = {1, 50, *range(290, 301)}
    assert {id for id, record in records.items() if record.return_code} == cancelled
    assert {records[id].return_code for id in cancelled} == {-signal.SIGTERM}
    assert records[1].pid and not any(records[id].pid for id in cancelled - {1})
    assert (records[50].out, records[50].err, records[50].elapsed) == (b'""', b"'cancelled'", 0.0)
    assert {id for id, record in records.items() if record.reason is Reason.CANCELLED} == cancelled
    assert "288 succeeded, 13 cancelled" in run.stderr
    assert "SIGTERM" not in run.stderr
    told = json.loads(asked(run, "status", "--json", "--run", prefix(run))[1])
    assert (told["failed"], told["cancelled"]) == (13, 13)
    assert {failure["reason"] for failure in told["failures"]} == {"cancelled"}
    for words in (("status", "--run", prefix(run)), ("report", str(run.status_file))):
        said = asked(run, *words)[1]
        assert "13 cancelled" in said and "SIGTERM" not in said
    first = run.status_file
    assert resumed(run) == 0
    assert run.counting() == []
    assert len(run.told) == 288
    run.start("-s", "localhost:2", "-r", first.name, "-R", "Tasks")
    assert run.end() == 0
    assert {record.id for record in run.counting()} == cancelled


def test_cancel_those_that_do_not_want_to_end(start: Callable[..., Run]) -> None:
    polite = f"trap 'exit 0' TERM; {TELL}; sleep 600 & wait"
    run = start(STUBBORN, polite, "true", options=("-s", "localhost:2", "--grace", "0.5"))
    run.until_told(2)
    assert asked(run, "cancel", "0-1")[0] == 0
    assert run.end() == 0
    assert {record.id: record.return_code for record in run.counting()} == {0: -9, 1: -15, 2: 0}
    run.until_gone()


def test_a_barrier_waits_for_what_is_cancelled_and_its_check_sees_it(start: Callable[..., Run]) -> None:
    run = start(HELD, HELD, "#DISBATCH BARRIER CHECK", "true")
    run.until_told(2)
    assert asked(run, "cancel", "1") == (0, f"task 1: is being ended on {HERE}\n", "")
    run.open_gate()
    assert run.end() == 1
    assert "BARRIER CHECK: 1 task failed before it (first task 1, line 2)" in run.stderr


@pytest.mark.parametrize("words", [["0", "4"], ["0-4"], ["99"]])
def test_cancel_what_is_not_there(start: Callable[..., Run], words: list[str]) -> None:
    run = start(HELD, "#DISBATCH BARRIER", HELD)
    run.until_told(1)
    code, out, err = asked(run, "cancel", *words)
    assert (code, out) == (2, "") and err.endswith(": Tasks has the ids 0 to 2\n")
    run.open_gate()
    assert run.end() == 0
    assert {record.return_code for record in run.counting()} == {0}


# ---- which run ----


def test_every_way_to_name_a_run(start: Callable[..., Run], tmp_path: Path) -> None:
    run = start(HELD)
    run.until_told(1)
    already = (0, "the run is not paused\n", "")
    assert asked(run, "resume") == already
    for directory in (run.directory, tmp_path):
        for name in (prefix(run), f"{prefix(run)}_status.txt"):
            assert asked(run, "--run", name, "resume", directory=directory) == already
            assert asked(run, "resume", "--run", name, directory=directory) == already
        assert asked(run, "resume", command=f"{prefix(run)}_dbUtil.sh", directory=directory) == already
    for words in (["resume"], ["--run", "one/nothing", "resume"]):
        code, out, err = asked(run, *words, directory=tmp_path)
        assert (code, out) == (2, "") and ("no run is live" in err or "there is no such run" in err)
    run.open_gate()
    assert run.end() == 0
    code, out, err = asked(run, "resume", command=f"{prefix(run)}_dbUtil.sh")
    assert (code, out) == (2, "") and "this run is over" in err


def test_two_runs_in_one_directory(start: Callable[..., Run]) -> None:
    one = start(HELD)
    one.until_told(1)
    first = prefix(one)
    two = subprocess.Popen(one.lab.head([one_command(), "-s", "localhost:1", "Tasks"]), cwd=one.directory)
    try:
        one.until_told(2)
        second = prefix(one)
        code, out, err = asked(one, "pause")
        assert (code, out) == (2, "") and "several runs are live here" in err
        assert all(Path(each).name in err for each in (first, second)) and first != second
        assert asked(one, "finish", "--run", second)[0] == 0
        assert two.wait(DEADLINE) == 3
    finally:
        two.kill()
        two.wait()
    assert asked(one, "pause")[0] == 0
    one.open_gate()
    assert one.end() == 0


def one_command() -> str:
    return str(Path(sys.executable).with_name("disbatch"))


def test_a_dead_run(start: Callable[..., Run]) -> None:
    run = start(HELD, options=("-s", "localhost:2", "--orphan-patience", "1"))
    run.until_told(1)
    run.kill_driver()
    run.until_gone()
    for words in (["pause"], ["--run", prefix(run), "cancel", "0"]):
        code, out, err = asked(run, *words)
        assert (code, out) == (3, "")
        assert f"the driver (pid {run.process.pid if run.process else 0}) on {HERE} is dead" in err
        assert f"-r {run.status_file.name if words == ['pause'] else run.status_file}`" in err


def test_a_suspended_run(start: Callable[..., Run]) -> None:
    run = start(HELD)
    run.until_told(1)
    run.signal(signal.SIGSTOP)
    code, out, err = asked(run, "pause", "--timeout", "0.5")
    run.signal(signal.SIGCONT)
    assert (code, out) == (3, "") and "said nothing within 0.5 s: is it suspended, or busy?" in err
    assert asked(run, "resume") == (0, "the run is not paused\n", "")
    run.open_gate()
    assert run.end() == 0


# ---- nodes ----


def test_drain_the_last_node(start: Callable[..., Run]) -> None:
    run = start(f"#DISBATCH REPEAT 6 {HELD}")
    run.until_told(2)
    draining = f"{HERE}: draining; 2 tasks are running there\n{ALONE}"
    assert asked(run, "drain", "localhost") == (0, draining, "")
    assert asked(run, "drain", HERE) == (0, f"{HERE}: is draining already\n{ALONE}", "")
    run.open_gate()
    assert run.end() == 3
    assert len(run.counting()) == len(run.told) == 2
    assert f"dbutil drain {HERE}" in run.stderr and f"Tasks -r {run.status_file.name}" in run.stderr
    assert resumed(run) == 0
    assert len(run.counting()) == 4


def test_drain_one_of_two(ssh_run: Run) -> None:
    """What runs there ends there, its STOP command runs, and it takes no more."""
    ssh_run.tasks("#DISBATCH PERENGINE STOP touch stop.$(hostname)", f"#DISBATCH REPEAT 12 {HELD}")
    ssh_run.start("-s", TWO, "Tasks")
    ssh_run.until_told(4)
    known = "nodeA, nodeB\n"
    code, out, err = asked(ssh_run, "drain", "nodeA", "nodeX")
    assert (code, out) == (2, "") and err.endswith(f"no node or label nodeX; there are: {known}")
    assert asked(ssh_run, "drain", "nodeA") == (0, "nodeA: draining; 2 tasks are running there\n", "")
    ssh_run.open_gate()
    until((ssh_run.directory / "stop.nodeA").exists, "STOP on nodeA", ssh_run.directory)
    assert ssh_run.end() == 0
    records = ssh_run.check_each_once(12)
    assert sum(record.node == "nodeA" for record in records) == 2
    assert (ssh_run.directory / "stop.nodeB").exists()
    ssh_run.until_gone()


def test_stop_a_node_whose_tasks_ignore_it(ssh_run: Run) -> None:
    ssh_run.tasks(f"#DISBATCH REPEAT 8 {STUBBORN}")
    ssh_run.start("-s", TWO, "--grace", "1", "Tasks")
    first = [told.task for told in ssh_run.until_told(4) if told.host == "nodeB"]
    answer = "nodeB: ending 2 tasks, which run again elsewhere\n"
    assert asked(ssh_run, "stop", "nodeB") == (0, answer, "")
    # Before the grace is over, or after it if this machine is busy.
    again = [(0, f"nodeB: {has} already\n", "") for has in ("is leaving", "has left")]
    assert asked(ssh_run, "stop", "nodeB") in again
    ssh_run.until_gone("nodeB")
    ssh_run.open_gate()
    assert ssh_run.end() == 0
    records = ssh_run.check_each_once(8)
    assert {record.node for record in records} == {"nodeA"}
    ended = [record for record in ssh_run.records() if record.mark is Mark.SUPERSEDED]
    assert sorted(record.id for record in ended) == sorted(first)
    assert {(record.node, record.return_code) for record in ended} == {("nodeB", -9)}
    assert asked(ssh_run, "stop", "nodeB", "--run", prefix(ssh_run))[0] == 2


def test_stop_a_label(ssh_run: Run) -> None:
    ssh_run.tasks(f"#DISBATCH REPEAT 8 {HELD}")
    ssh_run.start("-s", TWO, "--label", "rack", "Tasks")
    ssh_run.until_told(4)
    answer = f"nodeA (rack): ending 2 tasks\nnodeB (rack): ending 2 tasks\n{ALONE}"
    assert asked(ssh_run, "stop", "rack") == (0, answer, "")
    assert ssh_run.end() == 3
    assert "no engine is left" in ssh_run.stderr and ssh_run.counting() == []
    ssh_run.until_gone()


def test_a_node_that_has_not_joined_yet(ssh_run: Run) -> None:
    ssh_run.lab.cut("nodeB")
    ssh_run.tasks(f"#DISBATCH REPEAT 4 {HELD}")
    ssh_run.start("-s", TWO, "Tasks")
    ssh_run.until_told(2)
    assert asked(ssh_run, "drain", "nodeB") == (0, "nodeB: has not joined yet, and need not\n", "")
    ssh_run.lab.heal("nodeB")
    ssh_run.open_gate()
    assert ssh_run.end() == 0
    assert {record.node for record in ssh_run.check_each_once(4)} == {"nodeA"}
    ssh_run.until_gone()


def test_asked_from_another_host(ssh_run: Run) -> None:
    ssh_run.tasks(f"#DISBATCH REPEAT 4 {HELD}")
    ssh_run.start("-s", TWO, "--use-address", "head:5000", "Tasks")
    ssh_run.until_told(4)
    done = ssh_run.lab.inside("nodeA", [DBUTIL, "cancel", "3", "--run", prefix(ssh_run)])
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("task 3: is being ended on node")
    ssh_run.open_gate()
    assert ssh_run.end() == 0
    assert [record.id for record in ssh_run.counting() if record.failed] == [3]


def test_a_run_without_a_port_is_asked_on_its_machine(ssh_run: Run) -> None:
    ssh_run.tasks(HELD)
    ssh_run.start("-s", "localhost:1", "--tunnel", "Tasks")
    ssh_run.until_told(1)
    (address,) = ConnectFile.read(Path(f"{prefix(ssh_run)}_connect.json")).addresses
    folder = Path(address.removeprefix("ipc://")).parent  # on a host of its own it would not be seen
    hidden = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', str(folder)]
    done = ssh_run.lab.inside("nodeA", [*hidden, DBUTIL, "pause", "--run", prefix(ssh_run)])
    assert (done.returncode, done.stdout) == (2, "")
    assert f"on {HERE} can be asked on that machine alone" in done.stderr
    ssh_run.open_gate()
    assert ssh_run.end() == 0


@pytest.mark.parametrize("seed", [1, 2])
def test_many_orders_while_short_tasks_run(ssh_run: Run, seed: int) -> None:
    """Queues are called back, ended, given to others: each task still gets one line that counts."""
    tasks, random = 160, Random(seed)
    short = "sleep 0.1; echo $DISBATCH_TASKID >> ran.$(hostname)"
    ssh_run.tasks(TELL, f"#DISBATCH REPEAT {tasks - 1} {short}")
    ssh_run.start("-s", "nodeA:3,nodeB:3,nodeC:5", "Tasks")
    ssh_run.until_told(1)
    orders = [["pause"], ["resume"], ["stop", "nodeB"], ["drain", "nodeA"], ["pause"], ["resume"]]
    cancelled: set[int] = set()
    for order in orders:
        first = random.randrange(tasks)
        last = min(tasks - 1, first + random.choice([0, 3, 40]))
        for words in (order, ["cancel", f"{first}-{last}"]):
            code, _, err = asked(ssh_run, *words, "--run", prefix(ssh_run))
            assert (code, err) == (0, "") or "is over" in err or "ended before it" in err, err
        cancelled.update(range(first, last + 1))
    assert ssh_run.end() == 0, str(ssh_run)
    records = ssh_run.counting()
    assert sorted(record.id for record in records) == list(range(tasks)), str(ssh_run)
    assert {record.return_code for record in records} <= {0, -15}
    assert {record.id for record in records if record.failed} <= cancelled
    ran = [line for path in ssh_run.directory.glob("ran.*") for line in path.read_text().split()]
    assert {str(record.id) for record in records if not record.failed} <= {*ran, "0"}
    ssh_run.until_gone()


def test_what_is_let_go_goes_back_to_slurm(slurm_run: SlurmRun) -> None:
    run = slurm_run
    run.tasks(f"#DISBATCH REPEAT 8 {HELD}")
    run.salloc("-N 4 --ntasks-per-node 1", "disbatch", "Tasks")
    nodes = sorted(told.host for told in run.until_told(4))
    job = run.until_job()
    done = run.call(DBUTIL, "stop", nodes[2])
    assert (done.returncode, done.stdout) == (0, f"{nodes[2]}: ending 1 task, which runs again elsewhere\n")
    run.lab.until_nodes(job, {nodes[0], nodes[1], nodes[3]})
    done = run.call(DBUTIL, "drain", nodes[3])
    assert (done.returncode, done.stdout) == (0, f"{nodes[3]}: draining; 1 task is running there\n")
    run.open_gate()
    assert run.end() == 0, str(run)
    records = run.check_each_once(8)
    assert sum(record.node == nodes[3] for record in records) == 1
    assert not any(record.node == nodes[2] for record in records)
