"""Where tasks come from: pieces to lines, files checked and read, streams on a loop."""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deadline import DEADLINE
from disbatch.model.errors import TaskFileError, UsageError
from disbatch.model.task import NO_REPEAT, Barrier, Item, Task
from disbatch.model.taskfile import MAX_COMMAND, TaskParser
from disbatch.sources.file import (
    CHANGED,
    CHUNK,
    MOST_ERRORS,
    MOST_WARNINGS,
    READ_BLOCK,
    Checksums,
    FileSource,
    FileSummary,
    check,
)
from disbatch.sources.keystore import SourceAccess
from disbatch.sources.opening import Opened, open_tasks
from disbatch.sources.source import LineSplitter, Source
from disbatch.sources.stream import HIGH, READ, StreamSource


@pytest.fixture
def tasks(tmp_path: Path) -> Callable[[bytes], str]:
    """Write a task file; its path."""

    def write(content: bytes) -> str:
        path = tmp_path / "Tasks"
        path.write_bytes(content)
        return str(path)

    return write


def all_of(source: Source, batch: int = 3) -> list[Item]:
    """Everything from a source that never has to wait."""
    found: list[Item] = []
    while not source.ended:
        taken = source.take(batch)
        assert 0 < len(taken) <= batch
        found += taken
    assert source.take(1) == []
    return found


def checked(content: bytes) -> FileSummary:
    """What `check` says of `content`, or its error."""
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.seek(0)
        summary = check("Tasks", file.fileno())
        assert os.lseek(file.fileno(), 0, os.SEEK_CUR) == 0
        return summary


def parsed(content: bytes) -> FileSummary:
    """The same by the parser alone, a line at a time."""
    parser = TaskParser("Tasks")
    lines = content.split(b"\n")
    for number, line in enumerate(lines, 1):
        if number < len(lines) or line:
            parser.parse(number, line + b"\n")
    return FileSummary(parser.tasks, parser.barriers, (), Checksums())


# ---- lines ----


@given(st.binary(max_size=200), st.lists(st.integers(1, 50)))
def test_pieces_make_no_difference(content: bytes, cuts: list[int]) -> None:
    content = content.replace(b"\x0b", b"\n").replace(b"\x0c", b"\r\n")
    splitter = LineSplitter()
    found: list[bytes] = []
    at = 0
    for cut in [*cuts, len(content) + 1]:
        if piece := content[at : at + cut]:
            number, lines = splitter.feed(piece)
            assert number == len(found) + 1
            found += lines
        at += cut
    found += splitter.finish()[1]
    *whole, rest = content.split(b"\n")
    assert found == [line.removesuffix(b"\r") for line in whole] + ([rest] if rest else [])


def test_an_endless_line_is_cut_for_the_parser_to_refuse() -> None:
    splitter = LineSplitter()
    assert splitter.feed(b"a\nb" + b"x" * MAX_COMMAND) == (1, [b"a"])
    number, (line,) = splitter.feed(b"x" * 100)
    assert number == 2
    assert len(line) > MAX_COMMAND
    assert splitter.finish() == (3, [])


def test_the_longest_line_with_crlf_is_whole() -> None:
    splitter = LineSplitter()
    assert splitter.feed(b"x" * MAX_COMMAND + b"\r") == (1, [])
    number, (line,) = splitter.feed(b"\n")
    assert (number, len(line)) == (1, MAX_COMMAND)


# ---- checking ----


