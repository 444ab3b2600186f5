"""A run as one line at the bottom of a terminal, redrawn a few times a second; less often, and in the end
hardly ever looked at, while it shows nothing that moves: a run that waits for engines may do so for days.

rich is imported when the line is first drawn, so that a run of half a second never pays for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

from disbatch.model.snapshot import Snapshot
from disbatch.model.text import printable
from disbatch.watch.pace import Pace
from disbatch.watch.terminal import columns_of
from disbatch.watch.words import count, per_second, whole_seconds

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

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
