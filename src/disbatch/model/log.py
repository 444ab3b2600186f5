"""Format log records: one line each, printable characters only."""

from __future__ import annotations

import logging
from typing import Any

from disbatch.model.text import printable


class LogFormatter(logging.Formatter):
    """Escapes what a terminal that shows the log would act upon, and line ends, in what was logged."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """From logging."""
        record.message = printable(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:
        """From logging."""
        return "\n".join(map(printable, super().formatException(ei).split("\n")))