@pytest.mark.parametrize(
    ("content", "tasks", "barriers"),
    [
        (b"", 0, 0),
        (b"a", 1, 0),
        (b"\n\n\n", 0, 0),
        (b"a\nb\r\n\r\n  \n\t# c\n#c\n c \n\x0b\n", 3, 0),
        (b"#DISBATCH REPEAT 50000000\na\n#DISBATCH BARRIER\n", 50_000_001, 1),
        (b"#DISBATCH BARRIER", 0, 1),
        (b"#DISBATCH BARRIER\r\n#DISBATCH BARRIER CHECK\r\n", 0, 2),
        (b"#DISBATCH PREFIX a\n\n#DISBATCH PERENGINE START a\nb\n#DISBATCHED\n", 1, 0),
        (b"# \0\na\n", 1, 0),
    ],
)
def test_counts(content: bytes, tasks: int, barriers: int) -> None:
    summary = checked(content)
    assert (summary.tasks, summary.barriers, summary.warnings) == (tasks, barriers, ())
    assert summary.ids == tasks + barriers


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"a\n#DISBATCH REPEAT x\n\0", "Tasks:2: REPEAT must be"),
        (b"a\n\nb\0\n#DISBATCH FOO\n", "Tasks:3: a NUL"),
        (b"a\n# \0\n#DISBATCH FOO", "Tasks:3: unknown directive 'FOO'"),
        (
            b"#\n\n#DISBATCH PERENGINE START a\nb\n#DISBATCH PERENGINE STOP c\n",
            "Tasks:5: PERENGINE must",
        ),
        (b"#DISBATCH\n", "Tasks:1: #DISBATCH needs a directive"),
        (b"a\n" * READ_BLOCK + b"#DISBATCH no", f"Tasks:{READ_BLOCK + 1}: unknown directive 'no'"),
        (b"a\n" + b"x" * (MAX_COMMAND + 1), "Tasks:2: the line is longer than 16 MiB"),
        (b"a\n" + b"x" * (MAX_COMMAND + 1) + b"\nb\n", "Tasks:2: the line is longer than 16 MiB"),
        (b"a\n#" + b"x" * (MAX_COMMAND + READ_BLOCK) + b"\nb\n", "Tasks:2: the line is longer than 16 MiB"),
        (b"\n#DISBATCH SUFFIX " + b"x" * MAX_COMMAND, "Tasks:2: the line is longer"),
        (b"#DISBATCH SUFFIX " + b"x" * (MAX_COMMAND - 20) + b"\n\n" + b"a" * 21, "Tasks:3: the command with"),
    ],
    ids=range(11),
)
def test_the_first_wrong_line_is_named(content: bytes, says: str) -> None:
    with pytest.raises(TaskFileError) as caught:
        checked(content)
    assert str(caught.value).startswith(says)


def test_all_wrong_directives_are_known() -> None:
    with pytest.raises(TaskFileError) as caught:
        checked(
            b"#DISBATCH\na\n#DISBATCH FOO\n"
            + b"b\n" * READ_BLOCK
            + b"#DISBATCH REPEAT\n#DISBATCH PERENGINE STOP x"
        )
    lines = [caught.value.line, *(error.line for error in caught.value.more)]
    assert lines == [1, 3, READ_BLOCK + 4, READ_BLOCK + 5]


@pytest.mark.parametrize("end", [b"\0\n", b"x" * (MAX_COMMAND + 1) + b"\n"])
def test_behind_what_is_no_text_no_error_is_looked_for(end: bytes) -> None:
    with pytest.raises(TaskFileError) as caught:
        checked(b"#DISBATCH FOO\na" + end + b"#DISBATCH FOO\n")
    assert (caught.value.line, *(error.line for error in caught.value.more)) == (1, 2)


def test_there_is_an_end_to_errors() -> None:
    with pytest.raises(TaskFileError) as caught:
        checked(b"#DISBATCH FOO\n" * (MOST_ERRORS + 5))
    assert len(caught.value.more) == MOST_ERRORS - 1
    assert "the check ends here" in str(caught.value.more[-1])
    assert "the check ends here" not in str(caught.value.more[-2])


def test_longest_lines_are_right() -> None:
    assert checked(b"a\n" + b"x" * MAX_COMMAND + b"\r\n" + b"y" * MAX_COMMAND + b"\nb").tasks == 4


LINES = st.sampled_from(
    b"a||  b |#| # \xff|#DISBATCH BARRIER|#DISBATCH REPEAT 3 x|#DISBATCH FOO|#DISBATCH|#DISBATCHING".split(
        b"|"
    )
    + b" #DISBATCH x|a\0|#\0|#DISBATCH PREFIX p|\r|\v\r|\r\r|#DISBATCH PERENGINE START x|\t|\x1c|\xa0".split(
        b"|"
    )
)


@settings(max_examples=300)
@given(st.lists(LINES, max_size=12), st.sampled_from([b"\n", b"\r\n"]), st.booleans())
def test_check_says_what_the_parser_says(lines: list[bytes], end: bytes, last: bool) -> None:
    content = end.join(lines) + (end if last else b"")
    try:
        expected = parsed(content)
    except TaskFileError as error:
        with pytest.raises(TaskFileError) as caught:
            checked(content)
        assert str(caught.value) == str(error)
    else:
        found = checked(content)
        assert (found.tasks, found.barriers) == (expected.tasks, expected.barriers)


