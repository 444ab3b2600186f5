"""Describe failures: a task's last line of output, and the kinds of failures in a run, counted in bounded
memory."""

from __future__ import annotations

import functools
import re
import signal
from collections import OrderedDict
from collections.abc import Iterable
from typing import TYPE_CHECKING

from disbatch.model.statusline import unquoted
from disbatch.model.task import LONGEST_LINE, REASON_WORDS, SNIPPET_EDGE, Outcome, Reason, how_ended
from disbatch.model.text import printable, valid
from disbatch.model.view import EndedTask, FailureKind, as_text

if TYPE_CHECKING:
    from disbatch.model.statusline import Record

CUT = "…"
"""Replaces the part of a line that was left out."""

# Escape sequences of terminals: colours and the like, titles and links, and the choice of a character set.
_ESCAPE = re.compile(
    "(?:\x1b\\[|\x9b)[0-?]*[ -/]*[@-~]|\x1b[\\]PX^_][^\x07\x1b\x9c]*(?:\x07|\x1b\\\\|\x9c)?|\x1b[ -/]*[0-~]"
)
# Long hexadecimal ids are masked like numbers.
_NUMBER = re.compile(
    r"\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b"
    r"|\b(?=[a-f]*[0-9])[0-9a-f]{8,}\b"
    r"|0x[0-9a-f]+"
    r"|(?:(?<![\w)\]])[-+])?[0-9]+(?:[.,][0-9]+)*(?:e[-+]?[0-9]+)?",
    re.IGNORECASE,
)
_KNOWN = {126: "cannot be executed", 127: "command not found"}
"""The meaning of these return codes in bash."""
_CONTINUATION = bytes(range(0x80, 0xC0))
"""Bytes that do not begin a character in UTF-8."""


def last_line(said: bytes, *, cut: bool = False) -> str:
    """The last line of `said` that is not empty, made printable, without colours. `cut`: `said` begins in the
    middle of a text, so its first line may lack its beginning. A carriage return ends a line, since progress
    displays use it to begin the line again. At most LONGEST_LINE characters; empty if there is no such
    line."""
    first, *others = said.splitlines() or [b""]
    for line in reversed(others):
        text = _clean(line)
        if text:
            return _without_end(text)
    text = _clean(first.lstrip(_CONTINUATION) if cut else first)
    return _without_beginning(text) if cut and text else _without_end(text)


def line_of_snippet(snippet: bytes, count: int) -> str:
    """The last line of a snippet from a status line, whole words only; the snippet is of a text of `count`
    bytes."""
    if not count:
        return ""  # nothing was printed: the snippet of a task that never ran tells why
    if count <= 2 * SNIPPET_EDGE or len(snippet) <= 2 * SNIPPET_EDGE:
        return last_line(snippet)
    end = last_line(snippet[-SNIPPET_EDGE:], cut=True)
    if end:
        return end
    beginning = last_line(snippet[:SNIPPET_EDGE])
    return beginning and _whole_words(beginning) + CUT


def line_of_outcome(outcome: Outcome) -> str:
    """The last line that the task printed; an engine of an older version reports only the snippets."""
    o = outcome
    if o.last_line:
        return printable(o.last_line)
    return line_of_snippet(o.err_snippet, o.err_bytes) or line_of_snippet(o.out_snippet, o.out_bytes)


def line_of_record(record: Record) -> str:
    """The last line that the task printed, as far as its status line shows it."""
    r = record
    for field, count in ((r.err, r.err_bytes), (r.out, r.out_bytes)):
        line = line_of_snippet(unquoted(field) or b"", count)
        if line:
            return line
    return ""


@functools.lru_cache(maxsize=1024)
def masked(line: str) -> str:
    """`line` with # for each number in it, so that two lines that differ only in numbers compare equal."""
    return _NUMBER.sub("#", line)


def is_cancelled(reason: str) -> bool:
    """True if the task was cancelled, and did not fail by itself."""
    return reason == REASON_WORDS[Reason.CANCELLED]


