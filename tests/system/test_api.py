"""Tasks from Python: futures, maps, asyncio, cancelling, and what becomes of them when something dies."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, as_completed, wait
from itertools import count
from pathlib import Path

import pytest
from command import DEADLINE, DISBATCH, Running, environment, gone, kill, processes, tasks, until, write

from disbatch import (
    DisBatch,
    DisBatcher,
    DisbatchError,
    RunEndedError,
    SilenceError,
    Task,
    TaskFailedError,
    TaskResult,
    UsageError,
    read_status,
)

HERE = os.uname().nodename


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """Where runs are; `go` holds tasks. Nothing of them is left in the end."""
    os.mkfifo(tmp_path / "go")
    both_ends = os.open(tmp_path / "go", os.O_RDWR | os.O_CLOEXEC)
    yield tmp_path
    for pid in processes(f"OF_THIS_TEST={tmp_path}"):
        kill(pid)
    os.close(both_ends)


def start(directory: Path, **named: object) -> DisBatch:
    env = environment({"OF_THIS_TEST": str(directory)})
    named = {"nodes": "localhost:2", "prefix": "P", **named}
    return DisBatch(directory=directory, environment=env, **named)  # type: ignore[arg-type]


def let_go(directory: Path, tasks: int = 1) -> None:
    (directory / "go").write_text("go\n" * tasks)


HELD = "echo $DISBATCH_TASKID >> ran; read line < go"


def until_ran(directory: Path, ids: int) -> None:
    path = directory / "ran"
    until(lambda: path.exists() and len(path.read_text().split()) >= ids, f"{ids} tasks", directory)


# ---- results ----


def test_a_result(directory: Path) -> None:
    with start(directory) as run:
        task = run.submit("echo out; echo wrong >&2; exit 3")
        result = task.result(DEADLINE)
        assert (task.id, task.command) == (0, result.command)
        assert (result.id, result.line, result.repeat, result.node) == (0, 1, -1, HERE)
        assert (result.return_code, result.ok, result.kind) == (3, False, "task")
        assert (result.out, result.out_bytes, result.err, result.err_bytes) == (b"out\n", 4, b"wrong\n", 6)
        assert 0 <= result.elapsed < DEADLINE and result.start <= result.finish
        with pytest.raises(TaskFailedError, match=r"return code 3.*\(wrong\)"):
            result.check()
        assert run.submit("true").result(DEADLINE).check().ok
        assert run.prefix == directory / "P"
        assert run.return_code is None
    assert run.return_code == 0
    assert "2 tasks" in run.summary and "1 succeeded, 1 failed" in run.summary
    assert [one.id for one in read_status(run.status_file)] == [0, 1]


def test_futures(directory: Path) -> None:
    with start(directory) as run:
        handed = [run.submit(f"exit {n}") for n in range(10)]
        codes = {task.result().return_code for task in as_completed(handed, DEADLINE)}
        assert codes == set(range(10))
        done, not_done = wait([run.submit("true"), run.submit("read line < go")], DEADLINE, FIRST_COMPLETED)
        assert len(done) == len(not_done) == 1
        let_go(directory)
        assert run.wait(DEADLINE) and not_done.pop().done()


def test_callbacks_may_hand_in_more(directory: Path) -> None:
    made: list[Task] = []

    def next_one(task: Task) -> None:
        if len(made) < 20:
            made.append(run.submit(f": after {task.id}"))
            made[-1].add_done_callback(next_one)  # type: ignore[arg-type]

    errors: list[BaseException] = []

    def wait_for_another(task: Task) -> None:
        for waits in (held.result, run.wait, run.close):
            try:
                waits()
            except RuntimeError as error:
                errors.append(error)
        let_go(directory)

    with start(directory, most=1) as run:
        made.append(run.submit("true"))
        made[0].add_done_callback(next_one)  # type: ignore[arg-type]
        run.wait()
        assert [task.id for task in made] == list(range(20))
    with start(directory) as run:
        held = run.submit("read line < go")
        run.submit("true").add_done_callback(wait_for_another)  # type: ignore[arg-type]
    assert len(errors) == 3 and all("it would wait for ever" in str(error) for error in errors)


def test_order_and_threads(directory: Path) -> None:
    found: dict[int, list[Task]] = {}

    def hand_in(number: int) -> None:
        found[number] = [run.submit(f": {number} {n}") for n in range(100)]

    with start(directory) as run:
        threads = [threading.Thread(target=hand_in, args=[number]) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert run.wait(DEADLINE)
        for handed in found.values():
            ids = [task.id for task in handed]
            assert ids == sorted(ids)  # type: ignore[type-var]
            assert all(task.result().command == task.command for task in handed)
    assert len(tasks(run.status_file)) == 400


def test_so_many_at_a_time(directory: Path) -> None:
    with start(directory, most=5) as run:
        lines = [run.submit("read line < go") for _ in range(5)]
        waiting = threading.Thread(target=lambda: lines.append(run.submit("true")))
        waiting.start()
        assert len(lines) == 5 and waiting.is_alive()
        let_go(directory)
        waiting.join(DEADLINE)
        assert len(lines) == 6
        let_go(directory, 4)


@pytest.mark.parametrize(
    "command", ["", "  ", "a\nb", "a\0b", "# x", "#DISBATCH BARRIER", "x" * (1 << 20) + "x"]
)
def test_what_is_no_command(directory: Path, command: str) -> None:
    with start(directory) as run:
        with pytest.raises(ValueError, match="not a command"):
            run.submit(command)
        with pytest.raises(TypeError):
            run.submit(["true"])  # type: ignore[arg-type]
    assert run.return_code == 0


def test_odd_bytes(directory: Path) -> None:
    odd = b": '" + bytes({*range(1, 256)} - {10, 13, 39}) + b"'\xff"
    with start(directory) as run:
        results = [run.submit(odd).result(DEADLINE), run.submit(os.fsdecode(odd)).result(DEADLINE)]
        assert [result.command_bytes for result in results] == [odd, odd]
        long = run.submit(": " + "x" * 100_000).result(DEADLINE)
        assert len(long.command) == 100_002


def test_a_wrong_line_fails_alone(directory: Path) -> None:
    """What the driver alone can see; others come to it in the same batch."""
    run = start(directory)
    assert run.submit("true").result(DEADLINE).ok
    handed = [run.submit("true"), *run.hand_in(b"#DISBATCH PERENGINE STOP no", 1), run.submit("true")]
    assert handed[0].result(DEADLINE).ok and handed[2].result(DEADLINE).ok
    with pytest.raises(UsageError, match=r"^PERENGINE must precede all tasks"):
        handed[1].result(DEADLINE)
    with pytest.raises(RunEndedError, match="1 task was not run to the end: PERENGINE must"):
        run.close()


# ---- maps, repeats, barriers ----


def test_map(directory: Path) -> None:
    with start(directory) as run:
        handed = run.map("echo {x} {y} >&2; test {x} != b", x=["a a", "b", "$c"], y=range(3))
        assert [task.result(DEADLINE).err for task in handed] == [b"a a 0\n", b"b 1\n", b"$c 2\n"]
        assert [task.result().return_code for task in handed] == [0, 1, 0]
        with pytest.raises(ValueError, match="not of one length"):
            run.map("echo {x} {y}", x=[1, 2], y=[1])
        assert run.map("echo {}", []) == []


@pytest.mark.parametrize(
    "wrong, words",
    [
        (lambda run: run.submit("prog", 3), "one command and no values for it"),
        (lambda run: run.submit("prog", x=3), r"map\('prog \{\}', values\)"),
        (lambda run: run.submit(print, 3), "not Python functions"),
        (lambda run: run.submit(["echo", "x"]), "shlex.join"),
        (lambda run: run.submit(3), r"text or bytes, not 3; str\(\)"),
        (lambda run: run.map(str, [1, 2]), "a template of commands is text, .* not Python functions"),
        (lambda run: next(run.imap(str, [1, 2])), "not Python functions"),
        (lambda run: asyncio.run(run.asubmit("prog", 3)), "no values for it"),
    ],
)
def test_what_is_meant_for_another_executor_is_told(
    directory: Path, wrong: Callable[[DisBatch], object], words: str
) -> None:
    with start(directory) as run, pytest.raises(TypeError, match=words):
        wrong(run)


def test_which_tasks_run(directory: Path) -> None:
    with start(directory, nodes="localhost:1") as run:
        held, waiting = run.submit(HELD), run.submit(HELD)
        until_ran(directory, 1)
        assert held.running() and not waiting.running()
        let_go(directory)
        assert held.result(DEADLINE).ok and not held.running()
        until_ran(directory, 2)
        assert waiting.running()
        let_go(directory)
    assert not waiting.running()


def test_a_task_is_awaited(directory: Path) -> None:
    async def main() -> None:
        async with start(directory) as run:
            assert (await run.submit("exit 3")).return_code == 3
            results = await asyncio.gather(*run.map("exit {}", range(4)))
            assert [result.return_code for result in results] == list(range(4))
            held = run.submit(HELD)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await held
            assert held.cancelled()

    asyncio.run(main())


@pytest.mark.parametrize("pack", [False, True])
def test_all_that_a_task_printed(directory: Path, pack: bool) -> None:
    with start(directory, output="out", output_pack=pack) as run:
        loud, silent = run.submit("seq 10000; echo oops >&2"), run.submit("true")
        expected = "".join(f"{n}\n" for n in range(1, 10001)).encode()
        assert run.output(loud.result(DEADLINE)) == expected
        assert run.output(loud, err=True) == b"oops\n"
        assert run.output(silent.result(DEADLINE).id) == b""
        with pytest.raises(UsageError, match="task 9: no end recorded"):
            run.output(9)
    assert run.output(loud) == expected
    with start(directory, prefix="other") as run:
        result = run.submit("echo x").result(DEADLINE)
        with pytest.raises(UsageError, match="keeps no output: it was started without --output"):
            run.output(result)


def test_the_page_of_a_run(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    with start(directory, web=True) as run:
        run.submit("true").result(DEADLINE)
        address = run.web_address
        assert address is not None and f"web page: {address}" in caplog.text
        with urllib.request.urlopen(address, timeout=DEADLINE) as page:
            assert page.status == 200
        with DisBatch.connect(run.prefix, tasks=False) as other:
            assert other.web_address not in (None, address)
    assert run.web_address is None
    caplog.clear()
    with start(directory, prefix="other") as run:
        assert run.web_address is None
    assert not caplog.text


def test_imap_over_values_without_end(directory: Path) -> None:
    with start(directory) as run:
        for number, result in enumerate(run.imap("echo {x}", x=count(), ahead=5)):
            assert result.out == b"%d\n" % number
            if number == 20:
                break
        assert run.wait(DEADLINE)
        assert [result.out for result in run.imap("echo {}", ["a", "c"])] == [b"a\n", b"c\n"]
        with pytest.raises(ValueError, match="ahead"):
            run.imap("echo {}", [1], ahead=0)
    assert len(tasks(run.status_file)) <= 21 + 6 + 2


def test_repeat_and_barrier(directory: Path) -> None:
    with start(directory) as run:
        first = run.repeat(3, "sleep 0.1; echo $DISBATCH_REPEAT_INDEX >> order", start=10, step=5)
        barrier = run.barrier()
        last = run.submit("echo last >> order")
        assert barrier.result(DEADLINE).kind == "barrier"
        assert all(task.done() for task in first)
        assert [task.result().repeat for task in first] == [10, 15, 20]
        assert (last.result(DEADLINE).id, barrier.id) == (4, 3)
        assert run.repeat(0, "true") == []
    lines = (directory / "order").read_text().split()
    assert sorted(lines[:3]) == ["10", "15", "20"] and lines[3:] == ["last"]


def test_a_barrier_that_checks_ends_the_run(directory: Path) -> None:
    run = start(directory)
    run.submit("exit 3")
    run.barrier(check=True)
    last = run.submit("true")
    problem = r"1 task was not run to the end: the run ended: ended at a failed BARRIER CHECK; resume with: "
    with pytest.raises(RunEndedError, match=problem):
        run.close()
    assert isinstance(last.exception(), RunEndedError)
    assert run.return_code == 1


# ---- asyncio ----


def test_asyncio(directory: Path) -> None:
    async def main() -> None:
        async with start(directory, most=3) as run:
            results = await asyncio.gather(*(run.asubmit(f"exit {n}") for n in range(8)))
            assert [result.return_code for result in results] == list(range(8))
            held = asyncio.create_task(run.asubmit(HELD))
            while not held.done() and not (directory / "ran").exists():
                await run.asubmit("true")
            held.cancel()
            with pytest.raises(asyncio.CancelledError):
                await held
        assert run.return_code == 0

    asyncio.run(main())
    assert [record.return_code for record in tasks(directory / "P_status.txt").values()].count(-15) == 1


def test_an_exception_in_async_with(directory: Path) -> None:
    async def main() -> None:
        async with start(directory) as run:
            task = run.submit(HELD)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.wrap_future(task), 0.01)
            run.submit(HELD)
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine") as raised:
        asyncio.run(main())
    assert any("resume with: disbatch" in note for note in raised.value.__notes__)


# ---- cancelling ----


def test_cancelling(directory: Path) -> None:
    with start(directory) as run:
        running = [run.submit(HELD) for _ in range(2)]
        waiting = run.submit("touch never")
        until_ran(directory, 2)
        assert waiting.cancel() and waiting.cancel() and waiting.cancelled()
        assert running[0].cancel()
        with pytest.raises(CancelledError):
            running[0].result()
        until(lambda: 0 in tasks(run.status_file), "its end", directory)
        let_go(directory)
        done = set(as_completed([*running, waiting], DEADLINE))
        assert len(done) == 3 and running[1].result().ok
        assert not running[1].cancel()
        quick = [run.submit("touch never") for _ in range(50)]
        assert all(task.cancel() for task in quick[25:])
    found = tasks(run.status_file)
    assert (found[0].return_code, found[2].return_code, found[2].pid) == (-15, -15, 0)
    assert all(task.done() for task in quick)
    gone(lambda: processes(f"OF_THIS_TEST={directory}"), "the end of all processes")


# ---- leaving ----


def test_leaving_with_an_exception_ends_the_run(directory: Path) -> None:
    with pytest.raises(ZeroDivisionError) as raised, start(directory) as run:
        handed = [run.submit(HELD) for _ in range(4)]
        until_ran(directory, 2)
        1 / 0
    assert all(isinstance(task.exception(), RunEndedError) for task in handed)
    (note,) = raised.value.__notes__
    how = "ended by the Python program; resume with: disbatch --ssh-node=localhost:2 --prefix=P P_tasks.txt"
    assert how in note
    gone(lambda: processes(f"OF_THIS_TEST={directory}"), "the end of all processes")


def test_leaving_with_an_exception_when_all_is_done(directory: Path) -> None:
    with pytest.raises(ZeroDivisionError) as raised, start(directory) as run:
        run.submit("true").result(DEADLINE)
        1 / 0
    assert run.return_code == 0 and not hasattr(raised.value, "__notes__")


def test_closing(directory: Path) -> None:
    run = start(directory)
    task = run.submit("sleep 0.2")
    run.close()
    assert task.result(0).ok
    run.close()
    with pytest.raises(RuntimeError, match="closed"):
        run.submit("true")
    assert "closed" not in repr(task) and "return code 0: sleep 0.2" in repr(task)


def test_a_run_that_ends_by_itself(directory: Path) -> None:
    run = start(directory, fail_fast=True)
    held, bad = run.submit("read line < go"), run.submit("exit 3")
    assert bad.result(DEADLINE).return_code == 3
    with pytest.raises(RunEndedError, match="first failed task; resume with: disbatch"):
        held.result(DEADLINE)
    with pytest.raises(RunEndedError):
        run.submit("true").result(DEADLINE)
    with pytest.raises(RunEndedError, match="not run to the end: the run ended: ended at the first failed"):
        run.close()
    assert run.return_code == 1


@pytest.mark.parametrize(
    ("named", "problem"),
    [
        ({"nodes": "nonsense"}, "-s nonsense"),
        ({"prefix": "no/such/place"}, "there is no directory"),
        ({"options": ["--wrong"]}, "unknown option --wrong"),
        ({"options": ["Tasks"]}, "Tasks: No such file"),
        ({"resume_from": "none"}, "none: cannot be read"),
    ],
)
def test_wrong_options(directory: Path, named: dict[str, object], problem: str) -> None:
    with pytest.raises(UsageError, match=problem) as raised, start(directory, **named):
        pass
    assert "\n" not in str(raised.value)
    with pytest.raises(UsageError):
        start(directory, **named).submit("true")
    assert [path.name for path in directory.iterdir()] == ["go"]


def test_options_that_there_are_not(directory: Path) -> None:
    with pytest.raises(TypeError, match="no option of disbatch is called 'slots'"):
        start(directory, slots=4)


def test_going_on_from_a_former_run(directory: Path) -> None:
    with start(directory) as first:
        first.map("exit {}", [0, 1, 2])
    with start(directory, prefix="Q", resume_from="P_status.txt", retry=True) as second:
        results = [task.result(DEADLINE) for task in second.map("exit {}", [0, 1, 2, 3])]
    assert [result.kind for result in results] == ["skipped", "task", "task", "task"]
    assert [result.return_code for result in results] == [0, 1, 2, 3]


def test_what_it_says(directory: Path) -> None:
    with (directory / "said").open("wb") as file, start(directory, stderr=file) as run:
        run.submit("true")
    assert "disbatch: complete: 1 task" in (directory / "said").read_text()
    assert run.summary == ""


# ---- processes that come and go ----


def python(directory: Path, script: str) -> subprocess.Popen[str]:
    (directory / "script.py").write_text(
        f"from disbatch import *\nrun = DisBatch(nodes='localhost:2', prefix='P')\n{script}\n"
    )
    return subprocess.Popen(
        [sys.executable, "script.py"],
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment({"OF_THIS_TEST": str(directory)}),
    )


def test_a_script_that_just_ends(directory: Path) -> None:
    process = python(directory, "for n in range(200): run.submit(f'sleep 0.01; echo {n} >> ran')")
    out, err = process.communicate(timeout=DEADLINE)
    assert (process.returncode, out, err) == (0, "", "")
    assert sorted(map(int, (directory / "ran").read_text().split())) == list(range(200))
    assert not (directory / "P_connect.json").exists(), "the run has ended"


def test_a_process_that_is_killed(directory: Path) -> None:
    """The run takes no more, finishes what it has, and ends."""
    process = python(directory, f"tasks = [run.submit({HELD!r}) for _ in range(4)]\ntasks[0].result()")
    until_ran(directory, 2)
    process.kill()
    process.communicate(timeout=DEADLINE)
    let_go(directory, 4)
    until(lambda: not (directory / "P_connect.json").exists(), "the end of the run", directory)
    assert sorted(tasks(directory / "P_status.txt")) == [0, 1, 2, 3]
    gone(lambda: processes(f"OF_THIS_TEST={directory}"), "the end of all processes")


@pytest.mark.parametrize("how", ["with run: run.submit(HELD).result()", "run.submit(HELD); run.close()"])
def test_ctrl_c(directory: Path, how: str) -> None:
    """The run is ended in order: what runs is ended, and one line says how to go on."""
    process = python(directory, f"HELD = {HELD!r}\n{how}")
    until_ran(directory, 1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == -signal.SIGINT
    assert (
        err.splitlines()[-2:-1] == ["KeyboardInterrupt"] and "resume with: disbatch" in err.splitlines()[-1]
    )
    assert not tasks(directory / "P_status.txt")
    gone(lambda: processes(f"OF_THIS_TEST={directory}"), "the end of all processes")


def test_ctrl_c_at_the_terminal_reaches_us_alone(directory: Path) -> None:
    """The group of the foreground gets it: the run goes on until we say."""
    script = f"task = run.submit({HELD!r})\ntry: task.result()\nexcept KeyboardInterrupt: pass\n"
    process = python(directory, script + "print(task.result().return_code); run.close()")
    until_ran(directory, 1)
    (driver,) = [pid for pid in processes(f"OF_THIS_TEST={directory}") if is_driver(pid)]
    assert os.getsid(driver) != os.getsid(process.pid)
    process.send_signal(signal.SIGINT)
    let_go(directory)
    assert process.communicate(timeout=DEADLINE) == ("0\n", "")


def is_driver(pid: int) -> bool:
    return b"--owned" in Path(f"/proc/{pid}/cmdline").read_bytes()


def driver_of(directory: Path) -> int:
    (pid,) = [pid for pid in processes(f"OF_THIS_TEST={directory}") if is_driver(pid)]
    return pid


def test_forked_processes(directory: Path) -> None:
    with start(directory) as run:
        task = run.submit(HELD)
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            said = []
            for what in (lambda: run.submit("true"), task.result, run.wait):
                try:
                    what()
                except RuntimeError as error:
                    said.append(str(error))
            os.write(writer, "\n".join(said).encode())
            signal.pause()  # it lives on, and does not keep the run open
        os.close(writer)
        said = os.read(reader, 65536).decode().split("\n")
        os.close(reader)
        assert len(said) == 3 and "DisBatch.connect" in said[0] and "can wait for it" in said[1]
        let_go(directory)
    assert task.result().ok and run.return_code == 0
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


# ---- runs of others ----


def test_connecting(directory: Path) -> None:
    env = {"OF_THIS_TEST": str(directory)}
    with Running(directory, "--keep-open", "-s", "localhost:2", "-p", "P", env=env) as others:
        others.until((directory / "P_connect.json").exists, "the connect file")
        with DisBatch.connect(directory / "P") as run:
            assert run.submit("true").result(DEADLINE).ok
            with DisBatch.connect(str(directory / "P_status.txt")) as second:
                both = [run.submit("exit 1"), second.submit("exit 2")]
                assert [task.result(DEADLINE).return_code for task in both] == [1, 2]
        with pytest.raises(ValueError, match="mine"), DisBatch.connect(directory / "P") as run:
            held = [run.submit(HELD), run.submit(HELD), run.submit("touch never")]
            until_ran(directory, 2)
            raise ValueError("mine")
        assert all(task.cancelled() for task in held)
        with DisBatch.connect(directory / "P") as run:
            assert run.submit("true").result(DEADLINE).ok
            blocking = [run.submit("read line < go") for _ in range(2)]
            with DisBatch.connect(directory / "P") as second:
                late = second.submit("touch never")
                DisBatch.connect(directory / "P").close()  # by now the driver has it
                assert late.cancel(), "and it leaves at once"
            let_go(directory, 2)
            assert all(task.result(DEADLINE).ok for task in blocking)
        subprocess.run(
            [Path(DISBATCH).with_name("dbutil"), "close"], cwd=directory, check=True, timeout=DEADLINE
        )
        assert others.ended() == 0
    assert Counter(record.return_code for record in tasks(directory / "P_status.txt").values()) == {
        0: 4,
        1: 1,
        2: 1,
        -15: 4,
    }
    assert not (directory / "never").exists()


def test_connecting_to_what_takes_no_tasks(directory: Path) -> None:
    with pytest.raises(UsageError, match="there is no such run"):
        DisBatch.connect(directory / "P")
    write(directory / "Tasks", [HELD])
    env = {"OF_THIS_TEST": str(directory)}
    with Running(directory, "-s", "localhost:1", "-p", "P", "Tasks", env=env) as others:
        until_ran(directory, 1)
        with pytest.raises(UsageError, match="start it with --keep-open"):
            DisBatch.connect(directory / "P")
        os.kill(others.pid, signal.SIGKILL)
        others.ended()
    with pytest.raises(SilenceError, match="disbatch --takeover"):
        DisBatch.connect(directory / "P")


# ---- drivers that are killed ----


def test_another_driver_takes_it_over(directory: Path) -> None:
    with start(directory) as run:
        first = run.submit("true")
        assert first.result(DEADLINE).ok
        held = [run.submit(HELD) for _ in range(4)]
        until_ran(directory, 2)
        os.kill(driver_of(directory), signal.SIGKILL)
        late = run.submit("echo late >> ran")
        reader, writer = os.pipe()
        env = {"OF_THIS_TEST": str(directory)}
        with Running(directory, "--takeover", "P", stdin=reader, env=env) as second:
            second.until_said("all engines are there")
            let_go(directory, 4)
            assert [task.result(DEADLINE).ok for task in held] == [True] * 4
            assert late.result(DEADLINE).ok
            run.close()
            assert second.ended() == 0, second.err
        os.close(reader)
        os.close(writer)
    assert run.return_code == -signal.SIGKILL
    assert Counter((directory / "ran").read_text().split()) == Counter(["1", "2", "3", "4", "late"])
    assert sorted(tasks(run.status_file)) == list(range(6))


def test_nobody_takes_it_over(directory: Path) -> None:
    run = start(directory, patience=0.2)
    held = run.submit(HELD)
    until_ran(directory, 1)
    os.kill(driver_of(directory), signal.SIGKILL)
    with pytest.raises(RunEndedError, match=r"was not heard for 0.2 s; `disbatch --takeover .*P` goes on"):
        held.result(DEADLINE)
    with pytest.raises(RunEndedError):
        run.submit("true").result(DEADLINE)
    with pytest.raises(RunEndedError, match="not run to the end"):
        run.close()


# ---- the original's class ----


def test_as_with_the_original(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The calls of its example dberTest.py, one after the other."""
    from disbatch import disBatch  # type: ignore[attr-defined]

    assert disBatch.DisBatcher is DisBatcher
    monkeypatch.chdir(directory)
    db = disBatch.DisBatcher(tasksname="testing", args=["-s", "localhost:5"])
    lines = {
        n: f"{{ echo {n} ; [[ {n} == 7 ]] && exit 1 ; date ; }} > square.log_{n:03d} 2>&1 " for n in range(15)
    }
    for text in lines.values():
        db.submit(text)
    reports = db.syncTasks(lines)
    assert {id: report["ReturnCode"] for id, report in reports.items()} == {n: int(n == 7) for n in range(15)}
    assert {id: report["TaskCmd"] for id, report in reports.items()} == lines
    assert db.syncTasks([3]) == {3: reports[3]}
    db.submit("#DISBATCH REPEAT 15 start 100 step 3 [[ $DISBATCH_REPEAT_INDEX == 112 ]] && exit 1; echo out")
    db.submit("# a comment")
    found = [db.wait_one_task() for _ in range(15)]
    assert {report["TaskId"] for report in found} == set(range(15, 30))
    assert [r["TaskRepIndex"] for r in found if r["ReturnCode"]] == [112]
    good = next(report for report in found if not report["ReturnCode"])
    assert good["Flags"] == " O  " and (good["OutBytes"], good["OutData"]) == (4, "out\n")
    assert set(good) == {
        *("Flags", "TaskId", "TaskStreamIndex", "TaskRepIndex", "Host", "PID", "ReturnCode", "Elapsed"),
        *("Start", "End", "OutBytes", "OutData", "ErrBytes", "ErrData", "TaskCmd"),
    }
    with pytest.raises(ValueError, match="unknown directive"):
        db.submit("#DISBATCH NO")
    db.done()
    with pytest.raises(RuntimeError, match="closed"):
        db.submit("true")


def test_wrong_words_of_the_original(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(directory)
    with pytest.raises(UsageError, match="unknown option"):
        DisBatcher("x", ["--wrong"])


def test_types() -> None:
    """`mypy` sees the names that are looked up when they are used."""
    results: list[TaskResult] = []
    assert results == [] and issubclass(UsageError, DisbatchError)
