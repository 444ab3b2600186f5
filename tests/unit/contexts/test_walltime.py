"""The end of an allocation: when people are warned, when nothing more starts, and when what runs is ended."""

from __future__ import annotations

import asyncio

import pytest

from disbatch.contexts.hosts import Hosts
from disbatch.contexts.pool import Pool
from disbatch.contexts.walltime import TIME_IS_UP, TimeLimit, clock_time, duration, grace_within
from disbatch.plan.events import Drain

NOON = 1_700_000_000.0


class World:
    """A clock that moves only when somebody sleeps; Slurm answers `ends` in turn, then the last one again."""

    def __init__(
        self,
        left: float,
        *ends: float | None,
        margin: float | None = None,
        slow: float = 0,
        recheck: float = 1e9,
    ) -> None:
        self.now = NOON
        self.events: list[tuple[float, str]] = []
        self.ends = list(ends)
        self.slow = slow
        job = Hosts()
        job.end = NOON + left
        self.limit = TimeLimit(
            Pool(context=job, time_limit_margin=margin),
            5.0,
            notify_user=lambda text: self.note("say"),
            handle_event=lambda event: self.note("last start" if isinstance(event, Drain) else "last run"),
            engines=lambda: ["a"],
            launches_end=lambda: None,
            end_is_near=lambda grace: None,
            clock=lambda: self.now,
            sleep=self.sleep,
            recheck=recheck,
        )
        self.limit._ask = self.ask

    def note(self, what: str) -> None:
        self.events.append((self.now - NOON, what))

    async def sleep(self, seconds: float) -> None:
        assert 0 < seconds <= 60
        self.now += seconds

    async def ask(self, timeout: float) -> float | None:
        assert 0 < timeout <= 10
        self.note("ask")
        self.now += min(self.slow, timeout)
        end = self.ends.pop(0) if len(self.ends) > 1 else self.ends[0] if self.ends else None
        return None if end is None else NOON + end

    def watch(self) -> list[tuple[float, str]]:
        asyncio.run(self.limit.watch())
        return self.events


@pytest.mark.parametrize(
    ("world", "events"),
    [
        # ten minutes before the end of a day, and ten seconds before that moment Slurm is asked
        (
            World(86400),
            [
                *((85790, "ask"), (85800, "say")),
                *((86380, "ask"), (86390, "last start"), (86390, "last run")),
            ],
        ),
        # a tenth of an hour
        (
            World(3600),
            [(3230, "ask"), (3240, "say"), (3580, "ask"), (3590, "last start"), (3590, "last run")],
        ),
        # half a minute before the last start of a minute
        (World(60), [(10, "ask"), (20, "say"), (40, "ask"), (50, "last start"), (50, "last run")]),
        # at once, if less is left
        (World(30), [(0, "say"), (10, "ask"), (20, "last start"), (20, "last run")]),
        (World(10.5), [(0, "say"), (0.5, "last start"), (0.5, "last run")]),
        # a longer margin
        (
            World(3600, margin=300),
            [
                *((3230, "ask"), (3240, "say")),
                *((3290, "ask"), (3300, "say"), (3300, "last start")),
                *((3580, "ask"), (3590, "last run")),
            ],
        ),
        # a shorter one than it takes to end what runs does not help
        (World(60, margin=1), [(10, "ask"), (20, "say"), (40, "ask"), (50, "last start"), (50, "last run")]),
        # Slurm takes its time, or does not answer at all
        (
            World(60, slow=20),
            [(10, "ask"), (20, "say"), (40, "ask"), (50, "last start"), (50, "last run")],
        ),
        # extended just before the warning, and again just before the end
        (
            World(60, 160, 160, 260),
            [
                *((10, "ask"), (110, "ask"), (120, "say")),
                *((140, "ask"), (240, "ask"), (250, "last start"), (250, "last run")),
            ],
        ),
        # shortened
        (World(3600, 3235), [(3230, "ask"), (3230, "say"), (3230, "last start"), (3230, "last run")]),
    ],
)
def test_course(world: World, events: list[tuple[float, str]]) -> None:
    course = world.watch()
    assert [what for _, what in course] == [what for _, what in events]
    assert [when for when, _ in course] == pytest.approx([when for when, _ in events])


def test_an_end_that_comes_nearer_is_noticed_within_the_recheck() -> None:
    events = World(3600, 700, recheck=600).watch()
    assert events[:2] == [(600, "ask"), (600, "say")]
    assert events[-1] == (690, "last run")


def test_a_machine_that_slept_is_late_but_not_for_ever() -> None:
    world = World(3600)

    async def long_sleep(seconds: float) -> None:
        world.now += 4000

    world.limit._sleep = long_sleep
    assert [what for _, what in world.watch()] == ["say", "last start", "last run"]


@pytest.mark.parametrize(
    ("left", "margin", "words"),
    [
        (11, None, ""),
        (10, None, "the allocation ends in 10 s: too late to start tasks"),
        (
            200,
            300,
            "the allocation ends in 3 min 20 s: too late to start tasks (--time-limit-margin 300)",
        ),
        (0, None, TIME_IS_UP),
        (-5, None, TIME_IS_UP),
    ],
)
def test_too_late(left: float, margin: float | None, words: str) -> None:
    assert World(left, margin=margin).limit.too_late == words


def test_words() -> None:
    said: list[str] = []
    world = World(3600, margin=300)
    world.limit._notify_user = said.append
    world.watch()
    end, ended, last = (clock_time(NOON + t, NOON) for t in (3600, 3590, 3300))
    assert said == [
        f"the allocation ends at {end}, in 6 min: no task starts after {last}, "
        f"and what still runs at {ended} is ended, and can be resumed",
        "the allocation ends in 5 min: no more tasks start, and those that run have 4 min 50 s",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (40.4, "40 s"), (60, "1 min"), (570, "9 min 30 s"), (7500, "2 h 5 min"), (7200, "2 h")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("kill_wait", "grace", "result"),
    [(None, 5, 5), (30, 5, 5), (30, 60, 28.5), (3, 5, 1.5), (1, 5, 0.5), (0, 5, 0.5), (3, 0.2, 0.2)],
)
def test_grace_within(kill_wait: float | None, grace: float, result: float) -> None:
    assert grace_within(kill_wait, grace) == result
