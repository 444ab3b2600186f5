"""Properties of the terminal that a stream writes to."""

from __future__ import annotations

import os
from typing import TextIO


def columns_of(stream: TextIO) -> int:
    """Its width; 0 if it is none, or does not say."""
    try:
        return os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        return 0
