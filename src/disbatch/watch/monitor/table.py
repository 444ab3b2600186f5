"""A sorted, filtered, searchable table on a terminal. Unchanged lines are not drawn again, to spare slow
connections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from disbatch.watch.monitor.panes import BAD, DIM, Column, Pane, Row

LEAST = 12
"""The least width of the last column."""
WHEEL = 3
STYLES = {BAD: Style(color="red", bold=True), DIM: Style(dim=True), "": Style()}
HEADER = Style(bold=True, underline=True)
CURSOR = Style(reverse=True)


class Table(Widget, can_focus=True):
    """The table of one pane. `fill` sets its rows."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "up", show=False),
        Binding("down,j", "move(1)", "down", show=False),
        Binding("pageup", "page(-1)", "page up", show=False),
        Binding("pagedown,space", "page(1)", "page down", show=False),
        Binding("home,g", "move(-1000000)", "first", show=False),
        Binding("end,G", "move(1000000)", "last", show=False),
        Binding("enter", "open", "details", show=False),
    ]

    class Opened(Message):
        """The user wants to see this row in full."""

        def __init__(self, row: Row) -> None:
            super().__init__()
            self.row = row

    def __init__(self, pane: Pane, number: int) -> None:
        super().__init__(id=pane.title.lower())
        self.pane = pane
        self.number = number
        self.wanted = ""
        """Only rows that contain this text are shown."""
        self.sort, self.down = pane.sort, pane.down
        self.titled = False
        """The first line is a title, since this is not the only visible table."""
        self._all: list[Row] = []
        self._total = 0
        self._rows: list[Row] = []
        self._cursor = 0
        self._key = ""
        self._top = 0
        self._drawn: list[Strip] = []

    # ---- content ----

    def fill(self, rows: list[Row], total: int) -> None:
        """Set the rows, and the number of all rows."""
        self._all, self._total = rows, total
        self.order()

    def order(self) -> None:
        """Sort and filter again; the cursor stays on its row."""
        wanted = self.wanted.lower()
        rows = [row for row in self._all if not wanted or _holds(row, wanted)]
        rows.sort(key=lambda row: _sortable(row.values[self.sort]), reverse=self.down)
        if self.pane.title == "Nodes":
            rows.sort(key=lambda row: row.style == DIM)
        self._rows = rows
        at = next((at for at, row in enumerate(rows) if row.key == self._key), None)
        # With the cursor on the first row, the user wants to see the row that is first now.
        self._put(self._cursor if at is None or self._cursor == 0 else at)

    def _put(self, at: int) -> None:
        self._cursor = max(0, min(at, len(self._rows) - 1))
        self._key = self._rows[self._cursor].key if self._rows else ""
        room = self.room
        self._top = min(self._top, self._cursor, max(0, len(self._rows) - room))
        self._top = max(self._top, self._cursor - room + 1)
        self.redraw()

    @property
    def room(self) -> int:
        """The number of rows that fit."""
        return max(1, self.size.height - 1 - self.titled)

    @property
    def row(self) -> Row | None:
        """The row under the cursor."""
        return self._rows[self._cursor] if self._rows else None

    @property
    def title(self) -> str:
        """The table's name, how many of how many rows it shows, and its order."""
        shown = f"{len(self._rows):,}" if self.wanted else f"{self._total:,}"
        words = f"{self.number} {self.pane.title} {shown}"
        if self.wanted:
            words += f" of {self._total:,} with {self.wanted!r}"
        return words

    def sort_next(self) -> None:
        """Sort by the next column."""
        self.sort = (self.sort + 1) % len(self.pane.columns)
        self.down = self.pane.columns[self.sort].number
        self.order()

    def turn(self) -> None:
        """Reverse the order."""
        self.down = not self.down
        self.order()

    def seek(self, words: str, step: int) -> bool:
        """Go to the next row (with a `step` of -1, the previous one) that contains this text; False if there
        is none."""
        count, words = len(self._rows), words.lower()
        for nth in range(1, count + 1):
            at = (self._cursor + step * nth) % count
            if _holds(self._rows[at], words):
                self._put(at)
                return True
        return False

    # ---- keys and mouse ----

    def action_move(self, step: int) -> None:
        """Move so many rows down."""
        self._put(self._cursor + step)

    def action_page(self, pages: int) -> None:
        """Move so many pages down."""
        self._put(self._cursor + pages * self.room)

    def action_open(self) -> None:
        """Show the row in full."""
        if self.row is not None:
            self.post_message(self.Opened(self.row))

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """Move with the wheel."""
        self._put(self._cursor + WHEEL)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """Move with the wheel."""
        self._put(self._cursor - WHEEL)

    def on_click(self, event: events.Click) -> None:
        """Move to the row; a second click opens it."""
        at = self._top + event.y - 1 - self.titled
        if 0 <= at < len(self._rows):
            again = at == self._cursor and event.chain > 1
            self._put(at)
            if again:
                self.action_open()

    def on_resize(self) -> None:
        """Every line has changed."""
        self._drawn = []
        self._put(self._cursor)

    def on_focus(self) -> None:
        """Draw the cursor."""
        self.redraw()

    def on_blur(self) -> None:
        """Hide the cursor."""
        self.redraw()

    # ---- drawing ----

    def redraw(self) -> None:
        """Draw the lines that have changed."""
        strips = self._strips()
        if len(strips) != len(self._drawn):
            self._drawn = strips
            self.refresh()
            return
        changed = [y for y, (old, new) in enumerate(zip(self._drawn, strips, strict=True)) if old != new]
        self._drawn = strips
        if changed:
            self.refresh(*(Region(0, y, self.size.width, 1) for y in changed))

    def render_line(self, y: int) -> Strip:
        """One line that `redraw` has made."""
        if y < len(self._drawn):
            return self._drawn[y]
        return Strip.blank(self.size.width)

    def _strips(self) -> list[Strip]:
        width, height = self.size
        if width < 2 or height < 1:
            return []
        columns = self.pane.columns
        shown = self._rows[self._top : self._top + self.room]
        header = [self._header(at) for at in range(len(columns))]
        fits, widths = _fit(columns, [header, *(row.cells for row in shown)], width)
        lines = [self._line(header, fits, widths, HEADER)]
        for at, row in enumerate(shown, self._top):
            style = STYLES[row.style]
            if at == self._cursor and self.has_focus:
                style += CURSOR
            lines.append(self._line(row.cells, fits, widths, style))
        if not self._rows:
            said = f"no row contains {self.wanted!r}" if self.wanted else self.pane.empty
            lines.append(_strip(said, width, STYLES[DIM]))
        if self.titled:
            lines.insert(0, _strip(f"─ {self.title} {'─' * width}", width, Style(bold=self.has_focus)))
        return [*lines, *[Strip.blank(width)] * (height - len(lines))][:height]

    def _header(self, at: int) -> str:
        arrow = "↓" if self.down else "↑"
        title = self.pane.columns[at].title
        return f"{title}{arrow}" if at == self.sort else title

    def _line(self, cells: Sequence[str], fits: Sequence[int], widths: Sequence[int], style: Style) -> Strip:
        parts = []
        for at, width in zip(fits, widths, strict=True):
            cell = cells[at]
            if cell_len(cell) > width:
                cell = set_cell_size(cell, max(0, width - 1)) + "…"
            room = " " * (width - cell_len(cell))
            parts.append(room + cell if self.pane.columns[at].number else cell + room)
        return _strip("  ".join(parts), self.size.width, style)


