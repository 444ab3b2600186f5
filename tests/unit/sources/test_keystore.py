"""sources/keystore.py and sources/keystore.py: tasks that a program puts into the key store."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable

import pytest

from deadline import DEADLINE
from disbatch.keystore.embedded import EmbeddedStore
from disbatch.model.errors import SourceError, TaskFileError, UsageError
from disbatch.model.task import Barrier, Item, Task
from disbatch.sources.keystore import (
    BATCH,
    DONE_TASK,
    HIGH,
    RESULT_KEY,
    SOURCE_NAME,
    TASK_KEY,
    SignIn,
    SourceAccess,
    StoreSource,
    TaskCommand,
)
from disbatch.sources.opening import Expected
from disbatch.sources.source import Source
from disbatch.sources.submitted import MOST_BYTES


class Producer:
    """A process that ends when we say so."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.ended: asyncio.Future[str | None] = loop.create_future()


class Meeting:
    """A source at a access, the store that both know, and what was heard."""

    def __init__(self, command: str | None = None, *, with_producer: bool = False) -> None:
        self.store = EmbeddedStore()
        self.heard: list[SignIn] = []
        self.said: list[str] = []
        environment = {**os.environb, b"GIVEN": b"yes"}
        self.access = SourceAccess(self.store, "here", environment, self.heard.append, self.said.append)
        self.readies = 0
        self._changed = asyncio.Event()
        self.opening = Expected(command)
        loop = asyncio.get_running_loop()
        self.producer = Producer(loop)
        self.source: Source
        if with_producer:
            self.source = StoreSource("the producer", self.access, loop, self._ready, self.producer)
        else:
            self.source = self.opening.source(loop, self._ready, self.access)

    def _ready(self) -> None:
        self.readies += 1
        self._changed.set()

    async def sign_in(self, name: bytes = b"me", done: bytes = b"DONE", results: bytes = b"R") -> None:
        for key, value in ((SOURCE_NAME, name), (DONE_TASK, done), (RESULT_KEY, results), (TASK_KEY, b"T")):
            await self.store.put([(key, value)])

    async def give(self, *lines: bytes) -> None:
        await self.store.put([(b"T", line) for line in lines])

    async def some(self, most: int = 100) -> list[Item]:
        """The next items, when there are any, or the end."""
        while True:
            self._changed.clear()
            taken = self.source.take(most)
            if taken or self.source.ended:
                return taken
            await self._changed.wait()

    async def all(self) -> list[Item]:
        items: list[Item] = []
        while not self.source.ended:
            items += await self.some()
        return items


def play(
    test: Callable[[Meeting], Awaitable[None]], command: str | None = None, *, with_producer: bool = False
) -> None:
    async def bounded() -> None:
        meeting = Meeting(command, with_producer=with_producer)
        async with asyncio.timeout(DEADLINE):
            await test(meeting)
            meeting.source.close()
            await meeting.opening.end()

    asyncio.run(bounded())


def commands(items: list[Item]) -> list[bytes]:
    return [item.command for item in items if isinstance(item, Task)]


def test_lines_up_to_the_done_token() -> None:
    async def test(m: Meeting) -> None:
        await m.sign_in()
        lines = (b"one", b"#DISBATCH PREFIX x", b"two\n", b"", b"# no", b"several\nlines\r\n")
        await m.give(*lines, b"#DISBATCH BARRIER key", b"DONE\n", b"behind")
        items = await m.all()
        assert commands(items) == [b"one", b"xtwo", b"xseveral\nlines"]
        assert [item.line for item in items] == [1, 3, 6, 7]
        assert isinstance(items[-1], Barrier)
        assert m.source.error is None
        assert m.heard == [SignIn(b"me", b"DONE", b"R", b"T")]

    play(test)


def test_each_line_at_once() -> None:
    async def test(m: Meeting) -> None:
        assert m.source.take(5) == []
        await m.sign_in()
        for number in range(3):
            await m.give(b"%d" % number)
            assert commands(await m.some()) == [b"%d" % number]
            assert not m.source.ended
        await m.give(b"DONE")
        assert await m.some() == []
        assert m.source.ended

    play(test)


