"""What former runs completed, by command: which copies are done, what the user is told, what is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disbatch.model.errors import ResumeError
from disbatch.model.statusline import Mark, format_line, format_skipped, parse_line
from disbatch.model.task import LOST_RETURN_CODE, NO_REPEAT, Barrier, Outcome, PerEngine, Phase, Task
from disbatch.rundir.resume_by_command import ByCommand

DATA = Path(__file__).parents[1] / "data"
Read = Callable[..., ByCommand]


def line(
    id: int, command: bytes, code: int = 0, mark: Mark = Mark.TASK, pid: int = 0, repeat: int = NO_REPEAT
) -> bytes:
    """A status line; the pid tells the id unless given."""
    outcome = Outcome(1, 0, pid or id + 1, code, 1.0, 2.0, 3.0, 0, b"", 0, b"")
    return format_line(id, id + 1, repeat, command, "n", outcome, mark)


def listed(*commands: bytes, repeat: int = NO_REPEAT) -> list[Task]:
    return [Task(id, id + 1, repeat, command) for id, command in enumerate(commands)]


def read(*files: Sequence[bytes], at: Path, retry: bool = False, names: Sequence[str] = ()) -> ByCommand:
    paths = []
    for number, lines in enumerate(files):
        path = at / (names[number] if names else f"{number}_status.txt")
        path.write_bytes(b"".join(lines))
        paths.append(str(path))
    return ByCommand.read(paths, source="Tasks", retry=retry)


def pids(former: ByCommand, tasks: Sequence[Task]) -> list[int | None]:
    """For each task the pid of its record; None if it is to run."""
    with closing(former):
        records = [former.lookup(task) for task in tasks]
    return [record and record.pid for record in records]


def test_a_line_put_in_front_is_new_and_the_others_are_done(tmp_path: Path) -> None:
    former = read([line(1, b"b"), line(0, b"a")], at=tmp_path)
    assert pids(former, listed(b"new", b"a", b"b")) == [None, 1, 2]


def test_lines_moved_removed_and_changed(tmp_path: Path) -> None:
    former = read([line(id, command) for id, command in enumerate((b"a", b"b", b"c", b"d"))], at=tmp_path)
    assert pids(former, listed(b"d", b"b2", b"a", b"c")) == [4, None, 1, 3]


def test_copies_are_taken_in_the_order_of_their_ids(tmp_path: Path) -> None:
    former = read([line(7, b"x"), line(2, b"x"), line(5, b"x", 1)], at=tmp_path)
    assert pids(former, listed(*[b"x"] * 5)) == [3, 6, 8, None, None]


def test_the_repeat_index_tells_copies_apart(tmp_path: Path) -> None:
    lines = [line(id, b"x", repeat=id * 10) for id in range(3)]
    tasks = [Task(id, 1, index, b"x") for id, index in enumerate((20, 30, 0, NO_REPEAT))]
    assert pids(read(lines, at=tmp_path), tasks) == [3, None, 1, None]


def test_what_counts_is_what_counts_by_number(tmp_path: Path) -> None:
    lines = [
        line(0, b"lost", LOST_RETURN_CODE),
        line(1, b"ended", mark=Mark.SUPERSEDED),
        line(2, b"engine", mark=Mark.PER_ENGINE),
        line(3, b"skipped", mark=Mark.SKIPPED),
        line(4, b"failed", 3),
        line(5, b"#DISBATCH BARRIER", mark=Mark.BARRIER),
        line(6, b"again", 3),
        line(6, b"again", pid=99),
        b"    \t7\t8\t-1\tn",
    ]
    tasks = listed(b"lost", b"ended", b"engine", b"skipped", b"failed", b"#DISBATCH BARRIER", b"again")
    assert pids(read(lines, at=tmp_path), tasks) == [None, None, None, 4, 5, None, 99]
    assert pids(read(lines, at=tmp_path, retry=True), tasks) == [None, None, None, 4, None, None, 99]


def test_a_run_and_one_that_went_on_from_it_are_one(tmp_path: Path) -> None:
    first = line(0, b"x", pid=70)
    record = parse_line(first)
    assert record is not None
    again = format_skipped(record, Task(4, 5, NO_REPEAT, b"x"))
    files = [first], [again, line(1, b"y", pid=71), line(2, b"z", 1, pid=72)], [line(9, b"z", pid=73)]
    tasks = listed(b"x", b"x", b"y", b"z", b"z")
    assert pids(read(*files, at=tmp_path), tasks) == [70, None, 71, 73, None]
    assert pids(read(*reversed(files), at=tmp_path, retry=True), tasks) == [70, None, 71, 73, None]


def test_what_an_engine_could_not_deliver_belongs_to_its_run(tmp_path: Path) -> None:
    names = ["P_status.txt", "elsewhere"]
    (tmp_path / "P_n_unrecorded.txt").write_bytes(line(1, b"x"))
    (tmp_path / "far").mkdir()
    far = tmp_path / "far" / "P_m_unrecorded.txt"
    far.write_bytes(line(2, b"x"))
    (tmp_path / names[0]).write_bytes(line(0, b"x"))
    former = ByCommand.read([str(tmp_path / names[0]), str(far)], source="T", retry=False)
    assert pids(former, listed(*[b"x"] * 4)) == [1, 2, 3, None]


@pytest.mark.parametrize("name", sorted(path.name for path in DATA.glob("*status*.txt")))
def test_files_of_the_original_are_found_by_command_where_they_are_by_number(name: str) -> None:
    from disbatch.rundir.resume import Former

    by_number = Former.read([str(DATA / name)], source="T")
    records = [
        parse_line(by_number.files[number].line_at(offset)) for number, offset, _ in by_number.entries()
    ]
    by_number.close()
    from disbatch.model.statusline import readings

    for pick in (0, -1):
        tasks = [
            Task(9 + id, 1, record.repeat, readings(record.command)[pick])
            for id, record in enumerate(records)
            if record is not None
        ]
        former = ByCommand.read([str(DATA / name)], source="T", retry=False)
        assert Counter(pids(former, tasks)) == Counter(record.pid for record in records if record)


def test_it_says_how_many_are_done_and_new_and_then_looks_up_from_the_beginning(tmp_path: Path) -> None:
    former = read([line(0, b"a"), line(1, b"a", 1), line(2, b"gone")], at=tmp_path)
    tasks = listed(b"n", b"a", b"a", b"a")
    items = [PerEngine(0, 1, Phase.START, b"$DISBATCH_TASKID"), *tasks, Barrier(9, 9, None, False, b"a")]
    assert former.verify(items, 5) == [
        "Tasks: by command: 2 done before, 2 new, 1 of the former tasks is no longer in the list"
    ]
    assert pids(former, tasks) == [None, 1, 2, None]
    retry = read([line(0, b"a"), line(1, b"a", 1)], at=tmp_path, retry=True)
    assert retry.verify(tasks, 4) == [
        "Tasks: by command: 1 done before, 2 new, 1 that failed before runs again"
    ]
    assert retry.in_hindsight() == []
    assert pids(retry, tasks) == [None, 1, None, None]


@pytest.mark.parametrize(
    "command",
    [
        b"x $DISBATCH_TASKID",
        b"x ${DISBATCH_TASKID_ZP}",
        b"DISBATCH_STREAM_INDEX",
        b"$DISBATCH_STREAM_INDEX_ZP",
    ],
)
def test_commands_that_count_tasks_or_lines_are_warned_of(tmp_path: Path, command: bytes) -> None:
    with closing(read([line(0, b"a"), line(1, command)], at=tmp_path)) as former:
        _, words = former.verify(listed(b"n", b"a", command, command + b"y"), 4)
    assert words.startswith("Tasks:3: 2 commands mention TASKID or STREAM_INDEX")


def test_if_nothing_matches_it_is_refused_and_a_run_in_which_nothing_ended_is_not(tmp_path: Path) -> None:
    with (
        closing(read([line(0, b"a")], at=tmp_path)) as former,
        pytest.raises(ResumeError, match=r"Tasks: none of its commands .*0_status.txt has as completed"),
    ):
        former.verify(listed(b"b"), 1)
    with closing(read([line(0, b"a", 1)], at=tmp_path, retry=True)) as former:
        assert former.verify(listed(b"a"), 1)
    with closing(read([], at=tmp_path)) as former:
        assert former.verify(listed(b"a"), 1) == ["Tasks: by command: 0 done before, 1 new"]


def test_of_a_stream_it_tells_at_the_end(tmp_path: Path) -> None:
    with closing(read([line(0, b"a")], at=tmp_path)) as former:
        for task in listed(b"b", b"a"):
            former.lookup(task)
        assert former.in_hindsight() == ["Tasks: by command: 1 done before, 1 new"]


def test_a_task_that_is_passed_over_takes_its_copy_with_it(tmp_path: Path) -> None:
    former = read([line(0, b"a")], at=tmp_path)
    first, second = listed(b"a", b"a")
    former.pass_over(first)
    assert pids(former, [second]) == [None]


def test_a_file_that_changes_under_us(tmp_path: Path) -> None:
    more_than_is_kept_in_memory = [line(id, b"b" * 70_000) for id in range(1, 40)]
    with closing(read([line(0, b"a"), *more_than_is_kept_in_memory], at=tmp_path)) as former:
        (tmp_path / "0_status.txt").write_bytes(b"x" * 200)
        with pytest.raises(ResumeError, match="has changed since it was read"):
            former.lookup(listed(b"a")[0])


@given(
    st.lists(st.sampled_from([b"a", b"b", b"c", b"'q'", b"\xe9", "é".encode()]), max_size=30),
    st.sets(st.integers(0, 29)),
    st.lists(st.sampled_from([b"a", b"b", b"c", b"d", b"'q'", b"\xe9", "é".encode()]), max_size=30),
)
def test_as_many_copies_are_done_as_were(
    tmp_path_factory: pytest.TempPathFactory, before: list[bytes], ended: set[int], now: list[bytes]
) -> None:
    done = [id for id in range(len(before)) if id in ended]
    at = tmp_path_factory.mktemp("by")
    found = pids(read([line(id, before[id]) for id in done], at=at), listed(*now))
    expected: list[int | None] = []
    left = {command: [id for id in done if before[id] == command] for command in set(now)}
    for command in now:
        expected.append(left[command].pop(0) + 1 if left[command] else None)
    assert found == expected
