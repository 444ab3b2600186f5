"""Lines of a task file to items."""

from __future__ import annotations

from itertools import islice

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from disbatch.model.errors import TaskFileError
from disbatch.model.task import NO_REPEAT, Barrier, Item, PerEngine, Phase, Task
from disbatch.model.taskfile import MAX_COMMAND, TaskParser, without_end


def items(*lines: bytes) -> list[Item]:
    parser = TaskParser("Tasks")
    return [item for number, line in enumerate(lines, 1) for item in parser.parse(number, line)]


def problem(*lines: bytes) -> str:
    with pytest.raises(TaskFileError) as caught:
        items(*lines)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_plain_lines_comments_and_blanks() -> None:
    assert items(
        b"a", b"", b"# c", b"  \t\v\f", b"  # c", b"  b  ", b"#DISBATCHX c", b" #DISBATCH REPEAT 3", b"c"
    ) == [
        Task(0, 1, NO_REPEAT, b"a"),
        Task(1, 6, NO_REPEAT, b"  b  "),
        Task(2, 9, NO_REPEAT, b"c"),
    ]


def test_line_ends() -> None:
    assert [each.command for each in items(b"a\n", b"b\r\n", b"c\r\r\n", b"d\r", b"\r\n", b"\xa0\n")] == [
        b"a",
        b"b",
        b"c\r",
        b"d\r",
        b"\xa0",
    ]
    assert items(b"#DISBATCH REPEAT 1 x\r\n", b"#DISBATCH BARRIER\r\n") == [
        Task(0, 1, 0, b"x"),
        Barrier(1, 2, None, False, b"#DISBATCH BARRIER"),
    ]
    assert without_end(b"\n") == without_end(b"\r\n") == without_end(b"") == b""


def test_prefix_and_suffix_wrap_everything_later_until_replaced() -> None:
    assert items(
        b"#DISBATCH PREFIX ( ",
        b"#DISBATCH SUFFIX  )",
        b"#DISBATCH PERENGINE START hi",
        b"a",
        b"#DISBATCH REPEAT 2 start 5 r",
        b"#DISBATCH REPEAT 1",
        b"#DISBATCH PREFIX",
        b"b",
        b"#DISBATCH SUFFIX ;",
        b"c",
    ) == [
        PerEngine(0, 3, Phase.START, b"( hi )"),
        Task(0, 4, NO_REPEAT, b"( a )"),
        Task(1, 5, 5, b"( r )"),
        Task(2, 5, 6, b"( r )"),
        Task(3, 6, 0, b"(  )"),
        Task(4, 8, NO_REPEAT, b"b )"),
        Task(5, 10, NO_REPEAT, b"c;"),
    ]


def test_barriers_take_ids_and_per_engine_commands_have_their_own() -> None:
    assert items(
        b"#DISBATCH PERENGINE STOP x",
        b"#DISBATCH PERENGINE START y",
        b"#DISBATCH REPEAT 0 z",
        b"#DISBATCH PERENGINE STOP w",
        b"a",
        b"#DISBATCH BARRIER CHECK k",
        b"b",
    ) == [
        PerEngine(0, 1, Phase.STOP, b"x"),
        PerEngine(0, 2, Phase.START, b"y"),
        PerEngine(1, 4, Phase.STOP, b"w"),
        Task(0, 5, NO_REPEAT, b"a"),
        Barrier(1, 6, b"k", True, b"#DISBATCH BARRIER CHECK k"),
        Task(2, 7, NO_REPEAT, b"b"),
    ]


@pytest.mark.parametrize("before", [b"a", b"#DISBATCH REPEAT 1 a", b"#DISBATCH BARRIER"])
def test_late_per_engine_is_refused(before: bytes) -> None:
    assert problem(before, b"#DISBATCH PERENGINE START x").startswith("Tasks:2: PERENGINE must precede")


@pytest.mark.parametrize(
    ("count", "start", "step", "indexes"),
    [(3, 0, 1, [0, 1, 2]), (3, 5, -5, [5, 0, -5]), (3, -1, 0, [-1, -1, -1]), (1, 9, 9, [9]), (0, 1, 1, [])],
)
def test_repeat_indexes(count: int, start: int, step: int, indexes: list[int]) -> None:
    line = b"#DISBATCH REPEAT %d start %d step %d x" % (count, start, step)
    assert items(line) == [Task(id, 1, index, b"x") for id, index in enumerate(indexes)]


def test_repeat_is_lazy_and_later_ids_do_not_wait_for_it() -> None:
    parser = TaskParser("Tasks")
    many = iter(parser.parse(1, b"#DISBATCH REPEAT 4000000000000000000 start 7 x"))
    assert parser.parse(2, b"y") == (Task(4 * 10**18, 2, NO_REPEAT, b"y"),)
    assert list(islice(many, 2)) == [Task(0, 1, 7, b"x"), Task(1, 1, 8, b"x")]
    assert (parser.tasks, parser.barriers, parser.next_id) == (4 * 10**18 + 1, 0, 4 * 10**18 + 1)


def test_too_many_ids() -> None:
    parser = TaskParser("Tasks")
    parser.parse(1, b"#DISBATCH REPEAT %d" % ((1 << 63) - 1))
    with pytest.raises(TaskFileError, match="Tasks:2: task ids no longer fit"):
        parser.parse(2, b"#DISBATCH BARRIER")


@pytest.mark.parametrize("line", [b"a\0b", b"#DISBATCH PREFIX \0", b"#DISBATCH REPEAT 1 \0", b"\0"])
def test_nul_is_refused(line: bytes) -> None:
    assert problem(b"ok", b"# a \0 in a comment is none of our business", line).startswith(
        "Tasks:3: a NUL byte"
    )


def test_limits() -> None:
    most = b"x" * MAX_COMMAND
    assert len(items(most + b"\r\n")) == 1
    assert problem(b"a", most + b"x").startswith("Tasks:2: the line is longer than 16 MiB")
    assert problem(b"#" + most).startswith("Tasks:1: the line is longer")
    half = b"#DISBATCH PREFIX " + most[: MAX_COMMAND // 2]
    assert problem(half, most[: MAX_COMMAND // 2 + 1]).startswith("Tasks:2: the command with its PREFIX")
    assert problem(half, b"#DISBATCH SUFFIX " + most[: MAX_COMMAND // 2 + 1]).startswith(
        "Tasks:2: PREFIX and"
    )
    assert problem(half, b"#DISBATCH REPEAT 1 " + most[: MAX_COMMAND // 2 + 1]).startswith(
        "Tasks:2: the command"
    )


def test_wrong_directive_names_its_place() -> None:
    assert problem(b"", b"#DISBATCH REPEAT x").startswith("Tasks:2: REPEAT must be followed by")


@given(st.lists(st.binary(max_size=12)))
@example([b"#DISBATC"])
def test_every_line_is_itself_or_nothing(lines: list[bytes]) -> None:
    lines = [line.replace(b"\n", b"").replace(b"\0", b"") for line in lines]
    lines = [line for line in lines if b"DISBATCH" not in line]
    lines = [line for line in lines if not line.startswith(b"#DISBATCH")]  # a directive, if a wrong one
    expected = [line for line in lines if line.strip() and not line.strip().startswith(b"#")]
    found = items(*lines)
    assert [each.command for each in found if isinstance(each, Task)] == expected
    assert [each.id for each in found] == list(range(len(found)))
