"""The monitor: what is seen, what keys do, and what is drawn again."""

from __future__ import annotations

import asyncio
import html
import os
import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
from monitor_run import NODES, TASKS, VIEW, FakeSource, standing
from textual.pilot import Pilot

from disbatch.model.errors import UsageError
from disbatch.model.view import CoursePoint
from disbatch.watch.monitor import panes
from disbatch.watch.monitor.app import KEYS, Monitor
from disbatch.watch.monitor.dialogs import HELP
from disbatch.watch.monitor.panes import curve_lines, head_lines, rates_of, words_line
from disbatch.watch.monitor.table import Table
from disbatch.watch.run_state import DEAD, DRIVER, Standing
from disbatch.wire.verbs import Cancel, Drain, Finish, Pause, Stop, Unpause

PICTURES = Path(__file__).resolve().parents[4] / "docs" / "pictures"


class Scene:
    """The monitor on a terminal that is none."""

    def __init__(self, source: FakeSource, app: Monitor, pilot: Pilot[None]) -> None:
        self.source = source
        self.app = app
        self.pilot = pilot

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.pilot.pause()

    async def tell(self, now: Standing) -> None:
        self.source.put(now)
        for _ in range(200):
            await self.pilot.pause(0.01)
            if self.app._standing is now:
                break
        await self.pilot.pause()

    @property
    def lines(self) -> list[str]:
        """What is on the screen, in lines."""
        return [
            "".join(segment.text for segment in strip).rstrip()
            for strip in self.app.screen._compositor.render_strips(self.app.size)
        ]

    @property
    def seen(self) -> str:
        return "\n".join(self.lines)


def play(history: Callable[[Scene], Awaitable[None]], size: tuple[int, int] = (80, 24)) -> FakeSource:
    """Play a history of keys and news."""
    source = FakeSource()

    async def main() -> None:
        app = Monitor(lambda: source, interval=0.0)
        async with app.run_test(size=size) as pilot:
            scene = Scene(source, app, pilot)
            await scene.tell(standing())
            await history(scene)

    asyncio.run(main())
    return source


# ---- what is seen ----


def test_a_small_terminal() -> None:
    async def history(scene: Scene) -> None:
        lines = scene.lines
        assert lines[0].startswith("Tasks_260301101500_4711: running for 5:12")
        assert lines[0].endswith("39 of 48 slots used")
        assert "48%  1,919 of 4,000 done, 14 failed, 39 running, 2,042 waiting" in lines[1]
        assert " 1 Nodes 5 " in scene.seen and " 3 Failed 14 " in scene.seen
        assert re.search(r"^node4 +lost +0/16 +220 +0 +- +41 s", scene.seen, re.M)
        assert lines[-1] == KEYS

    play(history)


def test_all_tables_on_a_large_one() -> None:
    async def history(scene: Scene) -> None:
        for words in ("─ 1 Nodes 5 ─", "─ 2 Running 39 ─", "─ 3 Failed 14 ─", "─ 4 Log 2 ─"):
            assert words in scene.seen
        assert "node1" in scene.seen and "no convergence" in scene.seen and "engine lost" in scene.seen

    play(history, (200, 50))


def test_two_tables_on_a_tall_one() -> None:
    async def history(scene: Scene) -> None:
        assert "─ 1 Nodes" in scene.seen and "─ 2 Running" in scene.seen and "─ 3 Failed" not in scene.seen
        await scene.press("3")
        assert "─ 1 Nodes" in scene.seen and "─ 3 Failed" in scene.seen and "─ 2 Running" not in scene.seen

    play(history, (90, 45))


@pytest.mark.parametrize("size", [(20, 5), (1, 1), (40, 8), (60, 12), (300, 100)])
def test_terminals_of_any_size(size: tuple[int, int]) -> None:
    async def history(scene: Scene) -> None:
        for key in "1234":
            await scene.press(key)
        await scene.press("question_mark")

    play(history, size)


