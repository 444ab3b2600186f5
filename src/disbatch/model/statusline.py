"""The lines of a status file: format, parse and scan them; quote snippets and commands.

A status file has one line for each finished attempt, with 15 fields between tabs:

| field | content |
|---|---|
| flags | four columns: `R` return code not 0; `O`, `E` output captured; the `Mark`; a fifth: the `Reason` |
| id, line, repeat | as in `model.task.Task` |
| node, pid | the node, and the process id of the task's shell |
| return code | minus the signal's number if a signal killed it |
| elapsed, start, finish | seconds; the latter two since the epoch, by the node's clock |
| bytes, snippet | of captured stdout: how many, and the first and last 40 as a literal |
| bytes, snippet | of captured stderr |
| command | as a literal; last, so that tabs in an unquoted one (the original's 3.0) do no harm |

The fifth column of the flags is written only if there is a reason.

Snippets and commands are Python string literals. Bytes are decoded as UTF-8; other bytes become lone
surrogates (`surrogateescape`), which `repr` escapes. So each bytes value has exactly one literal, the literal
is printable, and reading it returns the same bytes.

Changing the format: other programs split these lines, so only new values of the mark and of the reason may be
added. Extend `parse_line` first, with a sample of the new line in its test.
"""

from __future__ import annotations

import ast
import enum
import functools
import re

import msgspec

from disbatch.model.task import LOST_RETURN_CODE, NO_REPEAT, Barrier, Outcome, Reason, Task

EMPTY = '""'
"""How an empty snippet is written."""

# One literal and nothing more: without this, `'a' 'b'` would be read as one string.
_LITERAL = re.compile(r"""(b?)(?:'(?:[^'\\\n]++|\\.)*+'|"(?:[^"\\\n]++|\\.)*+")""", re.S)


def quoted(data: bytes) -> str:
    """`data` as a printable literal on one line, which `unquoted` and `ast.literal_eval` read."""
    return repr(data.decode("utf-8", "surrogateescape"))


def quoted_snippet(data: bytes) -> str:
    """A snippet as a field of a status file: `""` if empty."""
    return repr(data.decode("utf-8", "surrogateescape")) if data else EMPTY


def unquoted(literal: bytes) -> bytes | None:
    """The bytes that a str or bytes literal stands for, or None if `literal` is no such literal."""
    value = _evaluated(literal)
    if isinstance(value, str):
        return _encoded(value, "utf-8", "surrogateescape")
    return value


def readings(field: bytes) -> list[bytes]:
    r"""Every command that the command field of a status file may stand for.

    This version and the original's 1.x quote each command; 3.0 writes it bare, and as `b'...'` if it is not
    UTF-8. A Python 2 literal has bytes above 127 as `\xNN`. The file does not say which version wrote it.
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
    """The command that a command field most likely stands for: the first of `readings` that is not the field
    itself, if there is one."""
    if field[:1] == field[-1:] == b"'" and b"\\" not in field and len(field) > 1 and b"'" not in field[1:-1]:
        return field[1:-1]  # the usual case
    value = unquoted(field)
    return field if value is None else value


def command_key(field: bytes) -> tuple[bytes, bool]:
    """The key by which a command field can be looked up: its `command_of`, and whether its bytes may have
    another reading, as Python 2 wrote them."""
    command = command_of(field)
    return command, not command.isascii() and b"\\x" in field


def command_keys(command: bytes) -> list[tuple[bytes, bool]]:
    """The `command_key` of every field that may stand for `command`, most likely first."""
    keys = [(command, False)]
    if not command.isascii():
        keys += [(command, True), (command.decode("latin-1").encode(), True)]
    bare = command_key(command)
    return keys if bare in keys else [*keys, bare]


def command_matches(field: bytes, command: bytes) -> bool:
    """True if one of the readings of a command field is `command`."""
    return field == command or field == quoted(command).encode() or command in readings(field)


def _evaluated(literal: bytes) -> str | bytes | None:
    if literal[-1:] not in (b"'", b'"'):
        return None
    text = literal.decode("utf-8", "surrogateescape")
    if _LITERAL.fullmatch(text) is None:
        return None
    try:
        # A literal of Python 2 may hold bytes that are not UTF-8; the parser accepts no surrogates.
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


FIELDS = (
    "flags",
    "id",
    "line",
    "repeat",
    "node",
    "pid",
    "return_code",
    "elapsed",
    "start",
    "finish",
    "out_bytes",
    "out",
    "err_bytes",
    "err",
    "command",
)
STATUS_HEADER = "\t".join(FIELDS).encode() + b"\n"
"""The line that --status-header writes first; `is_header` recognises it and the original's."""


