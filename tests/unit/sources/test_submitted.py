"""Tasks that are handed in: taken all or none, read back in order, and known again by another driver."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from disbatch.model.errors import UsageError
from disbatch.model.task import Barrier, Item, PerEngine, Task
from disbatch.sources.opening import open_tasks
from disbatch.sources.submitted import REQUESTS_KEPT, Batch, SubmittedFile, SubmittedSource


def request(number: int) -> str:
    return f"{number:032x}"


class Handed:
    """A source of what is handed in, kept open unless told otherwise; `calls` counts the calls for more."""

    def __init__(
        self, path: Path, ids: int | None = None, *, again: bool = False, kept_open: bool = True
    ) -> None:
        self.calls = 0
        self.file = SubmittedFile(path, ids, again=again)
        self.source = SubmittedSource(None, self.file, self._call, kept_open=kept_open)
        self.requests = 0

    def _call(self) -> None:
        self.calls += 1

    def add(self, *lines: bytes) -> Batch:
        self.requests += 1
        return self.source.add(list(lines), request(self.requests), "stdin", 1)

    def items(self) -> list[Item]:
        return self.source.take(1000)

    def close(self) -> None:
        self.source.close()


@pytest.fixture
def handed(tmp_path: Path) -> Iterator[Handed]:
    with closing(Handed(tmp_path / "tasks.txt")) as handed:
        yield handed


def commands(items: list[Item]) -> list[bytes]:
    return [item.command for item in items if isinstance(item, Task)]


# ---- what is taken ----


def test_lines_become_tasks_in_order(handed: Handed) -> None:
    assert handed.add(b"a", b"b") == (0, [(1, 2)])
    assert handed.add(b"c") == (2, [(1, 1)])
    items = handed.items()
    assert [(item.id, item.command) for item in items if isinstance(item, Task)] == [
        *((0, b"a"), (1, b"b"), (2, b"c"))
    ]


def test_line_numbers_are_those_of_the_file(handed: Handed) -> None:
    """So that DISBATCH_STREAM_INDEX stays the same when the file is resumed from."""
    handed.add(b"a", b"b")
    handed.add(b"c")
    lines = handed.file.path.read_bytes().split(b"\n")
    assert [lines[item.line - 1] for item in handed.items()] == [b"a", b"b", b"c"]


@pytest.mark.parametrize("how", ["other bytes", "shorter"])
def test_what_somebody_else_wrote_over_is_not_run(handed: Handed, how: str) -> None:
    handed.add(*[b"echo %06d" % number for number in range(100_000)])
    assert len(handed.source.take(1)) == 1
    if how == "shorter":
        os.truncate(handed.file.path, 1_200_000)
    else:
        with handed.file.path.open("r+b") as file:
            file.seek(1_200_000)
            file.write(b"rm -rf")
    found = commands(handed.source.take(100_000))
    assert 0 < len(found) < 1_200_000 // 12 and all(command.startswith(b"echo ") for command in found)
    what = "made it shorter" if how == "shorter" else "changed it"
    assert str(handed.source.error) == f"{handed.file.path}: somebody has {what}"
    with closing(Handed(handed.file.path, again=True)) as again:
        assert again.source.error is None  # another driver takes it as it is now


def test_how_many_ids_each_line_has(handed: Handed) -> None:
    lines = (b"a", b"b", b"# no task", b"", b"#DISBATCH REPEAT 5 c", b"#DISBATCH BARRIER", b"d")
    assert handed.add(*lines) == (0, [(1, 2), (0, 2), (5, 1), (1, 2)])
    assert [item.id for item in handed.items()] == list(range(9))


def test_a_wrong_line_is_named_and_nothing_is_taken(handed: Handed) -> None:
    handed.add(b"a")
    before = handed.file.path.read_bytes()
    with pytest.raises(UsageError, match=r"^stdin:102: unknown directive 'FOO'"):
        handed.source.add([b"b", b"#DISBATCH FOO"], request(9), "stdin", 101)
    assert handed.file.path.read_bytes() == before
    assert handed.add(b"c") == (1, [(1, 1)])


@pytest.mark.parametrize("line", [b"a\nb", b"a\0b", b"#DISBATCH REPEAT x", b"x" * (17 << 20)])
def test_what_no_line_can_be(handed: Handed, line: bytes) -> None:
    with pytest.raises(UsageError):
        handed.add(line)
    assert handed.file.is_unused


def test_odd_bytes_are_kept(handed: Handed) -> None:
    odd = bytes(range(1, 10)) + bytes(range(11, 256))
    handed.add(odd)
    assert commands(handed.items()) == [odd]


def test_what_looks_like_our_mark_is_a_comment(handed: Handed, tmp_path: Path) -> None:
    """Else somebody's comment could make half a request count."""
    handed.add(b"a", b"# taken " + b"0" * 32, b"b")
    assert commands(handed.items()) == [b"a", b"b"]
    assert b"# taken " + b"0" * 32 not in handed.file.path.read_bytes()