def test_a_directive_behind_a_byte_order_mark_is_refused() -> None:
    with pytest.raises(TaskFileError, match="Tasks:1: a UTF-8 byte order mark hides a directive"):
        checked(b"\xef\xbb\xbf#DISBATCH PREFIX cd /data;\nls\n")


def test_warnings() -> None:
    summary = checked(
        b"a\n  #DISBATCH REPEAT 3 x\nb\n# the #DISBATCH BARRIER\n#disbatch barrier\n# a DISBATCH BARRIER\n"
    )
    assert [warning.split(":")[:2] for warning in summary.warnings] == [["Tasks", "2"], ["Tasks", "5"]]
    assert len(checked(b" #DISBATCH BARRIER\n" * 100).warnings) == MOST_WARNINGS
    assert len(checked(b"#DISBATCHBARRIER\n#DISBATCH: BARRIER\n#DISBATCHES BARRIER\n").warnings) == 2
    (mark,) = checked(b"\xef\xbb\xbfecho\n").warnings
    assert mark.startswith("Tasks:1: a UTF-8 byte order mark")


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_lines_that_seem_to_go_on_in_the_next_one(end: bytes) -> None:
    lines = [
        b"a \\", b"  -b", b"# c \\", b"d\\\\", b"e \\ ", b"#DISBATCH REPEAT 2 f \\",
        b"#DISBATCH PREFIX g\\", b"", b"h\\\\\\", b"\\",
    ]  # fmt: skip
    warnings = checked(end.join(lines) + end).warnings
    assert [warning.split(":")[1] for warning in warnings] == ["1", "6", "7", "9", "10"]
    assert all("ends in a backslash" in warning for warning in warnings)
    assert len(checked(b"a \\\n" * 100).warnings) == MOST_WARNINGS


# ---- files ----


def source_of(opened: Opened) -> FileSource:
    """As a run reads it."""
    assert opened.summary is not None
    return FileSource(opened.name, opened.descriptor, opened.summary.checksums)


def test_a_file_is_read_in_order(tasks: Callable[[bytes], str]) -> None:
    opened = open_tasks(tasks(b"a\n#DISBATCH REPEAT 5 r\n#DISBATCH BARRIER k\nb"))
    assert opened.summary is not None
    assert (opened.summary.tasks, opened.summary.barriers, opened.summary.warnings) == (7, 1, ())
    source = source_of(opened)
    assert all_of(source) == [
        Task(0, 1, NO_REPEAT, b"a"),
        *(Task(1 + index, 2, index, b"r") for index in range(5)),
        Barrier(6, 3, b"k", False, b"#DISBATCH BARRIER k"),
        Task(7, 4, NO_REPEAT, b"b"),
    ]
    assert source.error is None
    source.close()
    source.close()


def test_a_long_file_ends_exactly_with_its_last_task(tasks: Callable[[bytes], str]) -> None:
    count = 200_000  # more than one chunk
    opened = open_tasks(
        tasks(b"".join(b"echo %d\n" % number for number in range(count)) + b"# the end\n" * 9)
    )
    source = source_of(opened)
    taken = source.take(count - 1)
    assert (len(taken), source.ended) == (count - 1, False)
    assert source.take(5) == [Task(count - 1, count, NO_REPEAT, b"echo %d" % (count - 1))]
    assert source.ended
    source.close()


def test_an_empty_file(tasks: Callable[[bytes], str]) -> None:
    opened = open_tasks(tasks(b""))
    source = source_of(opened)
    assert source.ended
    assert source.take(5) == []
    assert source.error is None


def test_a_file_that_goes_bad_after_the_check(tasks: Callable[[bytes], str]) -> None:
    path = tasks(b"a\nb\n")
    opened = open_tasks(path)
    Path(path).write_bytes(b"a\nb\n#DISBATCH FOO\nc\n")
    source = source_of(opened)
    assert source.take(1) == [Task(0, 1, NO_REPEAT, b"a")]
    assert source.error is None
    assert not source.ended
    assert source.take(9) == [Task(1, 2, NO_REPEAT, b"b")]
    assert source.ended
    assert str(source.error) == f"{path}:3: unknown directive 'FOO'; the directives are PREFIX, SUFFIX, " + (
        "REPEAT, BARRIER, PERENGINE"
    )
    source.close()