def _strip(text: str, width: int, style: Style) -> Strip:
    return Strip([Segment(set_cell_size(text, width), style)], width)


def _holds(row: Row, words: str) -> bool:
    return any(words in cell.lower() for cell in row.cells)


def _sortable(value: float | str) -> tuple[bool, float, str]:
    return (True, 0.0, value) if isinstance(value, str) else (False, value, "")


def _fit(
    columns: Sequence[Column], lines: Sequence[Sequence[str]], width: int
) -> tuple[list[int], list[int]]:
    """Which columns fit, and their widths; the last one takes the remaining width if it holds text."""
    kept = list(range(len(columns)))
    widths = [max(cell_len(line[at]) for line in lines) for at in kept]
    text = not columns[-1].number
    while len(kept) > 1:
        last = min(widths[kept[-1]], LEAST) if text else widths[kept[-1]]
        needed = sum(widths[at] for at in kept[:-1]) + 2 * (len(kept) - 1) + last
        first_to_go = max(kept, key=lambda at: columns[at].drop)
        if needed <= width or not columns[first_to_go].drop:
            break
        kept.remove(first_to_go)
    rest = max(0, width - sum(widths[at] for at in kept[:-1]) - 2 * (len(kept) - 1))
    return kept, [*(widths[at] for at in kept[:-1]), rest if text else min(rest, widths[kept[-1]])]
