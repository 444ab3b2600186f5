"""Write and read the lines of a status file: one for each finished attempt, 15 fields between tabs.

| field | what |
|---|---|
| flags | four columns: `R` return code not 0; `O`, `E` output leaked; the `Mark`; a fifth: the `Reason` |
| id, line, repeat | as in `model.task.Task` |
| node, pid | where it ran, its shell |
| return code | minus the signal's number if a signal killed it |
| elapsed, start, finish | seconds; the latter two since the epoch, by the node's clock |
| bytes, snippet | of leaked stdout: how many, and the first and last 40 as a literal |
| bytes, snippet | of leaked stderr |
| command | as a literal; last, so that tabs in a bare one (the original's 3.0) do no harm |

The fifth column of the flags is written only if there is a reason.

Changing the format: nothing but new values of the mark and of the reason may be added, since other programs
split these lines; extend `parse_line` first, with a sample of the new line in its test.
"""

from __future__ import annotations

import enum
import functools
import re

import msgspec

from disbatch.model.outcome import LOST_RETURN_CODE, Outcome, Reason
from disbatch.model.snippet import command_matches, command_of, quoted, quoted_snippet
from disbatch.model.task import NO_REPEAT, Barrier, Task

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
"""The line that --status-header puts first; `is_header` knows it and the original's."""


UNRECORDED_END = "_unrecorded.txt"
"""How files end that hold status lines which no driver took; they begin as the status file does."""


class Mark(enum.Enum):
    """The fourth column of the flags: what sort of line this is."""

    TASK = " "
    BARRIER = "B"
    PER_ENGINE = "P"
    SKIPPED = "S"
    """Not run now, since a former run did; the fields are that run's."""
    SUPERSEDED = "Z"
    """An attempt that does not count: the task was or will be run again."""


class Record(msgspec.Struct, frozen=True, gc=False):
    """One line of a status file. Times in seconds; `out`, `err` and `command` are fields as they stand there:
    literals, or a bare command; `model.snippet` reads them."""

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
        """It was not run to an end of its own, and does not count as completed."""
        return is_given_up(self.return_code, self.reason)


def is_given_up(return_code: int, reason: Reason) -> bool:
    """So ended a task that does not count as completed: it was lost with its engines, or could not be run."""
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
    """The line of a barrier that is complete; `node` and `pid` are the driver's, times in seconds."""
    outcome = Outcome(0, -1, pid, 0, elapsed, start, finish, 0, b"", 0, b"")
    return format_line(barrier.id, barrier.line, NO_REPEAT, barrier.text, node, outcome, Mark.BARRIER)


def format_skipped(record: Record, task: Task) -> bytes:
    """The line of a task that a former run completed: that run's `record` of it, marked as skipped, and with
    the command that ran."""
    same = command_matches(record.command, task.command)
    command = task.command if same else command_of(record.command)
    return _format_again(record, task.id, task.line, task.repeat, command, Mark.SKIPPED)


def format_recorded(record: Record, item: Task | Barrier) -> bytes:
    """The line of a task or barrier that this run has completed already: its `record`."""
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
    """A node's name, in which nothing can end the field or the line."""
    return node if node and node.isprintable() else repr(node)


# ---- reading ----

# Possessive and without alternatives that overlap: linear in the line, whatever it holds.
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
"""What `scan_block` finds."""
_BRIEF_LINES = re.compile(
    b"^"
    + b"\t".join((b"(%b)" if name in BRIEF_FIELDS else b"%b") % _PATTERNS[name] for name in FIELDS)
    + rb"\n?",
    re.M,
)
_NUMBERS = (1, 2, 3, 5, 6, 7, 8, 9, 10, 12)
_DIGIT = re.compile(rb"[0-9]")


def parse_line(line: bytes) -> Record | None:
    """Read one line, with or without its line feed, of ours or of the original's 1.x or 3.0; None if it is
    not a line of a status file (see also `is_header`)."""
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
    """The quick look that an index of a long file needs: of the line that begins at `at`, where it ends
    (its line feed included), its mark, id, return code and reason. None as for `parse_line`."""
    found = _LINE.match(text, at)
    if found is None:
        return None
    flags, id, return_code = found.group(1, 2, 7)
    return found.end(), mark_of(flags), int(id), int(return_code), reason_of(flags)


def scan_block(block: bytes) -> list[tuple[bytes, ...]] | None:
    """`BRIEF_FIELDS` of every line of a block of whole lines, as they stand there: what a reader of millions
    of lines needs. None if one is no line for `parse_line`, but for numbers like 1.2.3 that are none."""
    found: list[tuple[bytes, ...]] = _BRIEF_LINES.findall(block)
    return found if len(found) == block.count(b"\n") else None


_REASONS = {reason.value.encode(): reason for reason in Reason}


def reason_of(flags: bytes) -> Reason:
    """The reason in a flags field: it stands in the fifth column, and nowhere else."""
    return _REASONS.get(flags[4:5], Reason.NONE)


@functools.lru_cache(maxsize=1024)
def mark_of(flags: bytes) -> Mark:
    """The mark in a flags field of four columns or five, of three (1.x), or of a barrier and four blanks
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
