"""How a run stands, for whoever asks: what its driver tells, or what its status file does.

The document that `json` makes is a promise to scripts (docs/watching.md lists its names). Fields may be
added; one that changes its meaning gets another name, and one that goes raises SCHEMA.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from disbatch.model.snapshot import View
from disbatch.model.text import printable_json, valid

SCHEMA = 1
DRIVER, STATUS_FILE = "driver", "status file"
DEAD, SILENT, OVER = "dead", "silent", "over"
_OURS = {"number", "driver", "mode", "notice", "course"}
"""Of a view; of no use to scripts, or told in other words."""


class Standing(NamedTuple):
    """`run`: its prefix. `state`: that of the view (see `View.mode`), or `dead` (the driver was killed),
    `silent` (it does not answer, or cannot be asked). `words`: what people should know. `told_by`: DRIVER, or
    STATUS_FILE, which knows only of tasks that have ended."""

    run: str
    state: str
    words: str
    told_by: str
    view: View

    @property
    def is_heard(self) -> bool:
        """The run is over, or its driver tells."""
        return self.state not in (DEAD, SILENT)

    def json(self) -> bytes:
        """The document, in one line."""
        view = msgspec.to_builtins(self.view)
        told = {name: value for name, value in view.items() if name not in _OURS}
        head = {"schema": SCHEMA, "run": valid(self.run), "state": self.state}
        words = {"words": valid(self.words), "told_by": self.told_by}
        return printable_json(msgspec.json.encode(head | words | told))


def of_driver(run: str, view: View) -> Standing:
    """What the driver tells."""
    return Standing(run, view.mode, view.notice, DRIVER, view)
