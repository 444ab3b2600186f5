"""The monitor application: follow a run, show it, and act on keys."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from functools import partial
from typing import ClassVar, Protocol

from rich.text import Text
from textual import events
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.geometry import Size
from textual.widgets import Input, Static

from disbatch.model.errors import SIGNAL_EXIT, DisbatchError
from disbatch.watch.monitor.dialogs import HELP, Panel, Question, details
from disbatch.watch.monitor.panes import (
    FAILED,
    KINDS,
    NODES,
    PANES,
    RUNNING,
    curve_lines,
    head_lines,
    words_line,
)
from disbatch.watch.monitor.table import Table
from disbatch.watch.run_state import OVER, Standing
from disbatch.wire.client_protocol import Verb
from disbatch.wire.verbs import Cancel, Drain, Finish, Pause, Stop, Unpause

TALL = 36
"""Lines of the terminal from which on more than one table is shown."""
WIDE = 150
"""Columns from which on these are shown side by side."""
KEYS = "d drain  s stop  p pause  c cancel  f finish  & filter  / search  ? help  q quit"
STAYING = ("launching", "starting", "active")
"""States of engines that are or will be there, and stay."""
PATIENCE = 10.0
"""Seconds that the driver has to answer a request."""


class Source(Protocol):
    """What `watch.status_client.StatusClient` offers."""

    async def next(self) -> Standing:
        """The state of the run, as soon as it is new."""

    async def ask(self, verb: Verb, patience: float) -> list[str]:
        """Send a request to the driver; returns what it did."""

    def close(self) -> None:
        """Stop following."""


class Monitor(App[None]):
    """Shows the states from `open_source()`, which is called on the application's own loop; draws at most
    once in so many seconds, and quits when `has_terminal()` is false."""

    ENABLE_COMMAND_PALETTE = False
    ALLOW_SELECT = False
    CSS = """
    Screen { background: ansi_default; color: ansi_default; layout: vertical; }
    Static { height: 1; width: 100%; background: ansi_default; }
    #words { color: ansi_yellow; display: none; }
    #curve { height: 3; color: ansi_cyan; }
    #tables { height: 1fr; layout: vertical; background: ansi_default; }
    Table { height: 1fr; width: 1fr; background: ansi_default; }
    #tables.grid { layout: grid; grid-size: 2 2; grid-gutter: 0 2; }
    #entry { display: none; height: 1; border: none; padding: 0; background: ansi_default; }
    #entry:focus { border: none; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(str(at), f"pane({at - 1})", pane.title, show=False) for at, pane in enumerate(PANES, 1)),
        Binding("tab", "turn(1)", "next", show=False, priority=True),
        Binding("shift+tab", "turn(-1)", "before", show=False, priority=True),
        Binding("o", "sort", "sort", show=False),
        Binding("O", "turn_sort", "sort the other way", show=False),
        Binding("slash", "enter('search')", "search", show=False),
        Binding("n", "seek(1)", "next", show=False),
        Binding("N", "seek(-1)", "before", show=False),
        Binding("ampersand", "enter('filter')", "filter", show=False),
        Binding("escape", "leave", "all", show=False),
        Binding("d", "drain", "drain", show=False),
        Binding("s", "stop", "stop", show=False),
        Binding("c", "cancel", "cancel", show=False),
        Binding("p", "pause", "pause", show=False),
        Binding("f", "finish", "finish", show=False),
        Binding("r", "draw", "draw", show=False),
        Binding("question_mark,h,f1", "help", "help", show=False),
        Binding("q,ctrl+c,ctrl+q", "quit", "quit", show=False, priority=False),
    ]

    def __init__(
        self,
        open_source: Callable[[], Source],
        *,
        interval: float = 1.0,
        has_terminal: Callable[[], bool] = lambda: True,
    ) -> None:
        super().__init__(ansi_color=True)
        self.animation_level = "none"
        self._open_source = open_source
        self._interval = interval
        self._has_terminal = has_terminal
        self._source: Source | None = None
        self._standing: Standing | None = None
        self._shown: dict[str, str] = {}
        self._draws = False
        self._drawn_at = 0.0
        self._active = 0
        self._entry = ""
        self._sought = ""
        self._message = ""
        self.trouble: Exception | None = None
        """The error that ended the monitor, if any."""

    def compose(self) -> ComposeResult:
        """The head, the curve, the tables, and a line for keys or for the user's input."""
        yield Static(id="head", markup=False)
        yield Static(id="tasks", markup=False)
        yield Static(id="words", markup=False)
        yield Static(id="curve", markup=False)
        yield Static(id="tabs", markup=False)
        with Container(id="tables"):
            for number, pane in enumerate(PANES, 1):
                yield Table(pane, number)
        yield Static(id="keys", markup=False)
        yield Input(id="entry", select_on_focus=False, compact=True)

    def on_mount(self) -> None:
        """Start."""
        self.query_one(Input).cursor_blink = False
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, partial(self.exit, return_code=SIGNAL_EXIT + number))
        self._lay_out()
        self._show("head", "waiting for the state of the run")
        self.run_worker(self._follow(), exit_on_error=True)

    # ---- states from the driver ----

    async def _follow(self) -> None:
        self._source = source = self._open_source()
        try:
            while self._standing is None or self._standing.state != OVER:
                self._standing = await source.next()
                self._draw_soon()
        except Exception as error:
            # The end of the monitor: its caller reports why.
            self.trouble = error
            self.exit()

    def _fatal_error(self) -> None:
        """An error of the program: the caller of the monitor reports it in one line."""
        self.trouble = self._exception
        self._close_messages_no_wait()

    def on_unmount(self) -> None:
        """Close the source."""
        if self._source is not None:
            self._source.close()

    def _draw_soon(self) -> None:
        """More frequent changes cannot be read. Receiving does not wait: the last message of a driver comes
        only once."""
        if self._draws:
            return
        wait = self._drawn_at + self._interval - time.monotonic()
        if wait > 0:
            self._draws = True
            self.set_timer(wait, self._draw_now)
        else:
            self._draw_now()

    def _draw_now(self) -> None:
        if not self._has_terminal():  # it was closed without notice
            self.exit()
            return
        self._draws, self._drawn_at = False, time.monotonic()
        self.draw_all()

    # ---- layout ----

    @property
    def table(self) -> Table:
        """The table that keys act on."""
        return self._tables[self._active]

    @property
    def _tables(self) -> list[Table]:
        return list(self.query(Table))

    def _lay_out(self, size: Size | None = None) -> None:
        """One table, two, or all, as there is room; `size` if that is not known yet."""
        width, height = size or self.size
        tall = height >= TALL
        grid = tall and width >= WIDE
        other = self._active or 1
        left_out = FAILED if self.table.pane is KINDS else KINDS  # there is room for four of the five
        for at, table in enumerate(self._tables):
            in_grid = grid and table.pane is not left_out
            table.display = in_grid or at == self._active or (tall and at in (0, other))
            table.titled = tall
        self.query_one("#tables").set_class(grid, "grid")
        self.query_one("#tabs").display = not tall
        self.query_one("#curve").styles.height = 8 if tall else 3 if height >= 20 else 0
        self.table.focus()

    def on_resize(self, event: events.Resize) -> None:
        """The terminal was resized."""
        self._lay_out(event.size)
        self.call_after_refresh(self.draw_all)

    def draw_all(self) -> None:
        """Show everything that is known."""
        standing, width = self._standing, self.size.width
        if standing is None:
            return
        head, tasks = head_lines(standing, width)
        self._show("head", head, "bold" if standing.is_heard else "bold reverse")
        self._show("tasks", tasks)
        words = words_line(standing, width)
        self.query_one("#words").display = bool(words)
        self._show("words", words)
        curve = self.query_one("#curve")
        view, height = standing.view, max(1, curve.size.height)
        self._show("curve", "\n".join(curve_lines(view.course, width, height, view.rate)))
        for table in self._tables:
            table.fill(table.pane.rows(standing.view), table.pane.total(standing.view))
        self._show_tabs()
        self._show_keys()

    def _show(self, name: str, words: str, style: str = "") -> None:
        if self._shown.get(name) != words + style:
            self._shown[name] = words + style
            self.query_one(f"#{name}", Static).update(Text(words, style, no_wrap=True, overflow="crop"))

    def _show_tabs(self) -> None:
        text = Text(no_wrap=True, overflow="crop")
        for at, table in enumerate(self._tables):
            text.append(f" {table.title} ", "reverse" if at == self._active else "")
            text.append("  ")
        if self._shown.get("tabs") != text.markup:
            self._shown["tabs"] = text.markup
            self.query_one("#tabs", Static).update(text)

    def _show_keys(self) -> None:
        self._show("keys", self._message or KEYS, "bold" if self._message else "dim")

    def show_message(self, words: str) -> None:
        """Show this to the user until the next key."""
        self._message = words
        self._show_keys()

    def on_key(self, event: events.Key) -> None:
        """The message was read."""
        if self._message:
            self._message = ""
            self._show_keys()

    # ---- navigation ----

    def action_pane(self, at: int) -> None:
        """Show that table."""
        self._active = at
        self._lay_out()
        self.call_after_refresh(self.draw_all)

    def action_turn(self, step: int) -> None:
        """Show the next table."""
        if not self._entry:
            self.action_pane((self._active + step) % len(PANES))

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        """The user clicked at a table."""
        if isinstance(event.widget, Table):
            self._active = event.widget.number - 1
            self._show_tabs()

    def action_sort(self) -> None:
        """Sort by the next column."""
        self.table.sort_next()

    def action_turn_sort(self) -> None:
        """Reverse the order."""
        self.table.turn()

    def action_draw(self) -> None:
        """Redraw: another program wrote to the terminal."""
        self.refresh(repaint=True, layout=True)
        self.screen.refresh(repaint=True, layout=True)

    def action_help(self) -> None:
        """Show the keys."""
        self.push_screen(Panel("Help", HELP))

    def on_table_opened(self, message: Table.Opened) -> None:
        """Show a row in full."""
        self.push_screen(Panel("Details", details(message.row.details)))

    def action_enter(self, what: str) -> None:
        """The user types a text to filter by, or to search for."""
        self._entry = what
        entry = self.query_one(Input)
        entry.value = self.table.wanted if what == "filter" else ""
        entry.placeholder = f"{what}: a text, then Enter"
        self.query_one("#keys").display = False
        entry.display = True
        entry.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filter while the user types."""
        if self._entry == "filter":
            self.table.wanted = event.value
            self.table.order()
            self._show_tabs()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """The user has finished typing."""
        if self._entry == "search":
            self._sought = event.value
        searches = self._entry == "search"
        self._end_entry()
        if searches:
            self.action_seek(1)

    def _end_entry(self) -> None:
        self._entry = ""
        self.query_one(Input).display = False
        self.query_one("#keys").display = True
        self.table.focus()

    def action_leave(self) -> None:
        """Discard the input, or remove the filter."""
        if self._entry != "search":
            self.table.wanted = ""
            self.table.order()
            self._show_tabs()
        if self._entry:
            self._end_entry()

    def action_seek(self, step: int) -> None:
        """Go to the next matching row."""
        if self._sought and not self.table.seek(self._sought, step):
            self.show_message(f"no row contains {self._sought!r}")

    # ---- requests to the driver ----

    def action_drain(self) -> None:
        """Drain the node."""
        self._let_go("Drain", "It gets no new tasks, and leaves when its tasks have ended.", Drain)

    def action_stop(self) -> None:
        """Stop the node."""
        self._let_go("Stop", "Its tasks are ended, and run again elsewhere.", Stop)

    def _let_go(self, title: str, what: str, verb: Callable[[list[str]], Drain | Stop]) -> None:
        row = self.table.row
        if self.table.pane is not NODES:
            self.show_message("first select a node: key 1 shows the nodes")
        elif row is None or not row.engine or self._standing is None:
            self.show_message("no node is selected that could leave")
        else:
            rows = self._standing.view.engines
            others = [each for each in rows if each.state in STAYING and each.engine != row.engine]
            last = "" if others else "\n\nThis is the last node: the run ends with it."
            self._confirm(title, f"{title} {row.cells[0]}? {what}{last}", verb([row.engine]))

    def action_cancel(self) -> None:
        """Cancel the task."""
        row = self.table.row
        if self.table.pane is not RUNNING or row is None:
            self.show_message("first select a running task: key 2 shows them")
            return
        asked = f"Cancel task {row.task}? It is ended, and not run again."
        self._confirm("Cancel", asked, Cancel([(row.task, row.task)]))

    def action_pause(self) -> None:
        """Pause the run, or resume it."""
        if self._standing is not None and self._standing.view.paused:
            self._confirm("Resume", "Resume the run? Tasks start again.", Unpause())
        else:
            self._confirm("Pause", "Pause the run? No more tasks start; running ones finish.", Pause())

    def action_finish(self) -> None:
        """Finish the run."""
        asked = "Finish the run? Running tasks are ended; `disbatch -r` can run them and the rest later."
        self._confirm("Finish", asked, Finish())

    def _confirm(self, title: str, asked: str, verb: Verb) -> None:
        if self._standing is None or self._standing.state == OVER:
            self.show_message("the run is over")
        elif not self._standing.is_heard:
            self.show_message("the driver does not answer: nothing can be requested now")
        else:
            self.push_screen(Question(title, asked), partial(self._answered, verb))

    def _answered(self, verb: Verb, yes: bool | None) -> None:
        if yes:
            self.show_message("asking the driver ...")
            self.run_worker(self._ask(verb), exit_on_error=False)

    async def _ask(self, verb: Verb) -> None:
        assert self._source is not None
        try:
            self.show_message("; ".join(await self._source.ask(verb, PATIENCE)))
        except DisbatchError as error:
            self.show_message(str(error))