def test_ready_is_called_once_for_each_hunger() -> None:
    async def test(m: Meeting) -> None:
        await m.sign_in()
        await m.give(b"1", b"2", b"3")
        assert len(await m.some(2)) == 2  # not hungry: there was as much as asked for
        readies = m.readies
        await m.give(b"4")
        for _ in range(10):
            await asyncio.sleep(0)
        assert m.readies == readies
        assert commands(m.source.take(9)) == [b"3", b"4"]

    play(test)


def test_what_waits_is_bounded() -> None:
    async def test(m: Meeting) -> None:
        await m.sign_in()
        line = b"x" * (HIGH // BATCH)
        await m.give(*[line] * (4 * BATCH), b"DONE")
        first = await m.some(1)
        held = m.store.held
        assert held > HIGH  # the rest stays in the store until there is room
        items = first + await m.all()
        assert len(items) == 4 * BATCH
        assert m.store.held == 0

    play(test)


def test_a_wrong_line_comes_after_the_good_ones() -> None:
    async def test(m: Meeting) -> None:
        await m.sign_in(name=b"my\x1bprogram")
        await m.give(b"one", b"#DISBATCH REPEAT x", b"two", b"DONE")
        assert commands(await m.all()) == [b"one"]
        assert isinstance(m.source.error, TaskFileError)
        assert str(m.source.error).startswith("my\\x1bprogram:2: ")

    play(test)


def test_a_source_without_a_task_key() -> None:
    async def test(m: Meeting) -> None:
        for key in (SOURCE_NAME, DONE_TASK, RESULT_KEY, TASK_KEY):
            await m.store.put([(key, b"")])
        assert await m.all() == []
        assert str(m.source.error) == "the task source signed in with an empty task key"

    play(test)


def test_one_who_is_closed_consumes_nothing() -> None:
    async def test(m: Meeting) -> None:
        m.source.close()
        for _ in range(10):
            await asyncio.sleep(0)
        await m.sign_in()
        assert await m.store.get(SOURCE_NAME, 0) == b"me"

    play(test)


# ---- a process that gives the lines ----


def test_the_end_of_the_giver_is_waited_for() -> None:
    async def test(m: Meeting) -> None:
        await m.sign_in()
        await m.give(b"one", b"DONE")
        assert commands(await m.some()) == [b"one"]
        assert not m.source.ended
        m.producer.ended.set_result(None)
        assert await m.all() == []
        assert m.source.error is None

    play(test, with_producer=True)


def test_what_is_in_the_store_is_read_when_its_giver_has_ended_well() -> None:
    async def test(m: Meeting) -> None:
        await m.sign_in()
        await m.give(*[b"line"] * (3 * BATCH), b"DONE")
        m.producer.ended.set_result(None)
        assert len(await m.all()) == 3 * BATCH
        assert m.source.error is None

    play(test, with_producer=True)


@pytest.mark.parametrize("signed_in", [False, True])
def test_a_giver_that_ends_without_having_said_so(signed_in: bool) -> None:
    async def test(m: Meeting) -> None:
        if signed_in:
            await m.sign_in()
            await m.give(b"one")
            assert commands(await m.some()) == [b"one"]
        m.producer.ended.set_result(None)
        assert await m.all() == []
        assert isinstance(m.source.error, SourceError)
        lacks = "its done token" if signed_in else "signing in as a task source"
        assert f"the producer ended without {lacks}" in str(m.source.error)

    play(test, with_producer=True)


def test_a_giver_that_ends_badly_ends_the_source_at_once() -> None:
    async def test(m: Meeting) -> None:
        await m.sign_in()
        await m.give(*[b"line"] * 100, b"DONE")
        assert len(await m.some(1)) == 1
        m.producer.ended.set_result("ended with exit code 3")
        while not m.source.ended:
            await asyncio.sleep(0)
        assert m.source.take(9) == []
        assert str(m.source.error) == "the producer ended with exit code 3"

    play(test, with_producer=True)


# ---- the command ----


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("[ $GIVEN = yes ] && ! read -r", None),
        ("exit 7", "ended with exit code 7"),
        ("kill -9 $$", "ended with signal 9"),
        ("no-such-program-at-all 2>&-", "ended with exit code 127"),
    ],
)
def test_how_a_command_ended(command: str, words: str | None) -> None:
    async def test(m: Meeting) -> None:
        await asyncio.wait([process(m).ended])
        assert process(m).ended.result() == words

    play(test, command)


