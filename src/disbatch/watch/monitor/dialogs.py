"""Dialogs over the tables: help, a row in full, and a question that must be confirmed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from disbatch.model.text import printable

HELP = """\
1 to 5, Tab   nodes, running, failed, the log, kinds of failures
Up Down, j k  a row; PageUp, PageDown, Home, End
Enter         the row in full: the command, its last output
o O           sort by the next column; reverse the order
&             filter: only rows that contain a text; Esc: all rows
/ n N         search for a text; the next match, the previous one

d   drain the node: no new tasks; it leaves when it has none
s   stop the node: its tasks are ended and run again elsewhere
c   cancel the task, in the table of running tasks
p   pause the run: nothing new starts; or resume it
f   finish: end the run now, to be resumed
    Each of these must be confirmed.
r   redraw everything
q   quit; the run goes on

HEARD is the time since the last heartbeat of a node. A task is
"new" until the next heartbeat of its node. When the driver dies,
the first line says so; the monitor waits for another driver."""


class Panel(ModalScreen[bool]):
    """Text over everything else; closed with most keys."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,enter,question_mark", "dismiss(False)", "close", show=False),
    ]
    CSS = """
    Panel, Question { align: center middle; background: transparent; }
    #panel { width: 90%; max-width: 110; height: auto; max-height: 100%;
             border: round ansi_blue; padding: 0 1; background: ansi_default; }
    #panel Static { width: 100%; height: auto; background: ansi_default; }
    """

    def __init__(self, title: str, text: Text | str) -> None:
        super().__init__()
        self._title = title
        self._text = text

    def compose(self) -> ComposeResult:
        """A frame with scrollable text."""
        with VerticalScroll(id="panel") as frame:
            frame.border_title = self._title
            yield Static(self._text, markup=False)


class Question(Panel):
    """Asks for confirmation. Enter does not confirm: a node must not be stopped by accident."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "dismiss(True)", "yes", show=False),
        Binding("n,escape,q,enter", "dismiss(False)", "no", show=False),
    ]

    def __init__(self, title: str, text: str) -> None:
        super().__init__(title, f"{text}\n\ny: yes   n, Esc: no")


def details(pairs: Sequence[tuple[str, str]]) -> Text:
    """Labels and their values, as text of any length."""
    text = Text()
    for label, value in pairs:
        text.append(f"{label:<9}", "bold")
        text.append(("\n" + " " * 9).join(map(printable, value.split("\n"))) + "\n")
    text.rstrip()
    return text