def test_a_terminal_that_becomes_another_one() -> None:
    async def history(scene: Scene) -> None:
        await scene.pilot.resize_terminal(160, 45)
        await scene.pilot.pause()
        assert (
            "─ 1 Nodes" in scene.seen and "─ 4 Log" in scene.seen and "39 of 48 slots used" in scene.lines[0]
        )
        await scene.pilot.resize_terminal(60, 12)
        await scene.pilot.pause()
        assert "─ 1 Nodes" not in scene.seen and " 1 Nodes 5 " in scene.lines[2]
        await scene.pilot.resize_terminal(80, 24)
        await scene.pilot.pause()
        assert "/s █" in scene.seen or "▃" in scene.seen

    play(history)


def test_nothing_is_wider_than_the_terminal() -> None:
    assert len(KEYS) <= 80
    assert max(map(len, HELP.splitlines())) <= 68
    for width in (20, 40, 60, 80, 120):
        assert all(len(line) <= width for line in head_lines(standing(), width))


def test_numbers_move_and_only_what_changed_is_drawn() -> None:
    drawn: list[int] = []

    async def history(scene: Scene) -> None:
        table = scene.app.query_one("#nodes", Table)
        whole, refresh = table.refresh, table.refresh

        def count(*regions: object, **how: object) -> object:
            drawn.append(len(regions))
            return refresh(*regions, **how)  # type: ignore[arg-type]

        table.refresh = count  # type: ignore[assignment]
        panes = [msgspec.structs.replace(NODES[0], done=613), *NODES[1:]]
        await scene.tell(standing(done=1920, engines=panes))
        assert "1,920 of 4,000 done" in scene.seen and " 613 " in scene.seen
        await scene.tell(standing(done=1921, engines=panes))
        assert "1,921 of 4,000" in scene.seen
        table.refresh = whole  # type: ignore[method-assign]

    play(history)
    assert drawn == [1]


def test_text_from_outside_does_no_harm() -> None:
    async def history(scene: Scene) -> None:
        bad = "\x1b[2J[bold]\x07 \u202e x\ny"
        panes = [msgspec.structs.replace(NODES[0], node=bad)]
        failures = [msgspec.structs.replace(VIEW.failures[0], snippet=bad, command=bad)]
        await scene.tell(standing(engines=panes, failures=failures, notice=bad))
        for key in ("1", "3"):
            await scene.press(key, "enter")
            assert "\x1b" not in scene.seen and "[bold]" in scene.seen
            await scene.press("escape")

    play(history)


# ---- looking around ----


def test_tables_and_details() -> None:
    async def history(scene: Scene) -> None:
        await scene.press("3")
        assert "no convergence after" in scene.seen
        assert scene.app.table.row is not None and scene.app.table.row.key == "14"
        await scene.press("down", "down", "enter")
        assert "killed by SIGKILL" in scene.seen and "./simulate --seed 480" in scene.seen
        await scene.press("escape", "tab")
        assert "engine lost" in scene.seen
        await scene.press("tab")
        assert "no convergence" in scene.seen and "killed by SIGKILL" in scene.seen
        await scene.press("enter")
        assert "./simulate --seed 40" in scene.seen
        await scene.press("escape", "tab")
        assert "MEMORY" in scene.seen
        await scene.press("shift+tab", "4", "2")
        assert "./simulate --seed 1881" in scene.seen

    play(history)


def test_the_cursor_stays_on_its_row() -> None:
    async def history(scene: Scene) -> None:
        await scene.press("2", "down", "down", "down")
        row = scene.app.table.row
        assert row is not None
        longer = [msgspec.structs.replace(task, seconds=1e4 + 60 * at) for at, task in enumerate(TASKS[:5])]
        await scene.tell(standing(running_tasks=[*longer, *TASKS[5:]]))
        assert scene.app.table.row is not None and scene.app.table.row.key == row.key

    play(history)


