"""Show a run as a progress line on a terminal, or as plain lines elsewhere.

The progress line is at the bottom of the terminal and is redrawn a few times a second; less often, and in the
end hardly ever, while nothing on it changes: a run may wait for engines for days. Plain lines, for logs and
pipes, report important events at once, and the progress every 30 s at first, then less often.

rich is imported when the line is first drawn, so that a run of half a second never pays for it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

from disbatch.driver.settings import Observer
from disbatch.model.text import count, per_second, printable, whole_seconds
from disbatch.model.view import RunView
from disbatch.watch.terminal import columns_of

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

LINES_INTERVAL = 30.0
LONGEST_INTERVAL = 600.0
SHARE = 1 / 20
"""Of the time that the run has taken so far: after an hour, a line every three minutes."""


def _time_left(view: RunView) -> str:
    """`1:12 left`; "" if that cannot be said, as in a run that is held up, has no slots, or is ending."""
    if view.remaining is None or not (view.rate and view.slots) or view.notice:
        return ""
    return f"{whole_seconds(view.remaining)} left"


def progress_words(view: RunView) -> str:
    """`120 of 1,000 done, 3 failed, 8 running, 12.3/s, 1:12 left`."""
    total = "" if view.total is None else f" of {count(view.total)}"
    words = [f"{count(view.finished)}{total} done"]
    if view.failed > view.cancelled:
        words.append(f"{count(view.failed - view.cancelled)} failed")
    if view.cancelled:
        words.append(f"{count(view.cancelled)} cancelled")
    words.append(f"{count(view.running)} running")
    words += [per_second(view.rate) if view.rate else "", _time_left(view), view.notice]
    return ", ".join(filter(None, words))


def pause_after(seconds: float, interval: float) -> float:
    """Seconds to the next line of a run that has taken `seconds`; never less than `interval`."""
    return max(interval, min(LONGEST_INTERVAL, SHARE * seconds))


class PlainLines:
    """Writes to `stream`, at first every `interval` seconds."""

    def __init__(self, stream: TextIO, interval: float = LINES_INTERVAL) -> None:
        self._stream = stream
        self._interval = interval
        self._timer: asyncio.TimerHandle | None = None

    def start(self, view: Callable[[], RunView]) -> None:
        """The run begins."""
        self._view = view
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(self._interval, self._show)

    def _show(self) -> None:
        view = self._view()
        self.say(f"{whole_seconds(view.seconds)}: {progress_words(view)}")
        self._timer = self._loop.call_later(pause_after(view.seconds, self._interval), self._show)

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
"""The most intervals between two draws while nothing changes."""
BAR_WIDTH = 24


class ProgressLine:
    """Draws on `stream`, a terminal."""

    def __init__(self, stream: TextIO, interval: float = INTERVAL) -> None:
        self._stream = stream
        self._shortest = interval
        self._live: Live | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._interval = interval
        self._drawn: tuple[object, ...] = ()

    def start(self, view: Callable[[], RunView]) -> None:
        """The run begins."""
        self._view = view
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(FIRST, self._draw)

    def _draw(self) -> None:
        view = self._view()
        columns = columns_of(self._stream)
        shown = _shown(view, columns)
        if view.notice and shown == self._drawn:
            self._interval = min(2 * self._interval, RESTING * self._shortest)
        else:
            self._interval, self._drawn = self._shortest, shown
            self._redraw(view, columns)
        self._timer = self._loop.call_later(self._interval, self._draw)

    def _redraw(self, view: RunView, columns: int) -> None:
        if self._live is None:
            from rich.console import Console
            from rich.live import Live

            console = Console(file=self._stream, highlight=False, soft_wrap=False)
            self._live = Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False)
            self._live.start()
        # Asked of the terminal each time: it may be resized, and COLUMNS may be another terminal's.
        if columns:
            self._live.console.width = columns
        self._live.update(line(view, self._live.console.width), refresh=True)

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


def _shown(view: RunView, columns: int) -> tuple[object, ...]:
    """Everything in the line that may change while there is a notice, which leaves no room for the time."""
    return (
        *(view.done, view.skipped, view.total, view.failed, view.cancelled),
        *(view.running, view.notice, columns),
    )


def line(view: RunView, width: int) -> Table:
    """The progress as something that rich draws in one line of `width` columns."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    finished, total = view.finished, view.total
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(count(finished), "bold green")
    text.append(f" of {count(total)} done" if total is not None else " done")
    for number, word, style in (
        (view.failed - view.cancelled, "failed", "bold red"),
        (view.cancelled, "cancelled", "yellow"),
    ):
        if number:
            text.append("  ")
            text.append(f"{count(number)} {word}", style)
    text.append(f"  {count(view.running)} running")
    if view.rate and (view.running or not view.notice):
        text.append(f"  {per_second(view.rate)}", "cyan")
    if view.notice:
        text.append(f"  {printable(view.notice)}", "yellow")
    elif left := _time_left(view):
        text.append(f"  {left}")
    else:
        text.append(f"  {whole_seconds(view.seconds)}", "dim")
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
