"""Runs that keep what their tasks print, and `dbutil cat`, which shows it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import Running, disbatch, environment, kill, processes, records, status_file, tasks, write
from slurm_run import SlurmRun
from small_disk import needs_root
from ssh_run import HELD, QUICK, Run

from deadline import DEADLINE
from disbatch.model.output import place
from disbatch.model.statusline import Mark

DBUTIL = str(Path(sys.executable).with_name("dbutil"))
WAYS = [(), ("--output-pack",)]
PAIR = f"localhost:2,{os.uname().nodename}:2"
"""Two engines on this machine."""


def cat(directory: Path, *arguments: str, code: int = 0) -> tuple[bytes, str]:
    """What `dbutil cat` writes, and says."""
    done = subprocess.run(
        [DBUTIL, "cat", *arguments],
        cwd=directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=DEADLINE,
        env=environment(),
        check=False,
    )
    said = done.stderr.decode()
    assert done.returncode == code, said
    assert "Traceback" not in said
    return done.stdout, said


@pytest.fixture(params=WAYS, ids=["files", "pack"])
def way(request: pytest.FixtureRequest) -> tuple[str, ...]:
    found: tuple[str, ...] = request.param
    return found


def test_a_run_keeps_what_its_tasks_print(tmp_path: Path, way: tuple[str, ...]) -> None:
    lines = ["echo out $DISBATCH_TASKID; echo err $DISBATCH_TASKID >&2"] * 20
    lines += ["#DISBATCH BARRIER", ":", "echo only >&2", "seq 100000", "exit 3"]
    write(tmp_path / "Tasks", lines)
    done = disbatch(tmp_path, "-s", PAIR, "-p", "P", "--output", "deep/out", *way, "Tasks")
    assert done.returncode == 0, done.stderr
    plain = disbatch(tmp_path, "-s", PAIR, "-p", "Q", "Tasks")
    assert plain.returncode == 0
    kept, usual = tasks(tmp_path / "P_status.txt"), tasks(tmp_path / "Q_status.txt")
    for task, record in kept.items():
        other = usual[task]
        assert (record.out_bytes, record.out, record.err_bytes, record.err) == (
            *(other.out_bytes, other.out),
            *(other.err_bytes, other.err),
        )
    every, said = cat(tmp_path, "0-19")
    assert every == b"".join(b"out %d\n" % n for n in range(20)) and said == ""
    assert cat(tmp_path, "--err", "19", "3")[0] == b"err 19\nerr 3\n"
    assert cat(tmp_path, "23", "--run", "P")[0] == b"".join(b"%d\n" % n for n in range(1, 100_001))
    assert cat(tmp_path, "21", "22", "24") == (
        b"",
        "dbutil: task 21: nothing printed to stdout\n"
        "dbutil: task 22: nothing printed to stdout, but 5 bytes to stderr (--err)\n"
        "dbutil: task 24: nothing printed to stdout\n",
    )
    _, said = cat(tmp_path, "20", "25-99", code=2)
    assert said == (
        "dbutil: task 20: a barrier\ndbutil: tasks 25-99: not in P_status.txt: never ended, or no such task\n"
    )
    files = sorted(path.name for path in (tmp_path / "deep/out").rglob("*") if path.is_file())
    if way:
        assert {name.rpartition(".")[2] for name in files} == {"pack", "index"}
        assert len(files) <= 4, "two for each engine"
    else:
        assert len(files) == 20 + 20 + 1 + 1
        assert (tmp_path / "deep/out" / place(23, 0)).stat().st_size == 588_895


def test_a_run_without_it_says_so(tmp_path: Path) -> None:
    write(tmp_path / "Tasks", ["echo x"])
    disbatch(tmp_path, "-s", "localhost:1", "-p", "P", "Tasks")
    _, said = cat(tmp_path, "--run", "P", "0", code=2)
    assert said == "dbutil: P: this run keeps no output: it was started without --output\n"
    _, said = cat(tmp_path, "--run", "nonesuch", "0", code=2)
    assert said == "dbutil: nonesuch: there is no such run: no file nonesuch_output.json\n"
    _, said = cat(tmp_path, "0", code=2)
    assert said == "dbutil: no run in this directory keeps output: name one with --run PREFIX\n"


def test_while_the_run_goes_on(tmp_path: Path, way: tuple[str, ...]) -> None:
    os.mkfifo(tmp_path / "gate")
    gate = os.open(tmp_path / "gate", os.O_RDWR)
    write(tmp_path / "Tasks", ["echo begun; read x < gate; echo ended", "echo quick", "read x < gate"])
    with Running(tmp_path, "-s", "localhost:3", "-p", "P", "--output", "out", *way, "Tasks") as run:
        path = tmp_path / "P_status.txt"
        run.until(lambda: path.exists() and len(path.read_bytes().splitlines()) == 1, "a line")
        out = tmp_path / "out"
        script = tmp_path / "P_dbUtil.sh"

        def shown() -> bytes:
            done = subprocess.run([script, "cat", "0"], capture_output=True, cwd="/", check=False)
            return done.stdout

        run.until(lambda: shown() == b"begun\n", "the first line", out, *out.glob("000/000"))
        assert cat(tmp_path, "1")[0] == b"quick\n"
        _, said = cat(tmp_path, "2", "7", code=2)
        assert said == (
            "dbutil: task 2: no end recorded, and no stdout so far\n"
            "dbutil: task 7: no end recorded, and no stdout so far\n"
        )
        os.write(gate, b"1\n2\n")
        assert run.ended() == 0, run.err
    os.close(gate)
    assert cat(tmp_path, "0")[0] == b"begun\nended\n"


def test_reading_is_quiet_when_nobody_listens(tmp_path: Path, way: tuple[str, ...]) -> None:
    write(tmp_path / "Tasks", ["seq 3000000"])
    assert disbatch(tmp_path, "-s", "localhost:1", "--output", "out", *way, "Tasks").returncode == 0
    script = f"{DBUTIL} cat 0 | head -n 2; {DBUTIL} cat 0 >&-; {DBUTIL} cat 0 > /dev/full"
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == "1\n2\n"
    assert done.stderr.splitlines() == [
        "dbutil: standard output is closed",
        "dbutil: No space left on device",
    ]
    reading, writing = os.pipe()
    command = [DBUTIL, "cat", "0"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=writing, stderr=subprocess.PIPE) as reader:
        os.close(writing)
        assert os.read(reading, 1) == b"1"
        reader.send_signal(signal.SIGINT)
        assert reader.wait(DEADLINE) == 130
        assert reader.stderr is not None and reader.stderr.read() == b""
    os.close(reading)


def test_a_directory_of_another_run_is_left_alone(tmp_path: Path, way: tuple[str, ...]) -> None:
    write(tmp_path / "Tasks", ["echo first"])
    command = ["-s", "localhost:1", "--output", "out", *way, "Tasks"]
    assert disbatch(tmp_path, *command).returncode == 0
    before = sorted(path for path in tmp_path.rglob("*"))
    done = disbatch(tmp_path, *command)
    assert done.returncode == 2
    assert done.stderr == (
        "disbatch: --output out: holds the output of another run; name another directory, or go on with that "
        "run: -r STATUSFILE\n"
    )
    assert sorted(path for path in tmp_path.rglob("*")) == before
    done = disbatch(tmp_path, "-s", "localhost:1", "--output", "Tasks", "Tasks")
    assert (done.returncode, done.stderr) == (2, "disbatch: --output Tasks: is not a directory\n")
    done = disbatch(tmp_path, "-s", "localhost:1", "--output", "Tasks/x", "Tasks")
    assert done.returncode == 2
    assert done.stderr == "disbatch: --output Tasks/x: cannot be written: Not a directory\n"
    assert sorted(path for path in tmp_path.rglob("*")) == before


def test_resuming_in_the_same_directory(tmp_path: Path, way: tuple[str, ...]) -> None:
    """Task 1 fails with a word on stderr, and succeeds without one; the others are skipped."""
    body = "if test -e good; then echo now $DISBATCH_TASKID; else echo then; echo wrong >&2; exit 1; fi"
    write(tmp_path / "Tasks", ["echo zero", body, "echo two >&2"])
    command = ["-s", "localhost:1", "--output", "out", *way]
    assert disbatch(tmp_path, *command, "-p", "A", "Tasks").returncode == 0
    assert cat(tmp_path, "--err", "0-2")[0] == b"wrong\ntwo\n"
    (tmp_path / "good").touch()
    done = disbatch(tmp_path, *command, "-p", "B", "-r", "A_status.txt", "-R", "Tasks")
    assert done.returncode == 0, done.stderr
    for run in ("A", "B") if way else ("B",):
        now = (b"zero\nthen\n", b"wrong\ntwo\n") if run == "A" else (b"zero\nnow 1\n", b"two\n")
        assert cat(tmp_path, "--run", run, "0-2")[0] == now[0]
        assert cat(tmp_path, "--run", run, "--err", "0-2")[0] == now[1]
    if not way:
        found = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*")}
        assert found == {place(0, 0), place(1, 0), place(2, 1)}, "what went wrong then is not shown now"
    # In another directory, and the other way: skipped tasks are found where they are.
    other = [] if way else ["--output-pack"]
    command = ["-s", "localhost:1", "--output", "else", *other, "-p", "C", "-r", "B_status.txt"]
    done = disbatch(tmp_path, *command, "Tasks")
    assert done.returncode == 0, done.stderr
    assert cat(tmp_path, "--run", "C", "0-2")[0] == b"zero\nnow 1\n"


def test_a_task_whose_engine_is_killed_prints_once(tmp_path: Path, way: tuple[str, ...]) -> None:
    """Each attempt prints its own number in every line, for a while; the engine of some is killed."""
    lines = "for i in $(seq 300); do echo $$ $i; done"
    write(tmp_path / "Tasks", [f"{lines}; echo x >> ran; : < gate; {lines}"] * 8)
    os.mkfifo(tmp_path / "gate")
    write(tmp_path / "ran", [])
    options = ["-s", PAIR, "-p", "P", "--output", "out", *way, "--grace", "1"]
    with Running(tmp_path, *options, "Tasks", env={"OF_THIS_TEST": str(tmp_path)}) as run:
        run.until(lambda: (tmp_path / "ran").read_text().count("x") == 4, "4 tasks")
        engines = [pid for pid in processes(str(tmp_path)) if is_engine(pid)]
        assert len(engines) == 2
        os.kill(engines[0], signal.SIGKILL)
        run.until_said("engine lost")
        gate = os.open(tmp_path / "gate", os.O_RDWR)
        assert run.ended() == 0, run.err
        os.close(gate)
    found = tasks(tmp_path / "P_status.txt")
    assert set(found) == set(range(8))
    for task, record in found.items():
        expected = "".join(f"{record.pid} {n}\n" for n in range(1, 301)) * 2
        assert cat(tmp_path, str(task))[0].decode() == expected
        if not way:
            assert (tmp_path / "out" / place(task, 0)).read_text() == expected
    if not way:
        assert {path.suffix for path in (tmp_path / "out").rglob("*.*")} == {".out"}, "nothing stays aside"


def is_engine(pid: int) -> bool:
    try:
        return b"disbatch.engine.__main__" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


@pytest.mark.parametrize("moment", range(3))
def test_a_pack_torn_by_kill_9_is_read(tmp_path: Path, moment: int) -> None:
    """All tasks flood; driver, engine and all are killed at some moment. What is recorded is whole."""
    write(tmp_path / "Tasks", ["#DISBATCH REPEAT 400 seq $DISBATCH_TASKID $((DISBATCH_TASKID + 20000))"])
    options = ["-s", "localhost:4", "-p", "P", "--output", "out", "--output-pack"]
    with Running(tmp_path, *options, "Tasks", env={"OF_THIS_TEST": str(tmp_path)}) as run:
        path = tmp_path / "P_status.txt"
        run.until(lambda: path.exists() and len(path.read_bytes().splitlines()) > 20 * (moment + 1), "lines")
        for pid in processes(str(tmp_path)):
            if is_engine(pid):
                os.kill(pid, signal.SIGKILL)
        run.signal(signal.SIGKILL)
        run.ended()
    done = [r.id for r in records(status_file(tmp_path)) if r.mark is Mark.TASK and r.return_code == 0]
    assert len(done) > 20
    (pack,) = (tmp_path / "out").glob("*.pack")
    for index in (True, False):
        if not index:
            pack.with_suffix(".index").unlink()
        for begin in range(0, len(done), 50):
            some = done[begin : begin + 50]
            expected = b"".join(b"".join(b"%d\n" % n for n in range(id, id + 20001)) for id in some)
            assert cat(tmp_path, *map(str, some))[0] == expected


def test_a_run_that_is_taken_over_goes_on_with_its_directory(tmp_path: Path, way: tuple[str, ...]) -> None:
    os.mkfifo(tmp_path / "gate")
    gate = os.open(tmp_path / "gate", os.O_RDWR)
    write(tmp_path / "Tasks", ["echo before; echo x >> ran; read x < gate; echo after"] + ["echo later"] * 3)
    mark = {"OF_THIS_TEST": str(tmp_path)}
    options = ["-s", "localhost:1", "-p", "P", "--output", "out", *way]
    try:
        with Running(tmp_path, *options, "Tasks", env=mark) as run:
            run.until((tmp_path / "ran").exists, "the first task")
            run.signal(signal.SIGKILL)
            run.ended()
        done = disbatch(tmp_path, "--takeover", "P", "--output", "other", env=mark)
        assert done.returncode == 2
        assert "a run that is taken over keeps its output where it did, as it did" in done.stderr
        with Running(tmp_path, "--takeover", "P", env=mark) as run:
            run.until_said("all engines are there")
            os.write(gate, b"go\n")
            assert run.ended() == 0, run.err
    finally:
        os.close(gate)
        for pid in processes(str(tmp_path)):
            kill(pid)
    assert cat(tmp_path, "0-3")[0] == b"before\nafter\n" + b"later\n" * 3


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A directory with room for 256 KiB."""
    needs_root()
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", disk], check=True)
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_a_full_disk_fails_no_task(tmp_path: Path, way: tuple[str, ...], small_disk: Path) -> None:
    lines = ["echo first", *["head -c 60000 /dev/urandom"] * 12, "#DISBATCH BARRIER"]
    lines += ["test -e room || : < gate", "#DISBATCH BARRIER", *["echo last"] * 3]
    write(tmp_path / "Tasks", lines)
    os.mkfifo(tmp_path / "gate")
    path = tmp_path / "P_status.txt"
    with Running(tmp_path, "-s", "localhost:2", "-p", "P", "--output", "disk/out", *way, "Tasks") as run:
        run.until(lambda: path.exists() and len(path.read_bytes().splitlines()) == 14, "the barrier's line")
        subprocess.run(["mount", "-o", "remount,size=4m", small_disk], check=True)
        (tmp_path / "room").touch()
        gate = os.open(tmp_path / "gate", os.O_RDWR)
        run.until(lambda: len(path.read_bytes().splitlines()) > 14, "the gate to be passed")
        os.close(gate)
        assert run.ended() == 0, run.err
        err = run.err
    found = tasks(path)
    assert all(record.return_code == 0 for record in found.values())
    assert [record.out_bytes for id, record in sorted(found.items()) if 1 <= id <= 12] == [60_000] * 12
    trouble = [line for line in err.splitlines() if "--output" in line]
    assert len(trouble) == 1 and "disk/out: No space left on device; " in trouble[0], err
    assert cat(tmp_path, "0")[0] == b"first\n"
    assert cat(tmp_path, "16-18")[0] == b"last\n" * 3
    shown, said = cat(tmp_path, "1-12", code=1)
    assert 60_000 <= len(shown) < 12 * 60_000
    assert "bytes of stdout are not in" in said or "could not be kept" in said


