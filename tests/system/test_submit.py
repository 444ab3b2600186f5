"""dbutil submit: tasks into a run that goes on, from several hands, in the face of kills and full disks."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from command import (
    DEADLINE,
    DISBATCH,
    Running,
    call,
    dbutil,
    disbatch,
    environment,
    gone,
    kill,
    processes,
    records,
    tasks,
    write,
)

from disbatch.model.statusline import Mark, unquoted

DBUTIL = str(Path(sys.executable).with_name("dbutil"))
OPEN = ("--keep-open", "-s", "localhost:2", "-p", "P")
HELD = "echo $DISBATCH_TASKID >> ran; read line < go"
QUICK = "echo $DISBATCH_TASKID >> ran"


class Asking:
    """`dbutil WORDS` while it runs, in the directory of the run; killed when the `with` block is left."""

    def __init__(self, directory: Path, *words: str | bytes, stdin: int = subprocess.DEVNULL) -> None:
        self.out = directory / f"out-{os.urandom(4).hex()}"
        self.err = self.out.with_suffix(".err")
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                [DBUTIL, *words], cwd=directory, stdin=stdin, stdout=out, stderr=err, env=environment()
            )

    def __enter__(self) -> Asking:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def ids(self) -> list[int]:
        """Of the status lines so far."""
        lines = self.out.read_bytes().split(b"\n")[:-1]
        assert all(line.count(b"\t") == 13 for line in lines), lines
        return [int(line.split(b"\t")[1]) for line in lines]

    def ended(self) -> tuple[int, str]:
        """The exit status, and what it said to stderr."""
        code = self.process.wait(DEADLINE)
        text = self.err.read_text()
        assert "Traceback" not in text
        return code, text


def ran(directory: Path) -> Counter[int]:
    path = directory / "ran"
    return Counter(map(int, path.read_text().split())) if path.exists() else Counter()


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """Where nothing of a run is left in the end; `go` holds tasks."""
    os.mkfifo(tmp_path / "go")
    both_ends = os.open(tmp_path / "go", os.O_RDWR | os.O_CLOEXEC)
    yield tmp_path
    os.close(both_ends)
    for pid in processes(str(tmp_path)):
        kill(pid)


def start(directory: Path, *options: str) -> Running:
    run = Running(directory, *(options or OPEN), env={"OF_THIS_TEST": str(directory)})
    run.until((directory / "P_connect.json").exists, "the connect file")
    return run


def let_go(directory: Path, tasks: int = 1) -> None:
    """So many tasks that are held go on."""
    (directory / "go").write_text("go\n" * tasks)


def close(directory: Path, run: Running) -> None:
    assert dbutil(directory, "close")[0] == 0
    assert run.ended() == 0, run.err


# ---- what it does ----


def test_ids_and_the_end(directory: Path) -> None:
    with start(directory) as run:
        assert dbutil(directory, "submit", QUICK, "#DISBATCH REPEAT 3 " + QUICK) == (0, b"tasks 0-3\n", "")
        assert dbutil(directory, "submit", QUICK) == (0, b"task 4\n", "")
        assert dbutil(directory, "submit", "# nothing") == (0, b"taken; no task is in it\n", "")
        assert dbutil(directory, "submit", "#DISBATCH BARRIER", QUICK) == (0, b"tasks 5-6\n", "")
        close(directory, run)
    assert ran(directory) == Counter([0, 1, 2, 3, 4, 6])
    assert sorted(tasks(directory / "P_status.txt")) == [0, 1, 2, 3, 4, 6]
    code, _, said = dbutil(directory, "--run", "P", "submit", "true")
    assert (code, "this run is over" in said) == (2, True)


def test_waiting(directory: Path) -> None:
    with start(directory) as run:
        code, out, _ = dbutil(directory, "submit", "--wait", "true", "exit 3", "#DISBATCH BARRIER")
        fields = [line.split(b"\t") for line in out.splitlines()]
        assert code == 1
        assert {int(field[1]): int(field[6]) for field in fields} == {0: 0, 1: 3, 2: 0}
        assert {len(field) for field in fields} == {14}
        assert dbutil(directory, "submit", "--wait", "true")[0] == 0
        close(directory, run)


def test_the_run_that_the_environment_names(directory: Path) -> None:
    elsewhere = directory / "elsewhere"
    elsewhere.mkdir()
    with start(directory) as run:
        words = [DBUTIL, "submit", "--wait", "true"]
        env = environment({"DISBATCH_CONNECT": str(directory / "P_connect.json")})
        assert subprocess.run(words, cwd=elsewhere, env=env, timeout=DEADLINE, check=False).returncode == 0
        close(directory, run)


def test_wrong_commands(directory: Path) -> None:
    with start(directory) as run:
        code, out, said = dbutil(directory, "submit", "true", "#DISBATCH FOO")
        assert (code, out) == (2, b"") and "argument:2: unknown directive 'FOO'" in said
        code, out, said = dbutil(directory, "submit", "-", stdin=b"true\nfalse\n#DISBATCH REPEAT\n")
        assert (code, out) == (2, b"") and "stdin:3: REPEAT" in said
        code, out, said = dbutil(directory, "submit", "-", stdin=b"\n" + b"x" * (1 << 20) + b"x\n")
        assert code == 2 and "stdin:2: longer than 1 MiB" in said
        code, out, said = dbutil(directory, "submit", "true\nfalse")
        assert (code, out) == (2, b"") and "a line end within the command" in said
        close(directory, run)
    assert not tasks(directory / "P_status.txt")


def test_odd_bytes(directory: Path) -> None:
    odd = b": '" + bytes({*range(1, 256)} - {10, 13, 39}) + b"' \xff\xfe \t"
    with start(directory) as run:
        assert dbutil(directory, "submit", "--wait", odd)[0] == 0
        assert dbutil(directory, "submit", "--wait", "-", stdin=odd + b"\r\n" + odd)[0] == 0
        close(directory, run)
    commands = [unquoted(record.command) for record in tasks(directory / "P_status.txt").values()]
    assert commands == [odd] * 3


def test_runs_that_take_none(directory: Path) -> None:
    write(directory / "Tasks", [HELD])
    with start(directory, "-s", "localhost:2", "-p", "P", "Tasks") as run:
        for words in (["submit", "true"], ["submit", "--wait", "true"], ["close"]):
            code, out, said = dbutil(directory, *words)
            assert (code, out) == (2, b"") and "start it with --keep-open" in said
        let_go(directory)
        assert run.ended() == 0


def test_a_stream_cannot_be_kept_open(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(writer)
    refused = disbatch(tmp_path, "--keep-open", "-", stdin=reader)
    os.close(reader)
    assert refused.returncode == 2 and "stdin is a stream" in refused.stderr
    assert not list(tmp_path.iterdir())


# ---- standard input ----


def test_lines_are_handed_in_as_they_come(directory: Path) -> None:
    reader, writer = os.pipe()
    with start(directory) as run, Asking(directory, "submit", "--wait", "-", stdin=reader) as asking:
        os.close(reader)
        for number in range(3):
            os.write(writer, b"touch done.%d\n" % number)
            run.until((directory / f"done.{number}").exists, f"task {number}")
            run.until(lambda n=number: asking.ids() == list(range(n + 1)), "its line")  # type: ignore[misc]
        os.write(writer, b"exit 4")  # no line end
        os.close(writer)
        assert asking.ended() == (1, "")
        assert asking.ids() == [0, 1, 2, 3]
        close(directory, run)


def test_interrupted_while_it_reads(directory: Path) -> None:
    reader, writer = os.pipe()
    with start(directory) as run, Asking(directory, "submit", "--wait", "-", stdin=reader) as asking:
        os.write(writer, QUICK.encode() + b"\n")
        run.until(lambda: ran(directory)[0], "the task")
        asking.process.send_signal(signal.SIGINT)
        assert asking.ended() == (130, "")
        os.close(writer)
        os.close(reader)
        close(directory, run)


def test_very_many_lines(directory: Path) -> None:
    """Nobody runs them: they wait in the file."""
    count = 200_000
    with start(directory, "-S", "-p", "P") as run:
        code, out, _ = dbutil(directory, "submit", "-", stdin=b": some command or other\n" * count)
        assert code == 0
        spans = [list(map(int, line.split()[1].split(b"-"))) for line in out.splitlines()]
        assert spans[0][0] == 0 and spans[-1][-1] == count - 1
        assert all(one[-1] + 1 == next[0] for one, next in pairwise(spans))
        code, _, said = dbutil(directory, "finish")
        assert code == 0, said
        assert run.ended() == 3
    assert sum(not line.startswith(b"#") for line in (directory / "P_tasks.txt").open("rb")) == count


def test_waiting_for_a_hundred_million(directory: Path) -> None:
    many = "#DISBATCH REPEAT 100000000 :"
    with start(directory) as run, Asking(directory, "submit", "--wait", many) as asking:
        run.until(lambda: len(asking.ids()) > 20, "some lines")
        assert dbutil(directory, "finish")[0] == 0
        code, said = asking.ended()
        assert code == 3 and "the run ended (ended by dbutil finish; resume with: disbatch" in said
        assert f"{10**8 - len(asking.ids()):,} of these tasks are not done" in said
        assert run.ended() == 3
    assert sorted(asking.ids()) == sorted(tasks(directory / "P_status.txt"))


# ---- several at once ----


def test_many_hands(directory: Path) -> None:
    with start(directory) as run:
        lines = [b"".join(b"%s # %d\n" % (QUICK.encode(), hand) for _ in range(50)) for hand in range(4)]
        asking = []
        for each in lines:
            reader, writer = os.pipe()
            asking.append(Asking(directory, "submit", "--wait", "-", stdin=reader))
            os.close(reader)
            os.write(writer, each)
            os.close(writer)
        told = []
        for one in asking:
            with one:
                assert one.ended() == (0, "")
                told.append(one.ids())
        close(directory, run)
    found = tasks(directory / "P_status.txt")
    hands = Counter(unquoted(record.command)[-1] for record in found.values())  # type: ignore[index]
    assert hands == {ord(str(hand)): 50 for hand in range(4)}
    assert [len(ids) for ids in told] == [50] * 4
    assert sorted(id for ids in told for id in ids) == list(range(200)) == sorted(ran(directory).elements())


# ---- with a task file, and without nodes ----


def test_after_a_task_file(directory: Path) -> None:
    """What it sets does not reach into what is handed in, which has its own line numbers."""
    show = "echo $DISBATCH_TASKID $DISBATCH_STREAM_INDEX >> shown"
    (directory / "Tasks").write_text(f"#DISBATCH PREFIX true; \n{show}\n{show}")
    with start(directory, *OPEN, "Tasks") as run:
        assert dbutil(directory, "submit", "--wait", show, "exit 3")[0] == 1
        assert (directory / "P_tasks.txt").read_text().startswith("\n#DISBATCH PREFIX\n#DISBATCH SUFFIX\n")
        assert dbutil(directory, "finish")[0] == 0
        assert run.ended() == 3
        (resume,) = [line for line in run.err.splitlines() if line.startswith("  resume")]
    assert sorted((directory / "shown").read_text().splitlines()) == ["0 2", "1 3", "2 4"]
    commands = [unquoted(record.command) for _, record in sorted(tasks(directory / "P_status.txt").items())]
    prefixed = f"true; {show}".encode()
    assert commands == [prefixed, prefixed, show.encode(), b"exit 3"]
    again(directory, resume, "-R")
    with_retry = tasks(directory / "again_status.txt")
    assert {id: record.mark for id, record in with_retry.items()} == {
        **dict.fromkeys((0, 1, 2), Mark.SKIPPED),
        3: Mark.TASK,
    }


def again(directory: Path, resume: str, *options: str) -> None:
    """Do what the last line of a run says, with these options more."""
    command = resume.split(None, 1)[1].replace("disbatch ", f"{DISBATCH} ", 1).replace("-p P", "-p again")
    done = call(["bash", "-c", " ".join([command, *options])], directory)
    assert done.returncode == 0, done.stderr


def test_a_run_without_a_file_goes_on_from_what_was_handed_in(directory: Path) -> None:
    with start(directory) as run:
        dbutil(directory, "submit", QUICK, "#DISBATCH PREFIX true; ", "#DISBATCH REPEAT 2 " + QUICK)
        run.until(lambda: len(records(directory / "P_status.txt")) == 3, "three records")
        dbutil(directory, "submit", HELD)
        run.until(lambda: ran(directory)[3], "the one that is held")
        dbutil(directory, "finish")
        assert run.ended() == 3
        (resume,) = [line for line in run.err.splitlines() if line.startswith("  resume")]
    let_go(directory)
    again(directory, resume)
    assert ran(directory) == Counter({0: 1, 1: 1, 2: 1, 3: 2})
    assert sorted(tasks(directory / "again_status.txt")) == [0, 1, 2, 3]


def test_without_nodes_until_some_are_attached(directory: Path) -> None:
    with start(directory, "-S", "-p", "P") as run:
        assert dbutil(directory, "submit", QUICK, QUICK) == (0, b"tasks 0-1\n", "")
        waiting = Asking(directory, "submit", "--wait", QUICK)
        with waiting, Asking(directory, "attach", "-s", "localhost:1") as attached:
            assert waiting.ended() == (0, "")
            assert waiting.ids() == [2]
            close(directory, run)
            assert attached.ended()[0] == 0
    assert ran(directory) == Counter(range(3))


# ---- kills ----


def kill_driver(run: Running) -> None:
    run.signal(signal.SIGKILL)
    assert run.ended() == -signal.SIGKILL


def test_waiting_goes_on_with_another_driver(directory: Path) -> None:
    first = start(directory)
    with first, Asking(directory, "submit", "--wait", QUICK, HELD, HELD, HELD) as asking:
        first.until(lambda: asking.ids() == [0] and len(ran(directory)) == 3, "one line")
        kill_driver(first)
        with Running(directory, "--takeover", "P", env={"OF_THIS_TEST": str(directory)}) as second:
            second.until_said("all engines are there")
            let_go(directory, 3)
            code, said = asking.ended()
            assert code == 0, said
            assert said == "" or "is dead; waiting for a driver that takes the run over" in said
            assert sorted(asking.ids()) == [0, 1, 2, 3]
            close(directory, second)
    assert ran(directory) == Counter(range(4))
    assert sorted(tasks(directory / "P_status.txt")) == list(range(4))


def test_what_was_answered_is_not_lost(directory: Path) -> None:
    """The driver is killed as soon as it has said that it took them."""
    with start(directory, "-S", "-p", "P") as first:
        assert dbutil(directory, "submit", QUICK, QUICK)[0] == 0
        kill_driver(first)
    with (directory / "P_tasks.txt").open("ab") as file:
        file.write(b"echo torn >> ran\necho torn")  # while it wrote what nobody was told of
    with Running(directory, "--takeover", "P", env={"OF_THIS_TEST": str(directory)}) as second:
        second.until((directory / "P_connect.json").exists, "the driver")
        second.until(lambda: b"torn" not in (directory / "P_tasks.txt").read_bytes(), "the cut")
        with Asking(directory, "attach", "-s", "localhost:1"):
            assert dbutil(directory, "submit", "--wait", QUICK)[0] == 0
            close(directory, second)
    assert ran(directory) == Counter(range(3))
    gone(lambda: processes(str(directory)), "the end of all processes")


# ---- a full disk ----


def test_a_full_disk(directory: Path) -> None:
    if os.geteuid() or not shutil.which("unshare"):
        assert os.environ.get("CI") != "true", "cannot mount a small disk"
        pytest.skip("cannot mount a small disk")
    disk = directory / "disk"
    disk.mkdir()
    mount = 'mount -t tmpfs -o size=64k none disk && exec "$@"'
    wrapper = ["unshare", "-m", "sh", "-c", mount, "sh"]
    options = ("--keep-open", "-s", "localhost:1", "-p", "disk/P", "-l", "log")
    with Running(directory, *options, env={"OF_THIS_TEST": str(directory)}, wrapper=wrapper) as run:
        look = Path(f"/proc/{run.pid}/root{disk}")
        run.until((directory / "log").exists, "the log")
        run.until(lambda: "joined" in (directory / "log").read_text(), "the engine")

        def inside(*words: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                ["nsenter", "-t", str(run.pid), "-m", DBUTIL, "--run", f"{disk}/P", *words],
                env=environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=DEADLINE,
                check=False,
            )

        full = inside("submit", *["echo no >> ran #" + "x" * 1000] * 100)
        assert full.returncode == 2 and "P_tasks.txt: cannot be written: No space left" in full.stderr
        assert full.stderr.count("\n") == 1
        done = inside("submit", "--wait", "echo $DISBATCH_TASKID >> ran")
        assert done.returncode == 0, done.stderr
        assert (look / "P_tasks.txt").read_text().count("\n") == 2
        assert inside("close").returncode == 0
        assert run.ended() == 0, run.err
    assert ran(directory) == Counter([0])


# ---- programs that start it ----


def test_a_run_whose_owner_is_gone_before_it_begins(directory: Path) -> None:
    argv = [DISBATCH, *OPEN, "--owned"]
    ended = subprocess.run(
        argv, cwd=directory, stdin=subprocess.DEVNULL, capture_output=True, timeout=DEADLINE, check=False
    )
    assert ended.returncode == 0 and b"complete: 0 tasks" in ended.stderr


def test_a_run_that_is_owned(directory: Path) -> None:
    """It says which run it is when it takes tasks, and takes no more when its owner is gone."""
    process = subprocess.Popen(
        [DISBATCH, *OPEN, "--owned"],
        cwd=directory,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment({"OF_THIS_TEST": str(directory)}),
    )
    with process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == f"{directory}/P\n".encode()
        assert dbutil(directory, "submit", HELD)[0] == 0
        process.stdin.close()
        code, _, said = dbutil(directory, "submit", "--wait", "true")
        while not code:  # its owner's end has not got there yet
            code, _, said = dbutil(directory, "submit", "--wait", "true")
        assert code == 2 and "takes no more tasks: it was closed" in said
        let_go(directory)
        assert process.wait(DEADLINE) == 0