UNRECORDED_END = "_unrecorded.txt"
"""The end of the names of files with status lines that no driver received; they begin as the status file's
name does."""


class Mark(enum.Enum):
    """The fourth column of the flags: the kind of the line."""

    TASK = " "
    BARRIER = "B"
    PER_ENGINE = "P"
    SKIPPED = "S"
    """Not run now, because a former run did; the fields are that run's."""
    SUPERSEDED = "Z"
    """An attempt that does not count: the task was or will be run again."""


class Record(msgspec.Struct, frozen=True, gc=False):
    """One line of a status file. Times in seconds; `out`, `err` and `command` are the raw fields: literals,
    or a bare command; `model.statusline` decodes them."""

    mark: Mark
    id: int
    line: int
    repeat: int
    node: str
    pid: int
    return_code: int
    elapsed: float
    start: float
    finish: float
    out_bytes: int
    out: bytes
    err_bytes: int
    err: bytes
    command: bytes
    reason: Reason = Reason.NONE

    @property
    def failed(self) -> bool:
        """True if the return code is not 0."""
        return self.return_code != 0

    @property
    def given_up(self) -> bool:
        """True if the task did not run to its own end, so it does not count as completed."""
        return is_given_up(self.return_code, self.reason)


def is_given_up(return_code: int, reason: Reason) -> bool:
    """True if a task with this end does not count as completed: it was lost with its engines, or could not be
    run."""
    return return_code == LOST_RETURN_CODE or reason is Reason.NOT_RUN


def format_line(  # noqa: PLR0917 - a line has these parts, and every caller has them in this order
    id: int, line: int, repeat: int, command: bytes, node: str, outcome: Outcome, mark: Mark = Mark.TASK
) -> bytes:
    """One line of the status file, with its line feed."""
    o = outcome
    return (
        f"{'R' if o.return_code else ' '}{'O' if o.out_bytes else ' '}{'E' if o.err_bytes else ' '}"
        f"{mark._value_}{o.reason._value_}"
        f"\t{id}\t{line}\t{repeat}\t{_node_field(node)}\t{o.pid}\t{o.return_code}"
        f"\t{o.elapsed:.6f}\t{o.start:.6f}\t{o.finish:.6f}"
        f"\t{o.out_bytes}\t{quoted_snippet(o.out_snippet)}"
        f"\t{o.err_bytes}\t{quoted_snippet(o.err_snippet)}"
        f"\t{command.decode('utf-8', 'surrogateescape')!r}\n"
    ).encode()


def format_barrier(
    barrier: Barrier, node: str, pid: int, *, elapsed: float, start: float, finish: float
) -> bytes:
    """The line of a completed barrier; `node` and `pid` are the driver's, times in seconds."""
    outcome = Outcome(0, -1, pid, 0, elapsed, start, finish, 0, b"", 0, b"")
    return format_line(barrier.id, barrier.line, NO_REPEAT, barrier.text, node, outcome, Mark.BARRIER)


def format_skipped(record: Record, task: Task) -> bytes:
    """The line of a task that a former run completed: that run's `record`, marked as skipped, with its
    command."""
    same = command_matches(record.command, task.command)
    command = task.command if same else command_of(record.command)
    return _format_again(record, task.id, task.line, task.repeat, command, Mark.SKIPPED)


def format_recorded(record: Record, item: Task | Barrier) -> bytes:
    """The line of a task or barrier that this run has already completed: its `record`."""
    if isinstance(item, Barrier):
        return _format_again(record, item.id, item.line, NO_REPEAT, item.text, Mark.BARRIER)
    return _format_again(record, item.id, item.line, item.repeat, item.command, record.mark)


def _format_again(  # noqa: PLR0917 - as format_line
    r: Record, id: int, line: int, repeat: int, command: bytes, mark: Mark
) -> bytes:
    flags = f"{'R' if r.failed else ' '}{'O' if r.out_bytes else ' '}{'E' if r.err_bytes else ' '}"
    head = (
        f"{flags}{mark._value_}{r.reason._value_}\t{id}\t{line}\t{repeat}\t{_node_field(r.node)}\t{r.pid}\t{r.return_code}"
        f"\t{r.elapsed:.6f}\t{r.start:.6f}\t{r.finish:.6f}\t{r.out_bytes}\t"
    )
    return b"%b%b\t%d\t%b\t%b\n" % (head.encode(), r.out, r.err_bytes, r.err, quoted(command).encode())


@functools.lru_cache(maxsize=1024)
def _node_field(node: str) -> str:
    """A node's name, without characters that would end the field or the line."""
    return node if node and node.isprintable() else repr(node)