def test_two_attempts_at_once(ssh_run: Run, way: tuple[str, ...]) -> None:
    """A host is cut off; its task is given to the other, and both attempts go on. The second one counts. What
    they print is more than waits for a second; that of the first comes at the end only."""
    many = "yes $(hostname) | head -n 20000"
    ssh_run.tasks(f"mkdir first || {many}; {HELD}; {many}")
    options = [*QUICK, "--orphan-patience", "5", "-p", "P", "--output", "out", *way]
    ssh_run.start("-s", "nodeA:1,nodeB:1", *options, "Tasks")
    cut = ssh_run.until_told(1)[0].host
    ssh_run.lab.cut(cut)
    ssh_run.until_said(f"{cut}: engine lost")
    other = ssh_run.until_told(2)[1].host
    ssh_run.open_gate()
    assert ssh_run.end() == 0
    ssh_run.until_gone()
    ssh_run.lab.heal(cut)
    (record,) = ssh_run.check_each_once(1)
    assert record.node == other != cut
    expected = f"{other}\n".encode() * 40_000
    assert cat(ssh_run.directory, "0")[0] == expected
    if not way:
        assert (ssh_run.directory / "out" / place(0, 0)).read_bytes() == expected


def test_hosts_behind_ssh_and_one_that_cannot_write(ssh_run: Run) -> None:
    """Each writes where it sees the directory; on nodeB something is in the way."""
    out = ssh_run.directory / "out"
    out.mkdir()
    (ssh_run.directory / "file").touch()
    done = ssh_run.lab.inside("nodeB", ["mount", "--bind", str(ssh_run.directory / "file"), str(out)])
    if done.returncode:
        done = ssh_run.lab.inside("nodeB", ["mount", "-t", "tmpfs", "-o", "ro", "none", str(out)])
    assert done.returncode == 0, done.stderr
    try:
        ssh_run.tasks(f"#DISBATCH REPEAT 4 hostname; {HELD}")
        ssh_run.start("-s", "nodeA:2,nodeB:2", *QUICK, "-p", "P", "--output", "out", "Tasks")
        ssh_run.until_said(f"nodeB: --output {out} cannot be written on nodeB: Read-only file system")
        ssh_run.open_gate()
        assert ssh_run.end() == 0
        assert cat(ssh_run.directory, "0-3")[0] == b"nodeA\n" * 4
    finally:
        ssh_run.lab.inside("nodeB", ["umount", str(out)])


