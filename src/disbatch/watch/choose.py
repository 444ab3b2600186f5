"""What shows a run: a progress line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
from typing import TextIO

from disbatch.driver.observer import Observer
from disbatch.watch.plain import PlainLines
from disbatch.watch.progress import ProgressLine


def choose_observer(stream: TextIO) -> Observer:
    """The observer that fits the stream (stderr)."""
    if stream.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        return ProgressLine(stream)
    return PlainLines(stream)
