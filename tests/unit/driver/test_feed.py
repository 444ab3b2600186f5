"""From the source to the plan: what is done before, what is wrong, and the end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from disbatch.driver.feed import ITEMS_A_TURN, Feed, Submitted
from disbatch.model.statusline import format_line
from disbatch.model.task import Outcome, Task
from disbatch.plan import events
from disbatch.plan.plan import Plan
from disbatch.rundir.resume import Former
from disbatch.sources.opening import open_tasks
from disbatch.sources.submitted import SubmittedFile


def fed(
    path: Path, former: Former | None = None, plan: Plan | None = None
) -> tuple[list[events.Event], Feed]:
    """Feed a plan that nobody works for, until it has no room or the loop gets its turn."""
    plan = plan or Plan()

    async def run() -> tuple[list[events.Event], Feed]:
        feed = Feed(open_tasks(str(path)), former)
        feed.start(asyncio.get_running_loop(), lambda: None)
        told = []
        for event in feed.events(plan):
            told.append(event)
            plan.handle(event)
        feed.close()
        return told, feed

    return asyncio.run(run())


def test_reads_no_more_than_there_is_room_for(tmp_path: Path) -> None:
    path = tmp_path / "Tasks"
    path.write_text("#DISBATCH REPEAT 50000000 true\n")
    plan = Plan()
    room = plan.room
    told, _ = fed(path, plan=plan)
    assert [len(event.items) for event in told if isinstance(event, events.Read)] == [room]
    assert plan.room == 0


def test_the_end(tmp_path: Path) -> None:
    path = tmp_path / "Tasks"
    path.write_text("true\n")
    told, feed = fed(path)
    assert told == [events.Read([Task(0, 1, -1, b"true")]), events.SourceEnded(broken=False)]
    assert feed.error is None


def test_what_is_handed_in_counts_at_once(tmp_path: Path) -> None:
    """Tasks that were handed in have ids, and are part of the total, before they are read."""
    path, plan = tmp_path / "Tasks", Plan()
    path.write_text("true\n#DISBATCH BARRIER\n")
    file = SubmittedFile(tmp_path / "P_tasks.txt", 2)
    feed = Feed(open_tasks(str(path)), None, None, Submitted(file, True))
    assert (feed.known_ids(plan), feed.total) == (2, 1)
    file.add([b"true", b"#DISBATCH BARRIER", b"#DISBATCH REPEAT 3 true"], "0" * 16, "x", 1)
    assert (feed.known_ids(plan), feed.total) == (7, 5)
    feed.close()
    file.close()
    again = SubmittedFile(tmp_path / "P_tasks.txt", 2, again=True)
    assert (again.next_id, again.tasks) == (7, 4)
    again.close()


def test_how_many_ids_there_are(tmp_path: Path) -> None:
    """Of a regular file that is known; of others as far as they are read."""
    os.mkfifo(tmp_path / "fifo")
    path, plan = tmp_path / "Tasks", Plan()
    path.write_text("true\ntrue\n")

    async def run() -> None:
        regular = Feed(open_tasks(str(path)), None)
        assert (regular.known_ids(plan), regular.total) == (2, 2)
        regular.close()
        ended = asyncio.Event()
        descriptor = os.open(tmp_path / "fifo", os.O_RDWR)
        stream = Feed(open_tasks(str(tmp_path / "fifo")), None)
        stream.start(asyncio.get_running_loop(), ended.set)
        os.write(descriptor, b"true\n" * 3)
        assert stream.known_ids(plan) == 0
        os.close(descriptor)
        while stream.known_ids(plan) < 3:
            await ended.wait()
            ended.clear()
            for event in stream.events(plan):
                plan.handle(event)
        assert (stream.known_ids(plan), stream.total) == (3, None)
        stream.close()

    asyncio.run(asyncio.wait_for(run(), 60))


def test_as_many_while_held(tmp_path: Path) -> None:
    path = tmp_path / "Tasks"
    path.write_text("true\n" * 1000)
    plan = Plan()
    plan.handle(events.Hold())
    room = plan.room
    told, _ = fed(path, plan=plan)
    assert [len(event.items) for event in told if isinstance(event, events.Read)] == [room]


def status_of(path: Path, commands: dict[int, bytes], code: Callable[[int], int] = lambda _: 0) -> Former:
    outcome = [Outcome(0, 0, 1, code(id), 0.1, 1.0, 1.1, 0, b"", 0, b"") for id in commands]
    lines = [
        format_line(id, id + 1, -1, command, "n", each)
        for (id, command), each in zip(commands.items(), outcome, strict=True)
    ]
    path.write_bytes(b"".join(lines))
    return Former.read([str(path)], source="Tasks")


def test_what_was_done_before(tmp_path: Path) -> None:
    path = tmp_path / "Tasks"
    path.write_text("one\n#DISBATCH BARRIER\ntwo\nthree\n")
    with closing(status_of(tmp_path / "old", {0: b"one", 3: b"three"}, lambda id: id)) as former:
        told, _ = fed(path, former)
    items = [item for event in told if isinstance(event, events.Read) for item in event.items]
    completed = [item for item in items if isinstance(item, events.Completed)]
    assert [(item.task.id, item.failed) for item in completed] == [(0, False), (3, True)]
    assert [item.id for item in items if isinstance(item, Task)] == [2]


def test_another_command_ends_the_reading_before_it(tmp_path: Path) -> None:
    path = tmp_path / "Tasks"
    path.write_text("one\ntwo\nthree\n")
    with closing(status_of(tmp_path / "old", {1: b"other"})) as former:
        told, feed = fed(path, former)
    assert told[-1] == events.SourceEnded(broken=True)
    assert [event.items for event in told[:-1] if isinstance(event, events.Read)] == [
        [Task(0, 1, -1, b"one")]
    ]
    assert feed.error is not None and "--resume-by command" in str(feed.error)


def test_the_loop_gets_a_turn_among_many_skipped_tasks(tmp_path: Path) -> None:
    path = tmp_path / "Tasks"
    path.write_text("x\n" * 30_000)
    with closing(status_of(tmp_path / "old", dict.fromkeys(range(30_000), b"x"))) as former:
        told, _ = fed(path, former)
    given = sum(len(event.items) for event in told if isinstance(event, events.Read))
    assert 8192 <= given < 30_000
    assert not any(isinstance(event, events.SourceEnded) for event in told)
    os.unlink(path)


def test_a_loop_that_is_fed_from_many_sides_still_gets_its_turn(tmp_path: Path) -> None:
    """Tasks that never run take no room, so they come without end; one lot of them for each turn."""
    path = tmp_path / "Tasks"
    path.write_text("#DISBATCH REPEAT 100000 true\n")
    plan = Plan()
    plan.handle(events.Cancel([(0, 99_999)]))
    turns: list[int] = []

    async def run() -> None:
        loop = asyncio.get_running_loop()
        ended = loop.create_future()
        feed = Feed(open_tasks(str(path)), None)

        def pump() -> None:
            for event in feed.events(plan):
                turns[-1] += len(event.items) if isinstance(event, events.Read) else 0
                plan.handle(event)
                if isinstance(event, events.SourceEnded):
                    ended.set_result(None)

        def turn() -> None:
            turns.append(0)
            for _ in range(20):  # as many messages come in one turn
                pump()
            if not ended.done():
                loop.call_soon(turn)

        feed.start(loop, pump)
        turn()
        await ended
        feed.close()

    asyncio.run(run())
    assert sum(turns) == 100_000
    assert max(turns) <= 2 * ITEMS_A_TURN