def test_more_rows_than_lines() -> None:
    async def history(scene: Scene) -> None:
        await scene.press("2", "end")
        assert scene.app.table.row is not None and scene.app.table.row.task == 1919
        assert "--seed 1919" in scene.seen and "--seed 1881" not in scene.seen
        await scene.press("pageup", "pageup", "pageup")
        assert "--seed 1881" in scene.seen
        await scene.tell(standing(running_tasks=TASKS[:2], running=2))
        assert scene.app.table.row is not None
        await scene.tell(standing(running_tasks=[], running=0))
        assert scene.app.table.row is None and "no task is running" in scene.seen
        await scene.press("down", "pagedown", "enter", "n")

    play(history)


def test_sorting() -> None:
    async def history(scene: Scene) -> None:
        def nodes() -> list[str]:
            return re.findall(r"^node[0-9]", scene.seen, re.M)

        assert nodes() == ["node4", "node3", "node1", "node2", "node5"], "what needs a look comes first"
        await scene.press("o", "o")
        assert "DONE↓" in scene.seen and nodes() == ["node1", "node2", "node3", "node4", "node5"]
        await scene.press("O")
        assert "DONE↑" in scene.seen and nodes() == ["node4", "node3", "node2", "node1", "node5"]
        for _ in range(9):
            await scene.press("o")

    play(history)


def test_filter() -> None:
    async def history(scene: Scene) -> None:
        await scene.press("3", "ampersand", *"SIGK")
        assert "no convergence" not in scene.seen and "SIGKILL" in scene.seen
        await scene.press("enter")
        assert "4 of 14 with 'SIGK'" in scene.seen
        await scene.press("escape")
        assert "no convergence" in scene.seen
        await scene.press("ampersand", *"nonsense")
        assert "no row contains 'nonsense'" in scene.seen
        await scene.press("escape")
        assert "no convergence" in scene.seen and scene.lines[-1] == KEYS

    play(history)


def test_search() -> None:
    async def history(scene: Scene) -> None:
        def task() -> int:
            assert scene.app.table.row is not None
            return scene.app.table.row.task

        await scene.press("2", "slash", *"node2", "enter")
        first = task()
        await scene.press("n")
        second = task()
        await scene.press("N")
        assert task() == first != second
        await scene.press("slash", *"nowhere", "enter")
        assert "no row contains 'nowhere'" in scene.lines[-1] and task() == first

    play(history)


def test_help() -> None:
    async def history(scene: Scene) -> None:
        await scene.press("question_mark")
        assert all(line.strip() in scene.seen for line in HELP.splitlines())
        await scene.press("escape")
        assert "MEMORY" in scene.seen

    play(history)


# ---- asking the driver ----


@pytest.mark.parametrize(
    ("keys", "asked", "verb"),
    [
        ("1 down down d", "Drain node1?", Drain(["0-a"])),
        ("1 s", "Stop node4?", Stop(["3-d"])),
        ("p", "Pause the run?", Pause()),
        ("f", "Finish the run?", Finish()),
        ("2 c", "Cancel task 1881?", Cancel([(1881, 1881)])),
    ],
)
def test_it_asks_and_then_does(keys: str, asked: str, verb: object) -> None:
    async def history(scene: Scene) -> None:
        for answer in ("n", "escape", "enter", "q"):
            await scene.press(*keys.split())
            assert asked in scene.seen
            await scene.press(answer)
            assert asked not in scene.seen and scene.source.asked == []
            await scene.press("home")
        await scene.press(*keys.split(), "y")
        assert scene.source.asked == [verb]
        assert scene.lines[-1].startswith("node1: draining; 16 tasks")
        await scene.press("up")
        assert scene.lines[-1] == KEYS

    play(history)


def test_the_last_node() -> None:
    async def history(scene: Scene) -> None:
        await scene.press("1", "down", "down", "d")
        assert "This is the last node" not in scene.seen
        await scene.press("n")
        await scene.tell(standing(engines=[NODES[0], *NODES[2:]]))
        await scene.press("d")
        assert "Drain node1?" in scene.seen and "This is the last node" in scene.seen

    play(history)


