"""Runs that never were, as somebody who watches them would see them."""

from __future__ import annotations

from collections.abc import Iterable

from disbatch.model.view import CoursePoint, EngineRow, FailureRow, LogRow, RunningRow, RunView

STARTED = 1_772_360_100.0


def engine(number: int, slots: int = 16, running: int | None = None, state: str = "active") -> EngineRow:
    """Node `number` of a cluster."""
    busy = slots if running is None else running
    return EngineRow(
        engine=f"e{number}", node=f"node{number:03d}", rank=number, label="", state=state, slots=slots,
        running=busy, waiting=0, done=120 + number, failed=int(number % 7 == 3), rate=slots / 8, heard=1.0,
        load=busy * 0.97, memory_used=(40 + number % 30) << 30, memory_total=128 << 30,
    )  # fmt: skip


def failure(number: int, command: str = "./simulate --seed {id} > out/{id}.txt") -> FailureRow:
    id = number * 37 + 5
    snippet = "simulate: did not converge after 10000 steps"
    shown = command.format(id=id)
    return FailureRow(number, id, id + 1, f"node{number % 80:03d}", 3, 61.2, STARTED + id, snippet, shown)


def running(number: int) -> RunningRow:
    command = f"./simulate --seed {9000 + number} > out/{9000 + number}.txt"
    return RunningRow(
        9000 + number, 9001 + number, f"e{number % 80}", f"node{number % 80:03d}", 340.0 - number, command
    )


def course(seconds: float, slots: int, rate: float) -> list[CoursePoint]:
    """It starts slowly, and has a barrier in its middle."""
    points = []
    done = 0.0
    for step in range(300):
        share = min(1.0, step / 12) * (0.25 if 150 < step < 162 else 1.0)
        done += rate * share * seconds / 300
        points.append(CoursePoint(step * seconds / 300, int(done), 0, int(slots * share), slots))
    return points


def view(engines: Iterable[EngineRow], number: int = 1, **given: object) -> RunView:
    """A run on these."""
    rows = list(engines)
    slots, busy = sum(row.slots for row in rows), sum(row.running for row in rows)
    usual: dict[str, object] = {
        "number": number, "driver": 0, "jobid": "4711", "name": "Simulations", "time": STARTED + 900,
        "started": STARTED, "seconds": 900.0 + number, "mode": "running", "notice": "", "paused": False,
        "barrier": None, "total": 25_000, "done": 9_000 + number, "failed": 12, "skipped": 0,
        "skipped_failed": 0, "running": busy, "waiting": 700, "lost": 0, "retried": 0, "slots": slots,
        "rate": 10.5, "remaining": 1_524.0, "engines_count": len(rows), "engines": rows,
        "running_tasks": [running(n) for n in range(8)], "failures": [failure(n) for n in range(1, 13)],
        "log": [LogRow(1, STARTED + 700, "node003: was not heard for 15 s; its tasks run again elsewhere")],
        "course": course(900.0, slots, 9_000 / 855.75) if number == 1 else [],
    }  # fmt: skip
    return RunView(**{**usual, **given})  # type: ignore[arg-type]