def test_a_request_without_a_proper_name(handed: Handed) -> None:
    with pytest.raises(UsageError):
        handed.source.add([b"a"], "x\n#DISBATCH BARRIER", "stdin", 1)


def test_nothing_is_a_question(handed: Handed) -> None:
    handed.add(b"a")
    size = handed.file.size
    assert handed.add() == (1, [])
    assert handed.file.size == size


def test_prefix_holds_for_what_comes_after(handed: Handed) -> None:
    handed.add(b"#DISBATCH PREFIX nice ", b"a")
    handed.add(b"b")
    assert commands(handed.items()) == [b"nice a", b"nice b"]


def test_nothing_handed_in_leaves_no_file(tmp_path: Path) -> None:
    Handed(tmp_path / "tasks.txt").close()
    Handed(tmp_path / "more.txt", 5).close()
    assert not list(tmp_path.iterdir())


# ---- a full disk ----


@contextmanager
def room(size: int) -> Iterator[None]:
    """No file may be longer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_takes_nothing_and_loses_nothing(handed: Handed) -> None:
    handed.add(b"a")
    with room(handed.file.size + 10), pytest.raises(UsageError, match="cannot be written: File too large"):
        handed.add(b"b" * 100)
    assert commands(handed.items()) == [b"a"]
    assert handed.add(b"c") == (1, [(1, 1)])
    assert commands(handed.items()) == [b"c"]
    assert b"b" not in handed.file.path.read_bytes().replace(b"# taken", b"")


# ---- after a task file ----


def test_ids_go_on_after_the_task_file(tmp_path: Path) -> None:
    with closing(Handed(tmp_path / "tasks.txt", 17)) as handed:
        assert handed.add(b"a").first == 17
        assert handed.items()[0].id == 17


def test_the_two_files_together_are_one_list(tmp_path: Path) -> None:
    """Even if the last line of the first one has no end, and a PREFIX holds there."""
    first, together = tmp_path / "Tasks", tmp_path / "together"
    first.write_bytes(b"#DISBATCH PREFIX one \na\nb")
    with closing(Handed(tmp_path / "tasks.txt", 2)) as handed:
        handed.add(b"c")
    together.write_bytes(first.read_bytes() + (tmp_path / "tasks.txt").read_bytes())
    opened = open_tasks(str(together))
    assert opened.summary is not None and opened.summary.ids == 3
    import asyncio

    source = opened.source(asyncio.new_event_loop(), lambda: None)
    assert commands(source.take(10)) == [b"one a", b"one b", b"c"]
    source.close()


@pytest.mark.parametrize(("ids", "taken"), [(None, True), (0, False), (3, False)])
def test_perengine_only_where_nothing_stands_before(tmp_path: Path, ids: int | None, taken: bool) -> None:
    """A task file may hold PERENGINE commands alone; theirs have numbers of their own."""
    with closing(Handed(tmp_path / "tasks.txt", ids)) as handed:
        if not taken:
            with pytest.raises(UsageError, match="PERENGINE"):
                handed.add(b"#DISBATCH PERENGINE START a")
            return
        handed.add(b"#DISBATCH PERENGINE START a")
        assert isinstance(handed.items()[0], PerEngine)


def test_what_is_handed_in_comes_after_the_file(tmp_path: Path) -> None:
    import asyncio

    (tmp_path / "Tasks").write_text("a\nb\nc\n")
    opened = open_tasks(str(tmp_path / "Tasks"))
    first = opened.source(asyncio.new_event_loop(), lambda: None)
    file = SubmittedFile(tmp_path / "tasks.txt", 3)
    with closing(SubmittedSource(first, file, lambda: None, kept_open=False)) as source:
        source.add([b"d"], request(1), "stdin", 1)
        assert commands(source.take(2)) == [b"a", b"b"]
        assert not source.ended and not source.closed
        assert commands(source.take(9)) == [b"c", b"d"]
        assert source.ended and source.closed


# ---- waiting, and the end ----


def test_it_calls_when_there_is_more(handed: Handed) -> None:
    assert handed.items() == [] and not handed.source.ended
    handed.add(b"a")
    handed.add(b"b")
    assert handed.calls == 1
    assert len(handed.items()) == 2
    handed.add(b"c")
    assert handed.calls == 2


def test_closing(handed: Handed) -> None:
    handed.add(b"a")
    assert handed.items() and not handed.source.ended
    handed.source.close_soon()
    assert handed.calls == 2 and handed.source.closed and handed.source.ended


def test_closing_with_tasks_left(handed: Handed) -> None:
    handed.add(b"a", b"b")
    handed.source.close_soon()
    assert len(handed.source.take(1)) == 1 and not handed.source.ended
    assert len(handed.source.take(9)) == 1 and handed.source.ended


def test_a_file_that_somebody_made_shorter_is_an_error(handed: Handed) -> None:
    handed.add(b"a" * 100)
    handed.file.path.write_bytes(b"")
    assert handed.items() == []
    assert handed.source.ended and "shorter" in str(handed.source.error)


def test_more_than_is_read_at_once(handed: Handed) -> None:
    lines = [b"x%d" % n * 20 for n in range(20_000)]
    handed.add(*lines)
    found: list[bytes] = []
    while items := handed.items():
        found += commands(items)
    assert found == lines


# ---- another driver ----


def test_another_driver_knows_what_was_taken(tmp_path: Path) -> None:
    with closing(Handed(tmp_path / "tasks.txt", 5)) as first:
        first.add(b"a", b"#DISBATCH REPEAT 3 b")
        first.add(b"#DISBATCH BARRIER")
        before = first.file.path.read_bytes()
    with closing(Handed(tmp_path / "tasks.txt", 5, again=True)) as second:
        assert second.file.path.read_bytes() == before
        assert second.source.former == {request(1): (5, [(1, 1), (3, 1)]), request(2): (9, [(1, 1)])}
        assert second.source.add([b"c"], request(3), "stdin", 1).first == 10
        items = second.items()
    assert [item.id for item in items] == [5, 6, 7, 8, 9, 10]
    assert isinstance(items[4], Barrier)


def test_another_driver_cuts_off_what_nobody_was_told_of(tmp_path: Path) -> None:
    path = tmp_path / "tasks.txt"
    with closing(Handed(path)) as first:
        first.add(b"a")
        whole = path.read_bytes()
    torn = b"b\nc\n# taken 0123"
    for size in range(len(torn) + 1):
        path.write_bytes(whole + torn[:size])
        with closing(Handed(path, again=True)) as second:
            assert path.read_bytes() == whole
            assert second.source.add([b"d"], request(2), "stdin", 1).first == 1
            assert commands(second.items()) == [b"a", b"d"]


def test_a_head_that_was_not_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "tasks.txt"
    path.write_bytes(b"\n#DISBATCH PRE")
    with closing(Handed(path, 2, again=True)) as handed:
        assert handed.add(b"a").first == 2
        assert commands(handed.items()) == [b"a"]


def test_the_last_requests_are_remembered(tmp_path: Path) -> None:
    with closing(Handed(tmp_path / "tasks.txt")) as first:
        for _ in range(REQUESTS_KEPT + 10):
            first.add(b"a")
    with closing(Handed(tmp_path / "tasks.txt", again=True)) as second:
        assert list(second.source.former) == [request(n) for n in range(11, REQUESTS_KEPT + 11)]


LINES = st.sampled_from(
    [
        b"a",
        b"  b ",
        b"",
        b"# c",
        b"#DISBATCH REPEAT 2 d",
        b"#DISBATCH BARRIER",
        b"#DISBATCH PREFIX p ",
        b"\xff",
    ]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    st.lists(st.tuples(st.lists(LINES, min_size=1, max_size=5), st.integers(0, 60)), max_size=8),
    st.one_of(st.none(), st.integers(0, 3)),
)
def test_every_item_once_however_often_the_driver_is_killed(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[list[bytes], int]], ids: int | None
) -> None:
    """After each request the driver is killed while it writes another one, of which so many bytes arrive."""
    path = tmp_path_factory.mktemp("handed") / "tasks.txt"
    with closing(Handed(path, ids)) as whole:
        for number, (lines, _) in enumerate(steps):
            whole.source.add(lines, request(number), "x", 1)
        expected = whole.items()
        counts = [(item.id, type(item)) for item in expected]
    path.unlink(missing_ok=True)
    again, next_id = False, ids or 0
    for number, (lines, torn) in enumerate(steps):
        handed = Handed(path, ids, again=again)
        batch = handed.source.add(lines, request(number), "x", 1)
        assert batch.first == next_id
        next_id += sum(each * count for each, count in batch.counts)
        with path.open("ab") as file:
            file.write((b"zzz\n" * 12 + b"# taken " + b"f" * 32)[:torn])
        again = True
    with closing(Handed(path, ids, again=again)) as last:
        found = last.items()
        assert found == expected
        assert [(item.id, type(item)) for item in found] == counts
