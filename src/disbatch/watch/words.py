"""How numbers and commands are written for people."""

from __future__ import annotations

import math
import unicodedata
from itertools import accumulate, takewhile

from disbatch.model.text import printable as _printable

_UNITS = ((1, "s"), (60, "min"), (3600, "h"))


def duration(seconds: float) -> str:
    """`530 ms`, `2.53 s`, `12.3 s`, `4:05`, `2:03:04`, `3d 04:05`."""
    # The bounds are where rounding would carry: 0.9996 is 1.00 s, not 1000 ms.
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.995:
        return f"{seconds:.2f} s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(math.floor(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    if not hours:
        return f"{minutes}:{rest:02d}"
    days, hours = divmod(hours, 24)
    return f"{days}d {hours:02d}:{minutes:02d}" if days else f"{hours}:{minutes:02d}:{rest:02d}"


def whole_seconds(seconds: float) -> str:
    """`0 s`, `12 s`, `4:05`: a time that is going on, or an estimate."""
    return f"{seconds:.0f} s" if seconds < 59.5 else duration(max(60, seconds))


def run_time(seconds: float) -> str:
    """`0.3 s`, `12 s`, `4:05`: how long a run took."""
    return f"{max(0.1, seconds):.1f} s" if 0 < seconds < 9.95 else whole_seconds(seconds)


def count(number: int) -> str:
    """`12,345`."""
    return f"{number:,}"


def per_second(rate: float, beside: float | None = None) -> str:
    """`1,250/s`, `12.3/s`, `3.2/min`, `0.8/h`; a part of another rate, `beside` which it stands, has the unit
    of that one: `0.2/s`."""
    whole = beside or rate
    seconds, unit = next(((seconds, unit) for seconds, unit in _UNITS if whole * seconds >= 1), _UNITS[-1])
    number = rate * seconds
    if number >= 100:
        return f"{number:,.0f}/{unit}"
    if number >= 1:
        return f"{number:.1f}/{unit}"
    return f"{number if number >= 0.001 else 0:.2g}/{unit}"


def memory(number: float) -> str:
    """Bytes: `512 MB`, `1.5 GB`, `64 GB`; units of 1024, as `free -h` has them."""
    for unit in ("kB", "MB", "GB", "TB"):
        number /= 1024
        if number < 999.5 or unit == "TB":
            break
    return f"{number:.1f} {unit}" if number < 9.95 else f"{number:.0f} {unit}"


def one_line(text: bytes, width: int) -> str:
    """Text from outside in one line of printable characters, at most `width` columns of a terminal."""
    return printable(text.decode("utf-8", "replace"), width)


def printable(text: str, width: int) -> str:
    """Text from outside in one line of printable characters, at most `width` columns of a terminal."""
    shown = _printable(text.strip())
    return shown if cells(shown) <= width else _beginning(shown, max(1, width - 1)) + "…"


def cells(text: str) -> int:
    """Columns that it takes on a terminal: letters of some scripts take two."""
    return len(text) if text.isascii() else sum(map(_cells, text))


def _cells(letter: str) -> int:
    return 0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def _beginning(text: str, width: int) -> str:
    """As much of it as fits into so many columns."""
    if text.isascii():
        return text[:width]
    columns = accumulate(map(_cells, text))
    return text[: sum(1 for _ in takewhile(lambda column: column <= width, columns))]


def wrapped(text: str, width: int) -> list[str]:
    """In lines of at most `width` columns, of whole words unless one is longer than that."""
    lines, line = [], ""
    for word in text.split():
        longer = f"{line} {word}" if line else word
        if line and cells(longer) > width:
            lines.append(line)
            longer = word
        line = longer
        while cells(line) > width:
            lines.append(_beginning(line, max(2, width)))
            line = line[len(lines[-1]) :]
    return [*lines, line] if line or not lines else lines
