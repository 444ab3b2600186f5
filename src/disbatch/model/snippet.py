"""Quote bytes as a Python string literal and read such literals back: snippets and commands of a status file.

Bytes are taken as UTF-8; what is not UTF-8 becomes lone surrogates (`surrogateescape`), which `repr` escapes.
So every bytes value has one literal, the literal is printable, and reading it gives the bytes back.
"""

from __future__ import annotations

import ast
import re

EMPTY = '""'
"""How an empty snippet is written."""

# One literal and nothing more: without this, `'a' 'b'` would be read as one string.
_LITERAL = re.compile(r"""(b?)(?:'(?:[^'\\\n]++|\\.)*+'|"(?:[^"\\\n]++|\\.)*+")""", re.S)


def quoted(data: bytes) -> str:
    """`data` as a printable literal on one line, which `unquoted` and `ast.literal_eval` read."""
    return repr(data.decode("utf-8", "surrogateescape"))


def quoted_snippet(data: bytes) -> str:
    """A snippet as it stands in a status file: `""` if empty."""
    return repr(data.decode("utf-8", "surrogateescape")) if data else EMPTY


def unquoted(literal: bytes) -> bytes | None:
    """The bytes that a str or bytes literal stands for, or None if `literal` is no such literal."""
    value = _evaluated(literal)
    if isinstance(value, str):
        return _encoded(value, "utf-8", "surrogateescape")
    return value


def readings(field: bytes) -> list[bytes]:
    """Every command that a status file's command field may stand for.

    Ours and the original's 1.x quote each command; 3.0 writes it bare, and as `b'...'` if it is not UTF-8. A
    Python 2 literal wrote bytes above 127 as `\\xNN`. Which one wrote the file is not said in it.
    """
    found = [field]
    value = _evaluated(field)
    if isinstance(value, bytes):
        found.append(value)
    elif value is not None:
        for encoding, errors in (("utf-8", "surrogateescape"), ("latin-1", "strict")):
            command = _encoded(value, encoding, errors)
            if command is not None and command not in found:
                found.append(command)
    return found


def command_of(field: bytes) -> bytes:
    """The command that a status file's command field most likely stands for: the first of `readings` that is
    not the field itself, if there is one."""
    if field[:1] == field[-1:] == b"'" and b"\\" not in field and len(field) > 1 and b"'" not in field[1:-1]:
        return field[1:-1]  # most are so
    value = unquoted(field)
    return field if value is None else value


def command_key(field: bytes) -> tuple[bytes, bool]:
    """By what a status file's command field can be looked up: `command_of` it, and whether bytes in it may
    stand for other ones, as Python 2 wrote them."""
    command = command_of(field)
    return command, not command.isascii() and b"\\x" in field


def command_keys(command: bytes) -> list[tuple[bytes, bool]]:
    """The `command_key` of every field that may stand for `command`, the likeliest first."""
    keys = [(command, False)]
    if not command.isascii():
        keys += [(command, True), (command.decode("latin-1").encode(), True)]
    bare = command_key(command)
    return keys if bare in keys else [*keys, bare]


def command_matches(field: bytes, command: bytes) -> bool:
    """True if a status file's command field, read in any of its ways, is `command`."""
    return field == command or field == quoted(command).encode() or command in readings(field)


def _evaluated(literal: bytes) -> str | bytes | None:
    if literal[-1:] not in (b"'", b'"'):
        return None
    text = literal.decode("utf-8", "surrogateescape")
    if _LITERAL.fullmatch(text) is None:
        return None
    try:
        # Bytes that are not UTF-8 may stand in a literal of an old Python; the parser takes no surrogates.
        value = ast.literal_eval(_SURROGATE.sub(_escaped, text))
    except (ValueError, SyntaxError, MemoryError):
        return None
    return value if isinstance(value, str | bytes) else None


_SURROGATE = re.compile("[\udc80-\udcff]")


def _escaped(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


def _encoded(value: str, encoding: str, errors: str) -> bytes | None:
    try:
        return value.encode(encoding, errors)
    except UnicodeEncodeError:
        return None
