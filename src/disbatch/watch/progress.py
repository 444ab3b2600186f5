"""Show a run as a progress line on a terminal, or as plain lines elsewhere, with its rate and remaining time.

The progress line is at the bottom of the terminal and is redrawn a few times a second; less often, and in the
end hardly ever, while nothing on it changes: a run may wait for engines for days. Plain lines, for logs and
pipes, report important events at once, and the progress every 30 s at first, then less often.

rich is imported when the line is first drawn, so that a run of half a second never pays for it.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

from disbatch.driver.settings import Observer
from disbatch.model.text import count, per_second, printable, whole_seconds
from disbatch.model.view import Snapshot
from disbatch.watch.terminal import columns_of

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

WINDOW = 60.0
"""Seconds that the rate looks back."""
MOST_POINTS = 600


class Pace:
    """Completions over the last minute."""

    def __init__(self) -> None:
        self._points: deque[tuple[float, int]] = deque(maxlen=MOST_POINTS)

    def update(self, snapshot: Snapshot) -> None:
        """The run as it stands now."""
        points = self._points
        points.append((snapshot.seconds, snapshot.done - snapshot.inherited))
        while len(points) > 2 and points[0][0] < snapshot.seconds - WINDOW:
            points.popleft()

    @property
    def rate(self) -> float | None:
        """Tasks a second; None while nothing can be said."""
        if len(self._points) < 2:
            return None
        (before, was), (now, done) = self._points[0], self._points[-1]
        return (done - was) / (now - before) if now > before and done > was else None

    def remaining(self, snapshot: Snapshot) -> float | None:
        """Seconds until all is done at this rate; None if that cannot be said, as in a run that is held up or
        ending."""
        if snapshot.total is None or not snapshot.slots or snapshot.notice:
            return None
        left = max(0, snapshot.total - snapshot.done - snapshot.skipped)
        rate = self.rate
        return left / rate if rate else None


LINES_INTERVAL = 30.0
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

    def __init__(self, stream: TextIO, interval: float = LINES_INTERVAL) -> None:
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


FIRST = 0.4
INTERVAL = 0.25
"""Seconds."""
RESTING = 16
"""Intervals between two looks at what does not move, at most."""
BAR_WIDTH = 24


class ProgressLine:
    """Draws on `stream`, a terminal."""

    def __init__(self, stream: TextIO, interval: float = INTERVAL) -> None:
        self._stream = stream
        self._shortest = interval
        self._pace = Pace()
        self._live: Live | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._interval = interval
        self._drawn: tuple[object, ...] = ()

    def start(self, snapshot: Callable[[], Snapshot]) -> None:
        """The run begins."""
        self._snapshot = snapshot
        self._loop = asyncio.get_running_loop()
        self._pace.update(snapshot())
        self._timer = self._loop.call_later(FIRST, self._draw)

    def _draw(self) -> None:
        snapshot = self._snapshot()
        columns = columns_of(self._stream)
        shown = _shown(snapshot, columns)
        if snapshot.notice and shown == self._drawn:
            self._interval = min(2 * self._interval, RESTING * self._shortest)
        else:
            self._interval, self._drawn = self._shortest, shown
            self._pace.update(snapshot)
            self._redraw(snapshot, columns)
        self._timer = self._loop.call_later(self._interval, self._draw)

    def _redraw(self, snapshot: Snapshot, columns: int) -> None:
        if self._live is None:
            from rich.console import Console
            from rich.live import Live

            console = Console(file=self._stream, highlight=False, soft_wrap=False)
            self._live = Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False)
            self._live.start()
        # Asked of the terminal each time: it may be resized, and COLUMNS may be another terminal's.
        if columns:
            self._live.console.width = columns
        self._live.update(line(snapshot, self._pace, self._live.console.width), refresh=True)

    def say(self, text: str) -> None:
        """One line above the progress."""
        if self._live is None:
            print(f"disbatch: {printable(text)}", file=self._stream, flush=True)
        else:
            self._live.console.print(f"disbatch: {printable(text)}", markup=False, soft_wrap=True)
        if self._timer is not None and self._interval > self._shortest:  # something happened
            self._timer.cancel()
            self._interval = self._shortest
            self._timer = self._loop.call_later(self._interval, self._draw)

    def stop(self) -> None:
        """The run is over; the line goes away."""
        if self._timer is not None:
            self._timer.cancel()
        if self._live is not None:
            self._live.stop()
            self._live = None


def _shown(snapshot: Snapshot, columns: int) -> tuple[object, ...]:
    """All that moves in a line with a notice, which leaves no place for the time."""
    return (
        *(snapshot.done, snapshot.skipped, snapshot.total, snapshot.failed, snapshot.cancelled),
        *(snapshot.running, snapshot.notice, columns),
    )


def line(snapshot: Snapshot, pace: Pace, width: int) -> Table:
    """The progress as something that rich draws in one line of `width` columns."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    finished = snapshot.done + snapshot.skipped
    total = snapshot.total
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(count(finished), "bold green")
    text.append(f" of {count(total)} done" if total is not None else " done")
    for number, word, style in (
        (snapshot.failed - snapshot.cancelled, "failed", "bold red"),
        (snapshot.cancelled, "cancelled", "yellow"),
    ):
        if number:
            text.append("  ")
            text.append(f"{count(number)} {word}", style)
    text.append(f"  {count(snapshot.running)} running")
    if pace.rate is not None and (snapshot.running or not snapshot.notice):
        text.append(f"  {per_second(pace.rate)}", "cyan")
    remaining = pace.remaining(snapshot)
    if snapshot.notice:
        text.append(f"  {printable(snapshot.notice)}", "yellow")
    elif remaining is not None:
        text.append(f"  {whole_seconds(remaining)} left")
    else:
        text.append(f"  {whole_seconds(snapshot.seconds)}", "dim")
    grid = Table.grid(padding=(0, 1))
    if width >= 60 and total:
        grid.add_row(ProgressBar(total=total, completed=finished, width=min(BAR_WIDTH, width // 4)), text)
    else:
        grid.add_row(text)
    return grid


def choose_observer(stream: TextIO) -> Observer:
    """The observer that fits the stream (stderr)."""
    if stream.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        return ProgressLine(stream)
    return PlainLines(stream)