@pytest.mark.parametrize("how", ["shorter", "other lines"])
def test_a_file_changed_under_the_reader_gives_no_torn_line(tasks: Callable[[bytes], str], how: str) -> None:
    old = [b"%07d %s" % (i, b"x" * 100) for i in range(20_000)]
    path = tasks(b"\n".join(old))
    opened = open_tasks(path)
    source = source_of(opened)
    found = source.take(1)
    if how == "shorter":
        os.truncate(path, CHUNK + 7)
    else:
        Path(path).write_bytes(b"\n".join(b"other " + line for line in old))
    found += all_of(source, 5000)
    commands = [item.command for item in found if isinstance(item, Task)]
    assert commands == old[: len(commands)]
    assert CHUNK // 109 <= len(commands) <= (CHUNK + 7) // 109
    assert str(source.error) == f"{path}:{len(commands) + 1}: {CHANGED}"
    source.close()


@pytest.mark.parametrize("at", [1_500_000, 2_000_000])
@pytest.mark.parametrize("more", [b"", b"echo more\n" * 50])
def test_a_file_written_over_in_place_behind_what_is_read_next(
    tasks: Callable[[bytes], str], at: int, more: bytes
) -> None:
    """Of the same length, with the same time, or longer."""
    old = [b"%07d %s" % (i, b"x" * 100) for i in range(20_000)]
    path = tasks(b"".join(line + b"\n" for line in old))
    opened = open_tasks(path)
    source = source_of(opened)
    found = source.take(1)
    before = Path(path).stat()
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(b"y")
        file.seek(0, os.SEEK_END)
        file.write(more)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    found += all_of(source, 5000)
    commands = [item.command for item in found if isinstance(item, Task)]
    assert commands == old[: len(commands)]
    assert CHUNK // 109 <= len(commands) <= at // 109
    assert str(source.error) == f"{path}:{len(commands) + 1}: {CHANGED}"
    source.close()


def test_a_file_that_is_touched_or_written_again_as_it_was(tasks: Callable[[bytes], str]) -> None:
    text = b"".join(b"%07d %s\n" % (i, b"x" * 100) for i in range(20_000))
    path = tasks(text)
    source = source_of(open_tasks(path))
    found = source.take(1)
    Path(path).write_bytes(text + b"echo one more\n")
    found += all_of(source, 5000)
    assert (len(found), source.error) == (20_001, None)
    source.close()


def test_a_file_system_that_fails_for_a_while(tasks: Callable[[bytes], str]) -> None:
    """It is said once, and the file is read on when that can be done."""
    old = [b"%07d %s" % (i, b"x" * 100) for i in range(20_000)]
    opened = open_tasks(tasks(b"\n".join(old)))
    descriptor, said = opened.descriptor, []

    async def course() -> None:
        ready = asyncio.Event()
        access = cast(SourceAccess, SimpleNamespace(notify_user=said.append))
        source = opened.source(asyncio.get_running_loop(), ready.set, access)
        good, at = os.dup(descriptor), os.lseek(descriptor, 0, os.SEEK_CUR)
        with socket.socket() as bad:  # nothing can be read there
            os.dup2(bad.fileno(), descriptor, inheritable=False)
        found = source.take(20_000)
        for _ in range(2):
            assert 0 < len(found) < 20_000 and not source.ended and source.error is None
            await ready.wait()
            ready.clear()
            found += source.take(20_000)
        os.dup2(good, descriptor, inheritable=False)
        os.close(good)
        assert os.lseek(descriptor, 0, os.SEEK_CUR) == at
        await ready.wait()
        found += source.take(20_000)
        assert [item.command for item in found if isinstance(item, Task)] == old
        assert source.ended and source.error is None
        source.close()

    asyncio.run(course())
    assert said == [f"{opened.name}: cannot be read: illegal seek; retrying until it can be read"]


@pytest.mark.parametrize("later", [b"", b"a", b"c\nd\ne\n"])
def test_a_change_after_all_was_read_is_the_end(tasks: Callable[[bytes], str], later: bytes) -> None:
    path = tasks(b"a\nb")
    opened = open_tasks(path)
    source = source_of(opened)
    Path(path).write_bytes(later)
    assert [item.command for item in all_of(source) if isinstance(item, Task)] == [b"a", b"b"]
    assert source.error is None


def test_a_file_may_grow(tasks: Callable[[bytes], str]) -> None:
    path = tasks(b"a\n")
    opened = open_tasks(path)
    source = source_of(opened)
    with open(path, "ab") as file:
        file.write(b"b\n")
    assert [item.command for item in all_of(source) if isinstance(item, Task)] == [b"a", b"b"]
    assert source.error is None