def test_resume() -> None:
    async def history(scene: Scene) -> None:
        await scene.tell(standing(paused=True, notice="paused"))
        assert ": paused, began" in scene.seen
        await scene.press("p")
        assert "Resume the run?" in scene.seen
        await scene.press("y")
        assert scene.source.asked == [Unpause()]

    play(history)


def test_what_cannot_be_asked() -> None:
    async def history(scene: Scene) -> None:
        await scene.press("2", "d")
        assert scene.lines[-1] == "first select a node: key 1 shows the nodes"
        await scene.press("1", "c")
        assert scene.lines[-1] == "first select a running task: key 2 shows them"
        await scene.press("end", "s")
        assert scene.lines[-1] == "no node is selected that could leave"
        scene.source.refusal = "the driver did not answer"
        await scene.press("p", "y")
        assert scene.lines[-1] == "the driver did not answer"

    assert len(play(history).asked) == 1


# ---- the driver is gone, the run is over ----


def test_the_driver_is_not_heard_and_comes_again() -> None:
    async def history(scene: Scene) -> None:
        await scene.tell(Standing("P", DEAD, "the driver is dead; take it over", DRIVER, VIEW))
        assert scene.lines[0].startswith("P: dead, last heard of at ")
        assert scene.lines[2] == "the driver is dead; take it over"
        await scene.press("p")
        assert "the driver does not answer" in scene.lines[-1]
        await scene.tell(standing(driver=1))
        assert ": running for 5:12" in scene.lines[0]

    play(history)


def test_after_the_end() -> None:
    async def history(scene: Scene) -> None:
        await scene.tell(standing(mode="over", notice="complete", remaining=None))
        assert ": over, 5:12" in scene.lines[0] and scene.lines[2] == "complete"
        await scene.press("f")
        assert scene.lines[-1] == "the run is over"
        await scene.press("3", "enter")
        assert "./simulate" in scene.seen

    source = play(history)
    assert source.closed


def test_a_run_that_cannot_be_watched() -> None:
    async def main() -> Monitor:
        app = Monitor(lambda: FakeSource(UsageError("an older driver")), interval=0.0)
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.pause()
        return app

    assert str(asyncio.run(main()).trouble) == "an older driver"


def test_a_fault_of_ours_is_told_by_whoever_started_it() -> None:
    class Broken(FakeSource):
        async def next(self) -> Standing:
            raise ZeroDivisionError("of ours")

    async def main() -> Monitor:
        app = Monitor(Broken, interval=0.0)
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.pause()
        return app

    assert str(asyncio.run(main()).trouble) == "of ours"


def test_a_fault_in_a_key_makes_no_page_of_traceback() -> None:
    class Broken(Monitor):
        def action_help(self) -> None:
            raise ZeroDivisionError("of ours")

    async def main(app: Monitor) -> None:
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.press("question_mark")

    app = Broken(FakeSource)
    with pytest.raises(ZeroDivisionError):  # the pilot's own
        asyncio.run(main(app))
    assert str(app.trouble) == "of ours" and app._exit_renderables == []


def test_a_terminal_that_was_closed() -> None:
    async def main() -> None:
        there = [True]
        source = FakeSource(standing())
        app = Monitor(lambda: source, interval=0.0, has_terminal=lambda: there[0])
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            assert app.is_running
            there[0] = False
            source.put(standing(done=1920))
            await pilot.pause(0.05)
        assert source.closed

    asyncio.run(main())


def test_leaving() -> None:
    async def history(scene: Scene) -> None:
        await scene.press("q")

    assert play(history).closed


# ---- head and curve ----


def test_words() -> None:
    from disbatch.model.view import BarrierRow

    assert words_line(standing(), 80) == ""
    waits = standing(barrier=BarrierRow(7, 9), notice="paused")
    assert words_line(waits, 80) == "paused; waiting at the barrier in line 9"


