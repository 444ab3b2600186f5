"""Tasks that come as a stream: as they come, without end, and wrong in the middle."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from command import DISBATCH, Running, call, disbatch, environment, records, status_file, tasks, until, write

from deadline import DEADLINE
from disbatch.model.statusline import unquoted

LARGEST_RSS = 150 << 20


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    path = tmp_path / "go"
    os.mkfifo(path)
    return path


def test_first_task_starts_before_the_generator_ends(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    with Running(tmp_path, "-s", "localhost:2", "-", stdin=reader) as run:
        os.close(reader)
        for number in range(3):
            os.write(writer, b"touch done.%d\n" % number)
            run.until((tmp_path / f"done.{number}").exists, f"task {number}")
        os.write(writer, b"touch last")  # no line end
        os.close(writer)
        assert run.ended() == 0
    path = status_file(tmp_path, "STREAM_*_status.txt")
    assert sorted(tasks(path)) == [0, 1, 2, 3] and (tmp_path / "last").exists()


def test_wrong_directive_in_mid_stream(tmp_path: Path, fifo: Path) -> None:
    reader, writer = os.pipe()
    with Running(tmp_path, "-s", "localhost:2", "-", stdin=reader) as run:
        os.close(reader)
        os.write(writer, b"touch up; read x < go; exit 5\n")
        run.until((tmp_path / "up").exists, "the task")
        os.write(writer, b"#DISBATCH BARIER\ntouch never\n")
        run.until_said("stdin:2: unknown directive 'BARIER'")
        fifo.write_text("go\n")
        assert run.ended() == 2
        os.close(writer)
        assert "no new task starts" in run.err and "Traceback" not in run.err
    assert {id: record.return_code for id, record in tasks(status_file(tmp_path)).items()} == {0: 5}
    assert not (tmp_path / "never").exists()


def test_wrong_directive_before_any_engine_joined(tmp_path: Path) -> None:
    script = f"printf '%s\\n' true '#DISBATCH NO' | {DISBATCH} -s localhost:1 -"
    done = call(["bash", "-c", script], tmp_path)
    assert done.returncode == 2
    assert "stdin:2: " in done.stderr and "exit code" not in done.stderr


def test_writer_learns_that_nobody_reads_any_more(tmp_path: Path) -> None:
    generator = "(echo true; echo '#DISBATCH WRONG'; yes true)"
    script = f"{generator} | {DISBATCH} -s localhost:1 -; echo ${{PIPESTATUS[*]}}"
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.stdout.split() == [b"141", b"2"]


@pytest.mark.parametrize(
    ("script", "lines"),
    [
        ("{} -s localhost:2 <(printf '%s\\n' true 'exit 4')", 2),
        ("printf '%s\\r\\n' true '#DISBATCH BARRIER' 'exit 4' | {} -s localhost:2 -", 2),
        ("{} -s localhost:2 - < Tasks", 2),
        ("{} -s localhost:2 /dev/stdin < Tasks", 2),
        ("mkfifo pipe; cat Tasks > pipe & {} -s localhost:2 pipe", 2),
        ("{} -s localhost:2 - < /dev/null", 0),
        (": | {} -s localhost:2 -", 0),
    ],
)
def test_where_streams_come_from(tmp_path: Path, script: str, lines: int) -> None:
    write(tmp_path / "Tasks", ["true", "#DISBATCH BARRIER", "exit 4"])
    done = call(["bash", "-c", script.format(DISBATCH)], tmp_path)
    assert done.returncode == 0, done.stderr
    status = tasks(status_file(tmp_path))
    assert sorted(record.return_code for record in status.values()) == [0, 4][:lines]


def test_regular_file_on_stdin_is_checked_first(tmp_path: Path) -> None:
    write(tmp_path / "Tasks", ["touch ran", "#DISBATCH REPEAT x true"])
    with (tmp_path / "Tasks").open("rb") as file:
        done = disbatch(tmp_path, "-s", "localhost:1", "-", stdin=file)
    assert done.returncode == 2 and "stdin:2: " in done.stderr and done.stderr.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"Tasks"}


def test_without_standard_input(tmp_path: Path) -> None:
    write(tmp_path / "Tasks", ["cat > in"])
    for script, code in ((f"{DISBATCH} - <&-", 2), (f"{DISBATCH} Tasks <&- >&- 2>&-", 0)):
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            timeout=DEADLINE,
            check=False,
        )
        assert done.returncode == code, done.stderr
        assert code == 0 or (done.stderr.count(b"\n") == 1 and b"stdin" in done.stderr)
    assert tasks(status_file(tmp_path))[0].return_code == 0 and (tmp_path / "in").read_bytes() == b""


def resident(pid: int) -> int:
    """Most memory that a process has had, bytes."""
    (line,) = [row for row in Path(f"/proc/{pid}/status").read_text().splitlines() if row.startswith("VmHWM")]
    return int(line.split()[1]) << 10


def test_endless_repeat_starts_at_once_and_stays_small(tmp_path: Path) -> None:
    write(tmp_path / "Tasks", ["#DISBATCH REPEAT 50000000 :", "#DISBATCH BARRIER", "touch never"])
    with Running(tmp_path, "-s", "localhost:2", "Tasks") as run:
        path = run.until(lambda: next(tmp_path.glob("*_status.txt"), None), "a status file")
        run.until(lambda: path.stat().st_size > 50_000, "some hundred tasks")
        assert resident(run.pid) < LARGEST_RSS
        run.signal(signal.SIGINT)
        assert run.ended() == 130
        assert "of 50,000,000" in run.err or "not done" in run.err
    ids = {record.id for record in records(path)}
    assert ids == set(range(len(ids)))
    assert all(unquoted(record.command) == b":" for record in records(path))


def test_fast_stream_does_not_fill_the_memory(tmp_path: Path) -> None:
    """Two hundred megabytes wait at the door while one task runs."""
    os.mkfifo(tmp_path / "go")
    line = b": " + b"x" * 999_997 + b"\n"
    writing = [
        "bash",
        "-c",
        f"echo 'touch up; read x < go'; exec {DISBATCH.replace('disbatch', 'python')} -c \"$0\"",
    ]
    program = f"""
import os, select
rest = memoryview((b': ' + b'x' * {len(line) - 3} + b'\\n') * 200)
os.set_blocking(1, False)
while rest:
    if not select.select([], [1], [], 1)[1]:
        open("held-up", "w").close()
        select.select([], [1], [])
    rest = rest[os.write(1, rest):]
"""
    generator = subprocess.Popen(
        [*writing, program], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert generator.stdout is not None
    try:
        with Running(tmp_path, "-s", "localhost:1", "-", stdin=generator.stdout) as run:
            generator.stdout.close()
            run.until((tmp_path / "up").exists, "the task")
            run.until((tmp_path / "held-up").exists, "generator that is held up")
            assert resident(run.pid) < 2 * LARGEST_RSS
            run.signal(signal.SIGTERM)
            assert run.ended() == 143
    finally:
        generator.kill()
        generator.wait()


def test_interrupted_while_the_stream_is_silent(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    with Running(tmp_path, "-s", "localhost:1", "-", stdin=reader) as run:
        os.close(reader)
        os.write(writer, b"touch up\n")
        run.until((tmp_path / "up").exists, "the task")
        until(lambda: len(tasks(status_file(tmp_path))) == 1, "its line", tmp_path)
        run.signal(signal.SIGINT)
        assert run.ended() == 130
        assert "resume" in run.err and " - -r STREAM_" in run.err
        os.close(writer)