def test_repeat_costs_nothing_until_taken(tasks: Callable[[bytes], str]) -> None:
    opened = open_tasks(tasks(b"#DISBATCH REPEAT 5000000000000\n"))
    source = source_of(opened)
    assert source.take(2) == [Task(0, 1, 0, b""), Task(1, 1, 1, b"")]
    assert not source.ended
    source.close()


def test_what_cannot_be_read(tmp_path: Path) -> None:
    for path, says in [
        (str(tmp_path / "missing"), "cannot be read: no such file or directory"),
        (str(tmp_path), "is a directory, not a task file"),
        ("/dev/fd/999", "cannot be read: bad file descriptor"),
    ]:
        with pytest.raises(UsageError) as caught:
            open_tasks(path)
        assert str(caught.value) == f"{path}: {says}"


def test_a_device_without_readiness_is_read_at_once() -> None:
    async def run() -> None:
        opened = open_tasks("/dev/null")
        assert opened.summary is None
        source = opened.source(asyncio.get_running_loop(), lambda: None)
        assert source.ended
        source.close()

    asyncio.run(run())


# ---- streams ----


class Taker:
    """Takes all from a stream, `batch` at a time, whenever it says that it is ready."""

    def __init__(self, descriptor: int, batch: int = 2) -> None:
        self.items: list[Item] = []
        self.batch = batch
        self.changed = asyncio.Event()
        self.source = StreamSource("stdin", descriptor, asyncio.get_running_loop(), self.ready)

    def ready(self) -> None:
        while taken := self.source.take(self.batch):
            self.items += taken
        self.changed.set()

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE):
            while not true():
                await self.changed.wait()
                self.changed.clear()

    async def ended(self) -> None:
        await self.until(lambda: self.source.ended)

    @property
    def commands(self) -> list[bytes]:
        return [item.command for item in self.items if isinstance(item, Task)]


def run_with_pipe(body: Callable[[int, int], object]) -> None:
    """Run the coroutine function `body(read end, write end)`; it closes the write end."""
    read, write = os.pipe()
    asyncio.run(body(read, write))  # type: ignore[arg-type]
    with pytest.raises(OSError):
        os.fstat(read)


def test_lines_come_as_they_are_written() -> None:
    async def body(read: int, write: int) -> None:
        taker = Taker(read)
        os.write(write, b"a\nb")
        await taker.until(lambda: taker.commands == [b"a"])
        assert not taker.source.ended
        os.write(write, b"b\n# c\n\n")
        await taker.until(lambda: taker.commands == [b"a", b"bb"])
        os.write(write, b"#DISBATCH REPEAT 5 r\nlast")
        await taker.until(lambda: len(taker.items) == 7)
        os.close(write)
        await taker.ended()
        assert taker.items[-1] == Task(7, 6, NO_REPEAT, b"last")
        assert taker.source.error is None

    run_with_pipe(body)


def test_an_error_comes_after_the_good_items() -> None:
    async def body(read: int, write: int) -> None:
        seen: list[tuple[list[Item], bool, bool]] = []
        ready = asyncio.Event()
        source = StreamSource("stdin", read, asyncio.get_running_loop(), ready.set)
        os.write(write, b"a\nb\n#DISBATCH FOO\nc\n")
        await asyncio.wait_for(ready.wait(), DEADLINE)
        for _ in range(3):
            seen.append((source.take(1), source.ended, source.error is not None))
        assert seen == [
            ([Task(0, 1, NO_REPEAT, b"a")], False, False),
            ([Task(1, 2, NO_REPEAT, b"b")], True, True),
            ([], True, True),
        ]
        assert str(source.error).startswith("stdin:3: unknown directive 'FOO'")
        os.close(write)

    run_with_pipe(body)


@pytest.mark.parametrize("content", [b"", b"# only a comment", b"\n\n"])
def test_a_stream_without_tasks_ends(content: bytes) -> None:
    async def body(read: int, write: int) -> None:
        taker = Taker(read)
        os.write(write, content)
        os.close(write)
        await taker.ended()
        assert taker.items == []
        assert taker.source.error is None

    run_with_pipe(body)


