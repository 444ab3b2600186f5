"""Text from outside, such as names of files: as JSON, a terminal and a shell can take it.

The name of a file is bytes, and may hold any but NUL and the slash. Python has those that are not UTF-8 as
lone surrogates (`os.fsdecode`), which nothing but the file system takes.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable

_BYTE = re.compile("[\udc80-\udcff]")
_NOT_ASCII = re.compile("[^\0-~]")
_ESCAPES = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\\": "\\\\", "'": "\\'", "\0": "\0"}


def valid(text: str) -> str:
    """`text` as Unicode: bytes that are not UTF-8 read \\xNN."""
    if text.isascii():
        return text
    text = _BYTE.sub(lambda found: f"\\x{ord(found[0]) - 0xDC00:02x}", text)
    return text.encode("utf-8", "backslashreplace").decode()


def printable(text: str) -> str:
    """`text` on one line, for people: tabs and line ends are blanks, and what a terminal would act upon, or
    nobody would see, reads \\x9b or \\u202e."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c in "\t\n" else _seen(c) for c in valid(text))


def printable_json(document: bytes) -> bytes:
    """A JSON document that has the same values, with \\u202e for what is not printable in its strings."""
    if document.isascii() and b"\x7f" not in document:
        return document
    import json

    def seen(found: re.Match[str]) -> str:
        return found[0] if found[0].isprintable() else json.dumps(found[0])[1:-1]

    return _NOT_ASCII.sub(seen, document.decode()).encode()


def shell_word(text: str) -> str:
    """`text` as one word for bash, zsh or ksh, in printable characters: to be shown, and typed back."""
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
    """The path that `line` tells. ValueError if it is neither a path nor JSON."""
    if not line.startswith('"'):
        return line
    import json

    return str(json.loads(line))


def as_argument(name: str) -> str:
    """The name of a file, as no command takes it for an option."""
    return f"./{name}" if name.startswith("-") and name != "-" else name


def shown_path(path: str) -> str:
    """`path` as it is, unless that could not be seen, or typed."""
    return path if path.isprintable() else shell_word(path)


def shell_command(words: Iterable[str]) -> str:
    """The command of these words, to be shown, and typed back."""
    return " ".join(map(shell_word, words))


def with_retry(command: str) -> str:
    """This command that goes on from a status file, and runs again what failed; -R is its last word."""
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
    """What the user wrote, as it can stand in a line for the user."""
    text = text if len(text) <= 80 else text[:77] + "..."
    return printable(text)