def test_a_command_that_does_not_end_is_ended() -> None:
    async def test(m: Meeting) -> None:
        m.source.close()
        await m.opening.end()
        assert process(m).ended.result() == "ended with signal 15"

    play(test, "sleep 600 & wait; sleep 600")


def test_a_command_that_cannot_be_started() -> None:
    async def test(m: Meeting) -> None:
        await asyncio.wait([process(m).ended])
        assert process(m).ended.result() == "cannot be started: Argument list too long"
        assert await m.all() == []
        assert str(m.source.error).startswith("the task command cannot be started")

    play(test, ": " + "x" * (1 << 20))


def process(m: Meeting) -> TaskCommand:
    found = m.opening._process
    assert found is not None
    return found


# ---- what others hand in besides ----


def test_what_is_handed_in_has_ids_at_once_and_comes_before_what_is_not_parsed_yet() -> None:
    async def test(m: Meeting) -> None:
        source = m.source
        assert isinstance(source, StoreSource)
        lines = [b"#DISBATCH PREFIX p", b"by hand", b"#DISBATCH REPEAT 2 again"]
        first = source.add(lines, "r", "argument", 1)
        assert first == (0, [(0, 1), (1, 1), (2, 1)])
        await m.sign_in()
        await m.give(b"#DISBATCH PREFIX x", b"one", b"two", b"three")
        assert commands(await m.some(2)) == [b"pby hand", b"pagain"]
        assert [item.id for item in await m.some(1)] == [2]
        assert [item.id for item in await m.some(1)] == [3]
        # The next one, "two", has its id already.
        assert source.add([b"in between"], "s", "argument", 1).first == 5
        await m.give(b"DONE")
        rest = await m.all()
        assert commands(rest) == [b"xtwo", b"pin between", b"xthree"]
        assert [item.id for item in rest] == [4, 5, 6]
        assert source.closed

    play(test)


def test_all_that_is_handed_in_or_nothing() -> None:
    async def test(m: Meeting) -> None:
        source = m.source
        assert isinstance(source, StoreSource)
        for lines, words in (
            ([b"fine", b"#DISBATCH REPEAT x"], "argument:8: "),
            ([b"two\nlines"], "argument:7: a line end"),
            ([b"#DISBATCH PERENGINE START x"], "argument:7: PERENGINE must precede"),
        ):
            with pytest.raises(TaskFileError, match=words):
                source.add(lines, "r", "argument", 7)
        assert source.add([b"one"], "r", "argument", 1) == (0, [(1, 1)])
        assert commands(await m.some()) == [b"one"]
        assert source.take(1) == [] and not source.ended

    play(test)


def test_too_much_that_waits_is_refused() -> None:
    async def test(m: Meeting) -> None:
        source = m.source
        assert isinstance(source, StoreSource)
        line = b"x" * (1 << 20)
        for _ in range(MOST_BYTES >> 20):
            source.add([line], "r", "argument", 1)
        with pytest.raises(UsageError, match="64 MiB of tasks wait already"):
            source.add([line], "r", "argument", 1)
        assert len(source.take(3)) == 3
        source.add([line], "r", "argument", 1)

    play(test)


def test_closing_is_as_good_as_the_done_token() -> None:
    async def test(m: Meeting) -> None:
        source = m.source
        assert isinstance(source, StoreSource)
        source.add([b"one"], "r", "argument", 1)
        source.close_soon()
        assert source.closed
        await m.sign_in()
        await m.give(b"not read")
        assert not source.ended  # the process has not ended
        m.producer.ended.set_result(None)
        assert commands(await m.all()) == [b"one"]
        assert source.error is None and source.ended

    play(test, with_producer=True)


def test_a_bad_end_of_the_process_counts_after_closing_too() -> None:
    async def test(m: Meeting) -> None:
        source = m.source
        assert isinstance(source, StoreSource)
        source.close_soon()
        m.producer.ended.set_result("ended with exit code 3")
        assert await m.all() == []
        assert isinstance(source.error, SourceError)

    play(test, with_producer=True)