def test_rates() -> None:
    points = [CoursePoint(0, 0, 0, 1, 1), CoursePoint(10, 20, 0, 1, 1), CoursePoint(20, 20, 0, 1, 1)]
    assert rates_of(points, 4) == [2.0, 2.0, 0.0, 0.0]
    assert rates_of(points, 2) == [2.0, 0.0]
    assert rates_of(points, 20) == [2.0] * 10 + [0.0] * 10
    assert rates_of([point for point in points if point.seconds], 3) == [0.0] * 3


def test_rates_of_a_moment() -> None:
    """Tasks that end together are no thousands a second."""
    points = [CoursePoint(0, 0, 0, 1, 1), CoursePoint(0.001, 40, 0, 1, 1), CoursePoint(4, 40, 0, 1, 1)]
    assert rates_of(points, 4) == [20.0, 20.0, 0.0, 0.0]
    assert rates_of(points[:2], 4) == [40.0] * 4


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "39 running, 2,042 waiting"),
        ({"skipped": 1000, "lost": 40, "not_run": 40}, "39 running, 1,002 waiting"),
        ({"total": None}, "39 running, 72 waiting"),
        ({"mode": "ending"}, "39 running, 72 waiting"),
    ],
)
def test_what_waits_is_counted_of_the_whole_list(changes: dict[str, object], words: str) -> None:
    assert words in head_lines(standing(**changes), 200)[1]


def test_a_paused_run_has_no_time_left() -> None:
    head = head_lines(standing(paused=True, notice="paused", remaining=None), 100)[0]
    assert ": paused, began 5:12 ago, 6.1/s" in head and "left" not in head


def test_rates_of_nodes_have_the_unit_of_the_run() -> None:
    engines = [msgspec.structs.replace(row, rate=0.25) for row in standing().view.engines]
    view = standing(rate=6.1, engines=engines).view
    assert {row.cells[5] for row in panes.nodes(view)} == {"0.25/s"}
    points = [CoursePoint(second, second / 4, 0, 1, 1) for second in range(61)]
    assert curve_lines(points, 30, 3, 6.1)[0].startswith("   0.25/s ")


@pytest.mark.parametrize("points", [[], [CoursePoint(1, 2, 0, 1, 1)], [CoursePoint(1, 2, 0, 1, 1)] * 2])
def test_no_curve_yet(points: list[CoursePoint]) -> None:
    assert curve_lines(points, 80, 3) == ["", "", ""]


def test_a_curve() -> None:
    points = [CoursePoint(second, 3 * second, 0, 1, 1) for second in range(61)]
    lines = curve_lines(points, 30, 3)
    assert lines[0].startswith("    3.0/s ") and lines[-1].startswith("     1:00 ")
    assert all(line.endswith("█" * 20) and len(line) == 30 for line in lines)
    still = [CoursePoint(second, 7, 0, 1, 1) for second in range(61)]
    assert curve_lines(still, 30, 2)[0].startswith("      0/s ")


# ---- pictures for the pages ----


def _text_of(picture: str) -> list[str]:
    """The words in a picture; fonts and colours may differ with the version of what draws it."""
    return html.unescape(re.sub(r"<(style|title)[^>]*>.*?</\1>|<[^>]+>", " ", picture, flags=re.S)).split()


@pytest.mark.parametrize(
    ("name", "size", "keys"),
    [("monitor", (80, 24), []), ("monitor-failed", (80, 24), ["3"]), ("monitor-large", (160, 44), [])],
)
def test_pictures_show_what_is_seen(
    name: str, size: tuple[int, int], keys: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With DISBATCH_PICTURES=1 they are drawn anew."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    drawn: list[str] = []

    async def history(scene: Scene) -> None:
        await scene.press(*keys)
        drawn.append(scene.app.export_screenshot(title="dbutil monitor", simplify=True))

    try:
        play(history, size)
    finally:
        monkeypatch.undo()
        time.tzset()
    picture = re.sub(r"@font-face \{.*?\}\s*", "", drawn[0], flags=re.S)
    path = PICTURES / f"{name}.svg"
    if os.environ.get("DISBATCH_PICTURES"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(picture)
    assert _text_of(path.read_text()) == _text_of(picture)
    assert path.stat().st_size < 100_000