class Readers:
    """Stands in for the loop: what is registered is called when the test says so."""

    def __init__(self) -> None:
        self.registered: Callable[[], None] | None = None

    def add_reader(self, _descriptor: int, callback: Callable[[], None]) -> None:
        self.registered = callback

    def remove_reader(self, _descriptor: int) -> None:
        self.registered = None


def test_reading_stops_while_enough_waits() -> None:
    line = b"x" * 1023 + b"\n"
    piece = line * (READ // 2 // len(line))  # fits in a pipe
    total = 3 * HIGH // len(line)
    left = line * total
    read, write = os.pipe()
    loop = Readers()
    calls: list[int] = []
    source = StreamSource("stdin", read, cast(asyncio.AbstractEventLoop, loop), lambda: calls.append(1))
    got: list[Item] = []
    most_ahead = 0
    while not source.ended:
        while loop.registered:
            if left:
                os.write(write, left[: len(piece)])
                left = left[len(piece) :]
            else:
                os.close(write)
            loop.registered()
            most_ahead = max(most_ahead, (total - len(got)) * len(line) - len(left))
        got += source.take(100)
    assert [item.id for item in got] == list(range(total))
    assert HIGH <= most_ahead <= HIGH + READ
    assert len(calls) == 1


def test_a_shared_descriptor_stays_blocking() -> None:
    async def body(read: int, write: int) -> None:
        other = os.dup(read)
        taker = Taker(read)
        os.write(write, b"a\n")
        await taker.until(lambda: taker.commands == [b"a"])
        assert os.get_blocking(other)
        os.close(other)
        os.close(write)
        await taker.ended()

    run_with_pipe(body)


def test_a_reset_connection_is_an_error() -> None:
    async def run() -> None:
        server = socket.create_server(("127.0.0.1", 0))
        client = socket.create_connection(server.getsockname())
        peer, _ = server.accept()
        taker = Taker(client.detach())
        peer.sendall(b"a\nb")
        await taker.until(lambda: taker.commands == [b"a"])
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        peer.close()
        server.close()
        await taker.ended()
        assert taker.commands == [b"a"]
        assert str(taker.source.error) == "stdin: cannot be read: connection reset by peer"

    asyncio.run(run())


def test_closing_early() -> None:
    async def body(read: int, write: int) -> None:
        source = StreamSource("stdin", read, asyncio.get_running_loop(), lambda: None)
        source.close()
        source.close()
        assert source.ended
        with pytest.raises(BrokenPipeError):
            os.write(write, b"a\n")
        os.close(write)

    run_with_pipe(body)


def test_a_named_pipe_opens_before_its_writer(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)

    async def run() -> None:
        opened = open_tasks(str(path))
        assert (opened.pollable, opened.summary) == (True, None)
        ready = asyncio.Event()
        source = opened.source(asyncio.get_running_loop(), ready.set)
        assert not source.ended
        write = os.open(path, os.O_WRONLY)
        os.write(write, b"a\n")
        os.close(write)
        await asyncio.wait_for(ready.wait(), DEADLINE)
        assert source.take(2) == [Task(0, 1, NO_REPEAT, b"a")]
        ready.clear()
        if not source.ended:
            await asyncio.wait_for(ready.wait(), DEADLINE)
        assert source.ended

    asyncio.run(run())


def test_a_descriptor_of_ours_is_taken_over() -> None:
    read, write = os.pipe()
    opened = open_tasks(f"/dev/fd/{read}")
    with pytest.raises(OSError):
        os.fstat(read)
    assert not os.get_inheritable(opened.descriptor)
    assert opened.pollable
    os.close(opened.descriptor)
    os.close(write)


@pytest.fixture
def stdin() -> Iterator[Callable[[int], None]]:
    """Put a descriptor in the place of standard input."""
    saved = os.dup(0)

    def put(descriptor: int) -> None:
        os.dup2(descriptor, 0)

    yield put
    os.dup2(saved, 0)
    os.close(saved)


def test_a_file_as_standard_input(tasks: Callable[[bytes], str], stdin: Callable[[int], None]) -> None:
    path = tasks(b"not ours\na\nb\n#DISBATCH BARRIER\n")
    with open(path, "rb", buffering=0) as file:
        file.read(len(b"not ours\n"))
        stdin(file.fileno())
        opened = open_tasks("-")
    assert opened.summary is not None
    assert (opened.name, opened.summary.tasks, opened.summary.barriers) == ("stdin", 2, 1)
    source = source_of(opened)
    assert [item.id for item in all_of(source)] == [0, 1, 2]
    os.fstat(0)