def how_failed(return_code: int, reason: str = "") -> str:
    """`exit 3`, `exit 127 (command not found)`, `exit 137 (SIGKILL)`, `killed by SIGKILL`, `cancelled`,
    `lost with its node`."""
    said = how_ended(return_code, reason)
    if reason:
        return said
    if return_code in _KNOWN:
        return f"{said} ({_KNOWN[return_code]})"
    if 128 < return_code < 192:  # a command that the task's shell ran was killed
        try:
            return f"{said} ({signal.Signals(return_code - 128).name})"
        except ValueError:
            return said
    return said


def _clean(line: bytes) -> str:
    return printable(_ESCAPE.sub("", line.decode("utf-8", "surrogateescape"))).strip()


def _without_beginning(text: str) -> str:
    """`text` lacks its beginning: return it from its first whole word on."""
    text = text[1 - LONGEST_LINE :]
    _, blank, words = text.partition(" ")
    return f"{CUT} {words}" if blank and words else CUT + text


def _without_end(text: str) -> str:
    return text if len(text) <= LONGEST_LINE else _whole_words(text[: LONGEST_LINE - 1]) + CUT


def _whole_words(text: str) -> str:
    """Without the last word, which is incomplete, unless it is the only one."""
    words, blank, _ = text.rpartition(" ")
    return f"{words} " if blank and words else text


MOST_KINDS = 50
"""Kinds with a last line of their own; beyond these, one for each return code and reason."""

_Key = tuple[int, str, str]


class _Kind:
    __slots__ = ("count", "first", "nodes")

    def __init__(self, first: EndedTask) -> None:
        self.count = 0
        self.first = first
        self.nodes: set[str] = set()


class Kinds:
    """The kinds of failures among the tasks that were added. At the limit of kinds, one that occurred once is
    dropped for a new one, and counted as various."""

    def __init__(self) -> None:
        self._kinds: dict[_Key, _Kind] = {}
        self._once: OrderedDict[_Key, None] = OrderedDict()
        """Kinds that occurred once, oldest first."""
        self._various: dict[tuple[int, str], _Kind] = {}

    @property
    def count(self) -> int:
        """The number of kinds."""
        return len(self._kinds) + len(self._various)

    def add(self, task: EndedTask, count: int = 1, nodes: Iterable[str] = ()) -> None:
        """Add `count` tasks that failed in the same way as this one, the first of them, on these nodes."""
        key = task.return_code, task.reason, masked(task.last_line)
        kind = self._kinds.get(key)
        if kind is None:
            kind = self._kind_for(key, task)
        if kind.count or count > 1:
            self._once.pop(key, None)
        kind.count += count
        kind.nodes.add(task.place)
        if nodes:
            kind.nodes.update(nodes)

    def add_various(self, task: EndedTask, count: int) -> None:
        """Add `count` tasks that failed with the return code and reason of this one; their last lines are not
        known."""
        kind = self._various.setdefault((task.return_code, task.reason), _Kind(task))
        kind.count += count
        kind.nodes.add(task.place)

    def _kind_for(self, key: _Key, task: EndedTask) -> _Kind:
        if len(self._kinds) >= MOST_KINDS:
            if not self._once:
                return self._various.setdefault(key[:2], _Kind(task))
            once, _ = self._once.popitem(last=False)
            gone = self._kinds.pop(once)
            various = self._various.setdefault(once[:2], _Kind(gone.first))
            various.count += 1
            various.nodes |= gone.nodes
        self._once[key] = None
        kind = self._kinds[key] = _Kind(task)
        return kind

    def most_frequent(self, most: int) -> list[FailureKind]:
        """The most frequent kinds, at most `most`."""
        if not most:
            return []
        found = [_shown(kind, various=False) for kind in self._kinds.values()]
        found += [_shown(kind, various=True) for kind in self._various.values()]
        return sorted(found, key=lambda kind: (-kind.count, kind.id))[:most]


def _shown(kind: _Kind, *, various: bool) -> FailureKind:
    first = kind.first
    return FailureKind(
        count=kind.count,
        return_code=first.return_code,
        reason=first.reason,
        last_line=first.last_line,
        id=first.id,
        line=first.line,
        node=valid(first.place),
        nodes=len(kind.nodes),
        command=as_text(first.command),
        various=various,
    )
