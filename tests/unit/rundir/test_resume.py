"""What former runs completed: which lines count, which one wins, what does not fit."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from disbatch.model.errors import ResumeError
from disbatch.model.statusline import STATUS_HEADER, Mark, format_line, format_skipped, parse_line
from disbatch.model.task import (
    LOST_RETURN_CODE,
    NO_REPEAT,
    Barrier,
    Item,
    Outcome,
    PerEngine,
    Phase,
    Reason,
    Task,
)
from disbatch.model.taskfile import TaskParser
from disbatch.rundir.resume import Former, unrecorded

DATA = Path(__file__).parents[1] / "data"


def line(
    id: int,
    command: bytes = b"",
    code: int = 0,
    mark: Mark = Mark.TASK,
    pid: int = 1,
    reason: Reason = Reason.NONE,
) -> bytes:
    """A status line of ours; the command is `c<id>` unless given."""
    outcome = Outcome(1, 0, pid, code, 1.0, 2.0, 3.0, 0, b"", 0, b"", reason=reason)
    return format_line(id, id + 1, NO_REPEAT, command or b"c%d" % id, "n", outcome, mark)


def task(id: int, command: bytes = b"") -> Task:
    """The task that `line(id)` tells of."""
    return Task(id, id + 1, NO_REPEAT, command or b"c%d" % id)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """Write a status file; its path."""

    def write(*lines: bytes, name: str = "run_status.txt") -> str:
        path = tmp_path / name
        path.write_bytes(b"".join(lines))
        return str(path)

    return write


def pids(former: Former, count: int) -> list[int | None]:
    """For each id below `count` the pid of its record, None if it is to run."""
    records = [former.lookup(task(id)) for id in range(count)]
    return [record and record.pid for record in records]


@pytest.fixture
def read() -> Iterator[Callable[..., Former]]:
    """`Former.read` for the source `Tasks`, closed at the end."""
    opened: list[Former] = []

    def read(*paths: str, retry: bool = False, force: bool = False) -> Former:
        opened.append(Former.read(paths, source="Tasks", retry=retry, force=force))
        return opened[-1]

    yield read
    for each in opened:
        each.close()


Write = Callable[..., str]
Read = Callable[..., Former]


def test_which_lines_count(write: Write, read: Read) -> None:
    path = write(
        STATUS_HEADER,
        line(1, pid=11),
        line(0, pid=10),
        line(2, b"#DISBATCH BARRIER", mark=Mark.BARRIER),
        line(3, mark=Mark.SUPERSEDED),
        line(4, mark=Mark.SKIPPED, pid=14),
        line(5, mark=Mark.PER_ENGINE),
        line(6, code=LOST_RETURN_CODE),
        line(7, code=-9, pid=17),
        b"C    " + line(8)[4:],
    )
    former = read(path)
    assert pids(former, 10) == [10, 11, None, None, 14, None, None, 17, None, None]
    assert (former.count, former.failures, former.highest) == (4, 1, 7)


def test_which_reasons_count(write: Write, read: Read) -> None:
    """What was cancelled, or ended at a limit, is done, unless with -R; what was not run is not."""
    path = write(
        line(0, code=-15, pid=10, reason=Reason.CANCELLED),
        line(1, code=-9, pid=11, reason=Reason.TIME_LIMIT),
        line(2, code=-9, pid=12, reason=Reason.MEMORY),
        line(3, code=LOST_RETURN_CODE, pid=0, reason=Reason.NOT_RUN),
        line(4, code=-15, pid=14, mark=Mark.SKIPPED, reason=Reason.CANCELLED),
    )
    former = read(path)
    assert pids(former, 5) == [10, 11, 12, None, 14]
    assert (former.count, former.failures) == (4, 4)
    found = former.lookup(task(4))
    assert found is not None and found.reason is Reason.CANCELLED
    assert pids(read(path, retry=True), 5) == [None] * 5


def test_retry_leaves_out_the_failed(write: Write, read: Read) -> None:
    former = read(write(line(0, code=1), line(1), line(2, code=-15, mark=Mark.SKIPPED)), retry=True)
    assert pids(former, 3) == [None, 1, None]
    assert former.lookup(task(0, b"mended")) is None


@pytest.mark.parametrize(
    ("codes", "winner"),
    [([0, 0], 1), ([1, 2], 1), ([0, 1], 0), ([1, 0], 1), ([1, 0, 2, 0, 1], 3), ([0, LOST_RETURN_CODE], 0)],
)
def test_success_beats_failure_and_later_beats_earlier(
    write: Write, read: Read, codes: list[int], winner: int
) -> None:
    lines = [line(5, code=code, pid=pid) for pid, code in enumerate(codes)]
    for former in (read(write(*lines)), read(*(write(each, name=f"f{n}") for n, each in enumerate(lines)))):
        record = former.lookup(task(5))
        assert record is not None
        assert record.pid == winner
        assert (former.count, former.failures) == (1, int(codes[winner] != 0))


def test_a_file_twice_and_several_files(write: Write, read: Read, tmp_path: Path) -> None:
    first, second = write(line(0), line(1, code=1), name="a"), write(line(2), name="b")
    os.link(first, tmp_path / "c")
    former = read(first, second, first, str(tmp_path / "c"))
    assert (former.count, former.failures, former.highest) == (3, 1, 2)
    assert pids(former, 4) == [1, 1, 1, None]


@pytest.mark.parametrize("torn", [line(1)[:-1], line(1)[:20], b"   ", b"\0" * 5000, line(1) + b"RO"])
def test_a_torn_last_line(write: Write, read: Read, torn: bytes) -> None:
    former = read(write(line(0), torn))
    assert pids(former, 2) == [1, 1 if torn.startswith(line(1)) else None]


@pytest.mark.parametrize("bad", [b"echo hello\n", b"\n", b"\0\n", line(1)[:20] + line(2)])
def test_a_line_of_something_else(write: Write, read: Read, bad: bytes) -> None:
    path = write(line(0), bad, line(2))
    with pytest.raises(ResumeError) as caught:
        read(path)
    assert str(caught.value) == (
        f"{path}:2: not a line of a status file; -r needs the status file of a former run"
    )


def test_what_cannot_be_read(read: Read, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "binary").write_bytes(bytes(range(256)) * 100)
    for path, says in [
        (tmp_path / "missing", ": cannot be read: no such file or directory"),
        (tmp_path, ": is a directory; -r needs the status file of a former run"),
        (tmp_path / "pipe", ": is not a regular file; -r needs the status file of a former run"),
        (tmp_path / "binary", ":1: not a line of a status file; -r needs the status file of a former run"),
    ]:
        with pytest.raises(ResumeError) as caught:
            read(str(path))
        assert str(caught.value) == f"{path}{says}"
        assert caught.value.exit_code == 2


def test_nothing_completed(write: Write, read: Read) -> None:
    former = read(write())
    assert (former.count, former.highest) == (0, -1)
    assert former.verify(iter([task(0)]), 1) == []
    assert former.lookup(task(0)) is None


def test_another_command(write: Write, read: Read) -> None:
    path = write(*(line(id) for id in range(20)))
    changed = task(16, b"other")
    with pytest.raises(ResumeError) as caught:
        read(path).lookup(changed)
    expected = (
        f"Tasks:17: task 16 is not the one in {path}:17 (now: 'other', then: 'c16'); "
        "if lines were added, removed or moved, add --resume-by command"
    )
    assert str(caught.value) == expected
    items = [task(id) for id in range(16)] + [changed]
    with pytest.raises(ResumeError) as caught:
        read(path).verify(iter(items), 20)
    assert str(caught.value) == expected
    forced = read(path, force=True)
    assert forced.lookup(changed) is not None
    (words,) = forced.verify(iter(items), 20)
    assert words.startswith("--force-resume: 1 task done before had another command (the first: Tasks:17)")
    assert read(path, force=True).verify(iter(items[:16]), 20) == []


def test_verify_goes_no_further_than_the_highest_id(write: Write, read: Read) -> None:
    def items() -> Iterator[Item]:
        yield PerEngine(0, 1, Phase.START, b"x")
        for id in range(3):
            yield task(id)
        raise AssertionError("went too far")

    assert read(write(line(1), line(0))).verify(items(), 3) == []


def test_verify_refuses_a_barrier_where_a_task_was(write: Write, read: Read) -> None:
    path = write(line(0), line(1))
    items = [task(0), Barrier(1, 2, None, False, b"#DISBATCH BARRIER")]
    with pytest.raises(ResumeError, match=r"Tasks:2: barrier 1 is not .*:2 \(now: '#DISB.*then: 'c1'\)"):
        read(path).verify(iter(items), 2)
    assert read(path, force=True).verify(iter(items), 2) == []
    failed = write(line(0), line(1, code=1), name="failed")
    assert read(failed, retry=True).verify(iter(items), 2) == []


def test_tasks_beyond_the_end(write: Write, read: Read) -> None:
    former = read(write(line(0), line(5), line(9_000_000_000), line(7)))
    assert former.verify(iter([task(0)]), 1) == [
        "Tasks: 3 of the tasks in the former status file are beyond its end "
        "(it has ids up to 0, they go up to 9000000000); is it the same task file?"
    ]
    assert former.beyond(9_000_000_001) == []


def test_ids_far_apart(write: Write, read: Read) -> None:
    ids = [0, 3_999_999, 4_000_001, 10**9, (1 << 63) - 1, 9_999_999_999_999_999_998]
    former = read(
        write(*(line(id, pid=at) for at, id in enumerate(ids)), line(10**9, code=1), line(ids[4], pid=8))
    )
    assert [(record := former.lookup(task(id))) and record.pid for id in ids] == [0, 1, 2, 3, 8, 5]
    assert former.count == len(ids)
    assert [former.lookup(task(id)) for id in (1, 4_000_000, 10**9 + 1)] == [None] * 3


def test_a_long_file_in_any_order(write: Write, read: Read) -> None:
    count = 20_000  # several blocks and many pages
    order = [id * 7919 % count for id in range(count)]
    former = read(write(*(line(id, pid=id) for id in order)))
    assert former.count == count
    assert pids(former, count) == list(range(count))
    assert former.verify(map(task, range(count)), count) == []


def test_a_line_longer_than_a_page(write: Write, read: Read) -> None:
    long = b"\xff" * 600_000
    former = read(write(line(0), line(1, long), line(2)))
    assert former.lookup(task(1, long)) is not None
    assert former.lookup(task(2)) is not None
    with pytest.raises(ResumeError) as caught:
        former.lookup(task(1, long + b"x"))
    assert len(str(caught.value)) < 2000


def test_a_file_that_changes_under_us(write: Write, read: Read) -> None:
    path = write(line(0), line(1))
    former = read(path)
    os.truncate(path, 10)
    with pytest.raises(ResumeError, match="has changed since it was read"):
        former.lookup(task(1))


def test_results_that_engines_could_not_deliver(write: Write, read: Read) -> None:
    path = write(line(0), name="run_status.txt")
    write(line(1), line(2)[:9], name="run_node1_unrecorded.txt")
    write(line(3), line(0, code=3), name="run_node2_unrecorded.txt")
    write(line(4), name="run_2_status.txt")
    write(line(5), name="run_2_node1_unrecorded.txt")
    write(line(6), name="other_node1_unrecorded.txt")
    assert pids(read(path), 7) == [1, 1, None, 1, None, None, None]
    write(b"what\n", name="run_node3_unrecorded.txt")
    with pytest.raises(ResumeError, match=r"run_node3_unrecorded\.txt:1: not a line"):
        read(path)


def test_what_others_leave_beside_a_status_file_does_not_count(write: Write, read: Read) -> None:
    path = Path(write(line(0), name="run_status.txt"))
    write(line(1), name="theirs")
    os.mkfifo(path.with_name("run_node1_unrecorded.txt"))
    path.with_name("run_node2_unrecorded.txt").symlink_to("theirs")
    former = read(str(path))
    assert pids(former, 2) == [1, None]
    assert former.verify([], 5) == [
        f"{path.with_name(f'run_node{number}_unrecorded.txt')}: does not belong to you: ignored"
        for number in (1, 2)
    ]


@pytest.mark.skipif(os.geteuid() != 0 and os.environ.get("CI") != "true", reason="not root")
def test_what_the_owner_of_the_status_file_left_beside_it_counts(write: Write, read: Read) -> None:
    """It may be a colleague's."""
    path, beside = (
        Path(write(line(n), name=f"run_{name}.txt")) for n, name in enumerate(("status", "n_unrecorded"))
    )
    os.chown(beside, 65534, -1)
    assert pids(read(str(path)), 2) == [1, None]
    os.chown(path, 65534, -1)
    assert pids(read(str(path)), 2) == [1, 1]


