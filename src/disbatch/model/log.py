"""Format log records: one line each, printable characters only."""

from __future__ import annotations

import logging
from typing import Any

from disbatch.model.text import printable


class LogFormatter(logging.Formatter):
    """Escapes line ends and control characters in messages, as parts of them come from other hosts."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """As in `logging.Formatter`."""
        record.message = printable(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:
        """As in `logging.Formatter`."""
        return "\n".join(map(printable, super().formatException(ei).split("\n")))
