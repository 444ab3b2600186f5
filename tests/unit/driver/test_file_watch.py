"""driver/file_watch.py: what a run does when its files are in trouble."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import clock_loop

from disbatch.driver.file_watch import FileWatch, Timer
from disbatch.driver.holds import Holds, Reason
from disbatch.rundir.paths import RunFiles
from disbatch.wire.renamed_files import Sight


class Bench:
    """The files of a run, without a file."""

    def __init__(self, files: RunFiles) -> None:
        self.said: list[str] = []
        self.followed: list[int] = []
        self.holds = Holds(lambda event: None, lambda: None)
        settings: Any = SimpleNamespace(
            claimed=SimpleNamespace(files=files, status_descriptor=7), script=lambda files: None, makers={}
        )
        others: Any = SimpleNamespace(
            add=lambda line: True,
            is_taken_over=lambda: False,
            is_gone=True,
            is_continued=lambda: True,
            follow=self.followed.append,
        )
        self.watch = FileWatch(
            *(cast(Any, None), settings, others, 0.0),
            journal=others,
            addresses=others,
            holds=self.holds,
            record=others,
            result_feed=others,
            collector=others,
            notify_user=self.said.append,
        )


def bench(tmp_path: Path) -> Bench:
    return Bench(RunFiles(tmp_path / "P", tmp_path / "P.log"))


def test_nothing_starts_while_the_status_file_cannot_be_written(tmp_path: Path) -> None:
    one = bench(tmp_path)
    one.watch.trouble(OSError(28, "No space left on device"))
    assert Reason.DISK in one.holds
    one.watch.recovered()
    assert Reason.DISK not in one.holds
    assert one.said == [
        f"{one.watch.names.status}: No space left on device; no task starts until it can be written",
        "the status file can be written again; going on",
    ]


def test_a_status_file_with_another_name_is_followed(tmp_path: Path) -> None:
    one = bench(tmp_path)
    one.watch.status_renamed(Sight.ANOTHER, tmp_path / "other")
    assert (one.followed, one.watch.is_damaged) == ([7], False)
    assert one.watch.names.status == tmp_path / "other"


def test_a_status_file_that_was_written_over_is_damaged(tmp_path: Path) -> None:
    one = bench(tmp_path)
    one.watch.status_renamed(Sight.OVERWRITTEN, tmp_path / "other")
    assert (one.followed, one.watch.is_damaged) == ([], True)


def test_a_driver_that_took_the_run_over_may_have_ended_it(tmp_path: Path) -> None:
    """Then the run file is gone, and the status file is continued."""
    assert bench(tmp_path).watch.is_taken_over()


def test_a_timer_calls_until_it_is_closed() -> None:
    async def course() -> list[float]:
        loop, times = asyncio.get_running_loop(), []
        timer = Timer(loop, 5.0, lambda: times.append(loop.time()))
        timer.start()
        await asyncio.sleep(12)
        timer.close()
        await asyncio.sleep(12)
        return times

    assert clock_loop.run(course()) == [5.0, 10.0]
