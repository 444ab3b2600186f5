"""A run as plain lines, for logs and pipes: what matters at once, and how it goes: every 30 s at first,
then less often, for a log that is read in the morning."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TextIO

from disbatch.model.snapshot import Snapshot
from disbatch.model.text import printable
from disbatch.watch.pace import Pace
from disbatch.watch.words import count, per_second, whole_seconds

INTERVAL = 30.0
LONGEST_INTERVAL = 600.0
SHARE = 1 / 20
"""Of the time that the run has taken so far: after an hour, a line every three minutes."""


def progress_words(snapshot: Snapshot, pace: Pace) -> str:
    """`120 of 1,000 done, 3 failed, 8 running, 12.3/s, 1:12 left`."""
    done = snapshot.done + snapshot.skipped
    total = "" if snapshot.total is None else f" of {count(snapshot.total)}"
    words = [f"{count(done)}{total} done"]
    if snapshot.failed > snapshot.cancelled:
        words.append(f"{count(snapshot.failed - snapshot.cancelled)} failed")
    if snapshot.cancelled:
        words.append(f"{count(snapshot.cancelled)} cancelled")
    words.append(f"{count(snapshot.running)} running")
    if pace.rate is not None:
        words.append(per_second(pace.rate))
    remaining = pace.remaining(snapshot)
    if remaining is not None:
        words.append(f"{whole_seconds(remaining)} left")
    if snapshot.notice:
        words.append(snapshot.notice)
    return ", ".join(words)


def pause_after(seconds: float, interval: float) -> float:
    """Seconds to the next line of a run that has taken `seconds`; never less than `interval`."""
    return max(interval, min(LONGEST_INTERVAL, SHARE * seconds))


class PlainLines:
    """Writes to `stream`, at first every `interval` seconds."""

    def __init__(self, stream: TextIO, interval: float = INTERVAL) -> None:
        self._stream = stream
        self._interval = interval
        self._pace = Pace()
        self._timer: asyncio.TimerHandle | None = None

    def start(self, snapshot: Callable[[], Snapshot]) -> None:
        """The run begins."""
        self._snapshot = snapshot
        self._loop = asyncio.get_running_loop()
        self._pace.update(snapshot())
        self._timer = self._loop.call_later(self._interval, self._show)

    def _show(self) -> None:
        snapshot = self._snapshot()
        self._pace.update(snapshot)
        self.say(f"{whole_seconds(snapshot.seconds)}: {progress_words(snapshot, self._pace)}")
        self._timer = self._loop.call_later(pause_after(snapshot.seconds, self._interval), self._show)

    def say(self, text: str) -> None:
        """One line."""
        print(f"disbatch: {printable(text)}", file=self._stream, flush=True)

    def stop(self) -> None:
        """The run is over."""
        if self._timer is not None:
            self._timer.cancel()
