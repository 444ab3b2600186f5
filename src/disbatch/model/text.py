"""Text for people, shells and JSON: printable characters, quoting, numbers, durations, sizes, lists of names.

A file name is bytes, and may hold any byte but NUL and the slash. Python represents bytes that are not UTF-8
as lone surrogates (`os.fsdecode`), which only the file system accepts; the functions here make such names fit
for JSON, a terminal and a shell.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterable
from itertools import accumulate, takewhile

_BYTE = re.compile("[\udc80-\udcff]")
_NOT_ASCII = re.compile("[^\0-~]")
_ESCAPES = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\\": "\\\\", "'": "\\'", "\0": "\0"}


def valid(text: str) -> str:
    r"""`text` as valid Unicode: bytes that are not UTF-8 become \xNN."""
    if text.isascii():
        return text
    text = _BYTE.sub(lambda found: f"\\x{ord(found[0]) - 0xDC00:02x}", text)
    return text.encode("utf-8", "backslashreplace").decode()


def printable(text: str) -> str:
    r"""`text` on one line: tabs and line ends become blanks; control and invisible characters become \x9b or
    \u202e."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c in "\t\n" else _seen(c) for c in valid(text))


def printable_json(document: bytes) -> bytes:
    r"""A JSON document with the same values; characters that are not printable in its strings become
    \u202e."""
    if document.isascii() and b"\x7f" not in document:
        return document
    import json

    def seen(found: re.Match[str]) -> str:
        return found[0] if found[0].isprintable() else json.dumps(found[0])[1:-1]

    return _NOT_ASCII.sub(seen, document.decode()).encode()


def shell_word(text: str) -> str:
    """`text` as one word for bash, zsh or ksh, in printable characters, to be displayed and typed."""
    if text.isprintable():
        return shlex.quote(text)
    return f"$'{''.join(map(_escaped, text))}'"


def path_line(path: str) -> str:
    """An absolute path as a line, for `parse_path_line`: as it is, or as JSON if it holds a line end."""
    if path.splitlines() == [path]:
        return path
    import json

    return json.dumps(path)


def parse_path_line(line: str) -> str:
    """The path in such a line. ValueError if it is neither a path nor JSON."""
    if not line.startswith('"'):
        return line
    import json

    return str(json.loads(line))


def as_argument(name: str) -> str:
    """The name of a file in a form that no command mistakes for an option."""
    return f"./{name}" if name.startswith("-") and name != "-" else name


def shown_path(path: str) -> str:
    """`path` as it is, or quoted if it could not be displayed or typed."""
    return path if path.isprintable() else shell_word(path)


def shell_command(words: Iterable[str]) -> str:
    """The command of these words, to be displayed and typed."""
    return " ".join(map(shell_word, words))


def with_retry(command: str) -> str:
    """The same resume command, but one that also runs failed tasks again; -R is its last word."""
    return command.removesuffix(" -R") + " -R"


def _seen(letter: str) -> str:
    return letter.encode("unicode_escape").decode()


def _escaped(letter: str) -> str:
    known = _ESCAPES.get(letter)
    if known is not None or letter.isprintable():
        return known or letter
    # Octal, since ksh takes any number of hexadecimal digits.
    return "".join(f"\\{byte:03o}" for byte in letter.encode("utf-8", "surrogateescape"))


def in_short(text: str) -> str:
    """Input of the user, shortened for a message."""
    text = text if len(text) <= 80 else text[:77] + "..."
    return printable(text)


MOST_NAMED = 5


def counted(number: float, noun: str, plural: str = "") -> str:
    """`1 task`, `2,000 tasks`, `0.5 cores`; `plural` if it is not the noun with an s."""
    shown = f"{number:,}" if isinstance(number, int) else f"{number:g}"
    return f"{shown} {noun if number == 1 else plural or f'{noun}s'}"


def with_label(node: str, label: str) -> str:
    """`vm (gpu)`: a node, with the label that the user gave its context; several nodes may have the same
    name."""
    return f"{node} ({label})" if label else node


def short_list(names: list[str], most: int = MOST_NAMED) -> str:
    """The first names of a list, each once."""
    different = list(dict.fromkeys(names))
    rest = len(different) - most
    return ", ".join(different[:most]) + (f" and {rest} more" if rest > 0 else "")


_UNITS = ((1, "s"), (60, "min"), (3600, "h"))


def duration(seconds: float) -> str:
    """`530 ms`, `2.53 s`, `12.3 s`, `4:05`, `2:03:04`, `3d 04:05`."""
    # The bounds are where rounding carries: 0.9996 is 1.00 s, not 1000 ms.
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
    """`0 s`, `12 s`, `4:05`: a growing duration, or an estimate."""
    return f"{seconds:.0f} s" if seconds < 59.5 else duration(max(60, seconds))


def run_time(seconds: float) -> str:
    """`0.3 s`, `12 s`, `4:05`: the duration of a run."""
    return f"{max(0.1, seconds):.1f} s" if 0 < seconds < 9.95 else whole_seconds(seconds)


def count(number: int) -> str:
    """`12,345`."""
    return f"{number:,}"


def per_second(rate: float, beside: float | None = None) -> str:
    """`1,250/s`, `12.3/s`, `3.2/min`, `0.8/h`. A rate that is shown beside another one, `beside`, gets the
    unit of that one: `0.2/s`."""
    whole = beside or rate
    seconds, unit = next(((seconds, unit) for seconds, unit in _UNITS if whole * seconds >= 1), _UNITS[-1])
    number = rate * seconds
    if number >= 100:
        return f"{number:,.0f}/{unit}"
    if number >= 1:
        return f"{number:.1f}/{unit}"
    return f"{number if number >= 0.001 else 0:.2g}/{unit}"


def memory(number: float) -> str:
    """Bytes: `512 MB`, `1.5 GB`, `64 GB`; units of 1024, as in `free -h`."""
    for unit in ("kB", "MB", "GB", "TB"):
        number /= 1024
        if number < 999.5 or unit == "TB":
            break
    return f"{number:.1f} {unit}" if number < 9.95 else f"{number:.0f} {unit}"


def one_line(text: bytes, width: int) -> str:
    """Foreign bytes as one line of printable characters, at most `width` columns of a terminal."""
    return shortened(text.decode("utf-8", "replace"), width)


def shortened(text: str, width: int) -> str:
    """Foreign text as one line of printable characters, at most `width` columns of a terminal."""
    shown = printable(text.strip())
    return shown if cells(shown) <= width else _beginning(shown, max(1, width - 1)) + "…"


def cells(text: str) -> int:
    """Columns of the text on a terminal: characters of some scripts take two."""
    return len(text) if text.isascii() else sum(map(_cells, text))


def _cells(letter: str) -> int:
    import unicodedata

    return 0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def _beginning(text: str, width: int) -> str:
    """The longest beginning that fits into so many columns."""
    if text.isascii():
        return text[:width]
    columns = accumulate(map(_cells, text))
    return text[: sum(1 for _ in takewhile(lambda column: column <= width, columns))]


def wrapped(text: str, width: int) -> list[str]:
    """Lines of at most `width` columns, broken between words unless a word is longer than that."""
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