def test_output_that_is_on_another_machine(tmp_path: Path, way: tuple[str, ...]) -> None:
    write(tmp_path / "Tasks", ["echo far away"])
    done = disbatch(tmp_path, "-s", "localhost:1", "-p", "P", "--output", "out", *way, "Tasks")
    assert done.returncode == 0
    shutil.rmtree(tmp_path / "out")
    _, said = cat(tmp_path, "0", code=2)
    node = tasks(tmp_path / "P_status.txt")[0].node
    assert said == (
        f"dbutil: task 0: 9 bytes of stdout are not in {tmp_path}/out here, which may be another one on "
        f"{node}, where they were printed\n"
    )


def test_nodes_that_are_attached_keep_it_too(tmp_path: Path, way: tuple[str, ...]) -> None:
    write(tmp_path / "Tasks", ["echo $DISBATCH_TASKID"] * 3)
    with Running(tmp_path, "-S", "-p", "P", "--output", "out", *way, "Tasks") as run:
        run.until((tmp_path / "P_connect.json").exists, "the connect file")
        command, clean = [tmp_path / "P_dbUtil.sh", "-s", "localhost:1"], environment()
        done = subprocess.run(command, cwd="/", capture_output=True, text=True, env=clean, check=False)
        assert done.returncode == 0, done.stderr
        assert run.ended() == 0, run.err
    assert cat(tmp_path, "0-2")[0] == b"0\n1\n2\n"


def test_steps_of_a_slurm_job(slurm_run: SlurmRun) -> None:
    slurm_run.tasks(*["hostname; echo $DISBATCH_TASKID >&2"] * 6)
    slurm_run.salloc("-N 2 -n 4", "disbatch --output out --output-pack Tasks")
    slurm_run.end()
    slurm_run.check_each_once(6)
    nodes = {record.id: record.node for record in slurm_run.counting()}
    shown = cat(slurm_run.directory, "0-5")[0].decode().split()
    assert shown == [nodes[task] for task in range(6)]
    assert cat(slurm_run.directory, "--err", "0-5")[0] == b"0\n1\n2\n3\n4\n5\n"