# ---- reading ----

# Possessive, and without overlapping alternatives: linear in the length of any line.
_SECONDS = rb"-?(?:[0-9.]++(?:e[+-]?[0-9]++)?+|nan|inf)"
_PATTERNS = {
    "flags": rb"(?:[ROEBCDPSZ ]{4}+[XTMN]|[ROEBCDPSZ ]{0,8}+)",
    "id": rb"[0-9]{1,19}+",
    "line": rb"-?[0-9]{1,19}+",
    "repeat": rb"-?[0-9]{1,19}+",
    "node": rb"[^\t\n]*+",
    "pid": rb"-?[0-9]{1,19}+",
    "return_code": rb"-?[0-9]{1,10}+",
    "elapsed": _SECONDS,
    "start": _SECONDS,
    "finish": _SECONDS,
    "out_bytes": rb"[0-9]{1,19}+",
    "out": rb"[^\t\n]*+",
    "err_bytes": rb"[0-9]{1,19}+",
    "err": rb"[^\t\n]*+",
    "command": rb"[^\n]*+",
}
_LINE = re.compile(b"\t".join(b"(%b)" % _PATTERNS[name] for name in FIELDS) + rb"\n?")
BRIEF_FIELDS = ("flags", "id", "node", "pid", "return_code", "elapsed", "start", "finish", "out", "err")
"""The fields that `scan_block` returns."""
_BRIEF_LINES = re.compile(
    b"^"
    + b"\t".join((b"(%b)" if name in BRIEF_FIELDS else b"%b") % _PATTERNS[name] for name in FIELDS)
    + rb"\n?",
    re.M,
)
_NUMBERS = (1, 2, 3, 5, 6, 7, 8, 9, 10, 12)
_DIGIT = re.compile(rb"[0-9]")


def parse_line(line: bytes) -> Record | None:
    """Parse one line, with or without its line feed, of this version or of the original's 1.x or 3.0; None if
    it is not a line of a status file (see also `is_header`)."""
    found = _LINE.fullmatch(line)
    if found is None:
        return None
    flags, id, line_number, repeat, node, pid, code, elapsed, start, finish, outs, out, errs, err, command = (
        found.groups()
    )
    try:
        return Record(
            mark_of(flags),
            int(id),
            int(line_number),
            int(repeat),
            node.decode("utf-8", "surrogateescape"),
            int(pid),
            int(code),
            float(elapsed),
            float(start),
            float(finish),
            int(outs),
            out,
            int(errs),
            err,
            command,
            reason_of(flags),
        )
    except ValueError:
        return None


_MARKS = (
    (b"Z", Mark.SUPERSEDED),
    (b"BCD", Mark.BARRIER),
    (b"P", Mark.PER_ENGINE),
    (b"S", Mark.SKIPPED),
)


def scan_line(text: bytes, at: int) -> tuple[int, Mark, int, int, Reason] | None:
    """The few fields that the index of a long file needs, of the line that begins at `at`: its end (line feed
    included), mark, id, return code and reason. None as for `parse_line`."""
    found = _LINE.match(text, at)
    if found is None:
        return None
    flags, id, return_code = found.group(1, 2, 7)
    return found.end(), mark_of(flags), int(id), int(return_code), reason_of(flags)


def scan_block(block: bytes) -> list[tuple[bytes, ...]] | None:
    """`BRIEF_FIELDS` of every line of a block of whole lines, as raw bytes: for readers of millions of lines.
    None if `parse_line` would reject a line; numbers such as 1.2.3 are not rejected here."""
    found: list[tuple[bytes, ...]] = _BRIEF_LINES.findall(block)
    return found if len(found) == block.count(b"\n") else None


_REASONS = {reason.value.encode(): reason for reason in Reason}


def reason_of(flags: bytes) -> Reason:
    """The reason in a flags field: its fifth column."""
    return _REASONS.get(flags[4:5], Reason.NONE)


@functools.lru_cache(maxsize=1024)
def mark_of(flags: bytes) -> Mark:
    """The mark in a flags field of four or five columns, of three (1.x), or of a barrier and four blanks
    (3.0)."""
    for letters, mark in _MARKS:
        if any(letter in flags for letter in letters):
            return mark
    return Mark.TASK


def is_header(line: bytes) -> bool:
    """True for the line of column names that --status-header writes, here and in the original."""
    fields = line.split(b"\t", len(FIELDS) - 1)
    return len(fields) == len(FIELDS) and not any(
        not fields[at] or _DIGIT.search(fields[at]) for at in _NUMBERS
    )