def test_a_skipped_line_counts_in_its_turn(write: Write, read: Read) -> None:
    former = read(write(line(0, code=2, pid=7)))
    record = former.lookup(task(0))
    assert record is not None
    skipped = format_skipped(record, task(0))
    again = parse_line(skipped)
    assert again is not None
    assert (again.mark, again.pid, again.return_code) == (Mark.SKIPPED, 7, 2)
    assert pids(read(write(skipped, name="second")), 1) == [7]
    assert pids(read(write(skipped, name="third"), retry=True), 1) == [None]


@pytest.mark.parametrize(("name", "completed"), [("mixed", 11), ("perengine", 4), ("odd", 11)])
def test_status_files_of_the_original(name: str, completed: int) -> None:
    """The tasks of a file that 3.0 ran are found in its status file, as far as it reads the file as we do."""
    status = str(DATA / f"original_3_{name}_status.txt")
    with closing(Former.read([status], source=name)) as former:
        assert former.count == completed
        for each in original_tasks(status):
            assert former.lookup(each) is not None


def original_tasks(status: str) -> list[Task]:
    """Tasks as 3.0 saw them, by its own record: bare or `b'...'` commands."""
    found = []
    for text in Path(status).read_bytes().splitlines():
        fields = text.split(b"\t", 14)
        if fields[0][3:4] == b" " and fields[0][:1] in b" R":
            command = fields[14]
            if command.startswith(b"b'"):
                command = eval_bytes(command)
            found.append(Task(int(fields[1]), int(fields[2]), int(fields[3]), command))
    return found


def eval_bytes(literal: bytes) -> bytes:
    """The value of a `b'...'` literal, without our own reader."""
    return literal[2:-1].decode("unicode_escape").encode("latin-1")


def test_a_whole_task_file_against_the_original(read: Read) -> None:
    parser = TaskParser("odd")
    lines = (DATA / "original_3_odd.tasks").read_bytes().split(b"\n")
    # Two blanks before a keyword, a keyword in lower case: directives to us, not to 3.0.
    lines[5] = lines[13] = b"#"
    items = [item for number, each in enumerate(lines, 1) for item in parser.parse(number, each + b"\n")]
    former = read(str(DATA / "original_3_odd_status.txt"))
    assert former.verify(iter(items), len(items)) == []
    tasks = [item for item in items if isinstance(item, Task)]
    assert [each.id for each in tasks if former.lookup(each) is None] == []


def test_a_directory_that_cannot_be_listed_is_not_empty(write: Write, tmp_path: Path) -> None:
    path = write(line(0))
    former, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(ResumeError, match="cannot be listed: too many open files; results"):
            unrecorded(Path(path))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (former, hard))
    assert unrecorded(Path(path)) == unrecorded(tmp_path / "none/P_status.txt") == []
