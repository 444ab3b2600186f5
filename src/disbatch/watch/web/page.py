"""The page as HTML, and its search in the status file.

The HTML holds all numbers, so the page shows the state of the run without any script; the script then updates
its tables. A search finds tasks in the status file, newest first, within bounds: it reads a limited number of
bytes in a limited time, then reports its position, from which the next one continues.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

import msgspec

from disbatch.model.failure import line_of_record
from disbatch.model.statusline import Mark, Record, parse_line, unquoted
from disbatch.model.task import how_ended
from disbatch.model.text import count, counted, duration, per_second, printable, run_time, whole_seconds
from disbatch.model.version import VERSION
from disbatch.model.view import RunView
from disbatch.rundir.statusfile import BLOCK, blocks_before
from disbatch.watch.status_text import kind_cells, still_waiting
from disbatch.watch.web.state import Picture
from disbatch.wire.ownfile import open_own

REFRESH = 5
"""Seconds after which a browser without scripts reloads the page."""
MOST_ROWS = 200
NOBODY = "–"


@functools.cache
def _part(name: str) -> str:
    """The constant parts of every page."""
    return (Path(__file__).with_name("parts") / f"{name}.html").read_text("utf-8")


def _html(text: str) -> str:
    return escape(printable(text))


def render(picture: Picture) -> str:
    """The complete page."""
    view = picture.view
    refresh = "" if picture.over else f'<noscript><meta http-equiv="refresh" content="{REFRESH}"></noscript>'
    name = "disbatch" if view is None else _html(view.name)
    body = [_head(picture), _progress(view), _part("course"), _part("slots"), _engines(picture)]
    body += [
        _running(picture),
        _kinds(picture),
        _failures(picture),
        _part("search"),
        _log(picture),
        _part("dialog"),
    ]
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{name}</title>\n{refresh}\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        '<link rel="icon" href="/static/icon.svg" type="image/svg+xml">\n'
        '<link rel="stylesheet" href="/static/vendor/uplot.css">\n'
        '<link rel="stylesheet" href="/static/page.css">\n'
        '<script src="/static/vendor/uplot.js" defer></script>\n'
        '<script type="module" src="/static/page.js"></script>\n'
        f'</head>\n<body>\n<a class="skip" href="#engines">Skip to the nodes</a>\n{"".join(body)}'
        f"<footer>disbatch {VERSION}. Curves: uPlot.</footer>\n</body>\n</html>\n"
    )


def _head(picture: Picture) -> str:
    view = picture.view
    if view is None:
        name, mode, notice, job = "A run", "waiting for the driver", picture.silence, ""
    else:
        name, mode, notice, job = view.name, _mode(view), picture.silence or view.notice, view.jobid
    return (
        f'<header>\n<div class="title"><h1 id="name">{_html(name)}</h1>\n'
        f'<p><span id="mode" class="badge" data-mode="{_html(mode)}" role="status">{_html(mode)}</span> '
        f'<span class="faint">job <span id="jobid">{_html(job)}</span></span></p></div>\n'
        '<div class="orders scripted"><button id="pause" type="button">Pause</button>'
        '<button id="finish" type="button" class="danger">Finish…</button></div>\n'
        f'<p id="notice" class="note" role="alert"{"" if notice else " hidden"}>{_html(notice)}</p>\n'
        "</header>\n<main>\n"
    )


def _mode(view: RunView) -> str:
    return "paused" if view.paused and view.mode == "running" else view.mode


def _progress(view: RunView | None) -> str:
    if view is None:
        return (
            f'<section aria-label="Progress">{_bar(0, None, 0)}<dl class="facts" id="facts"></dl></section>\n'
        )
    facts = "".join(
        f"<div><dt>{label}</dt><dd><b>{_html(value)}</b></dd></div>\n" for label, value in _facts(view)
    )
    bar = _bar(view.finished, view.total, view.failed)
    return f'<section aria-label="Progress">\n{bar}<dl class="facts" id="facts">\n{facts}</dl>\n</section>\n'


def _bar(done: int, total: int | None, failed: int) -> str:
    """An svg, since inline styles are forbidden in the page."""
    share = 0.0 if not total else min(100.0, 100 * done / total)
    bad = 0.0 if not total else min(100.0, 100 * failed / total)
    now = "" if total is None else f' aria-valuenow="{share:.1f}"'
    return (
        '<div id="bar" role="progressbar" aria-label="Tasks done" aria-valuemin="0" aria-valuemax="100"'
        f"{now}>"
        '<svg viewBox="0 0 100 1" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="done" width="{share:.3f}" height="1"/>'
        f'<rect class="failed" width="{bad:.3f}" height="1"/></svg></div>\n'
    )


def _facts(view: RunView) -> list[tuple[str, str]]:
    finished = view.finished
    total = "" if view.total is None else f" of {count(view.total)}"
    left = NOBODY if view.remaining is None else whole_seconds(view.remaining) if view.remaining else "none"
    seldom = (
        *(("cancelled", view.cancelled), ("done before", view.skipped), ("run again", view.retried)),
        *(("given up", view.lost - view.not_run), ("not run", view.not_run)),
    )
    used = "" if not view.slots else f"{view.running / view.slots:.0%}"
    return [
        ("done", f"{count(finished)}{total}"),
        ("failed", count(view.failed - view.cancelled + view.skipped_failed)),
        ("running", count(view.running)),
        ("slots", f"{count(view.slots)}{f', {used} busy' if used else ''}"),
        ("waiting", count(still_waiting(view))),
        ("rate", _rate(view.rate)),
        ("time left", left),
        ("elapsed", (run_time if view.mode == "over" else whole_seconds)(view.seconds)),
        *((label, count(number)) for label, number in seldom if number),
    ]


def _table(name: str, title: str, head: str, rows: Iterable[str], *, tools: str = "", note: str = "") -> str:
    return (
        f'<section aria-labelledby="h-{name}"><div class="heading"><h2 id="h-{name}">{title}</h2>{tools}'
        f'</div>\n<div class="scroll"><table id="{name}"><thead><tr>{head}</tr></thead>\n<tbody>\n'
        f"{''.join(rows)}"
        f'</tbody></table></div>\n<p class="faint" id="{name}-note">{_html(note)}</p></section>\n'
    )


_ENGINE_COLUMNS = (
    *(("node", "node", ""), ("state", "state", ""), ("busy", "busy slots", "n"), ("done", "done", "n")),
    *(("failed", "failed", "n"), ("rate", "rate", "n"), ("load", "load", "n"), ("memory", "memory", "n")),
    ("heard", "last heard", "n"),
)


def _engines(picture: Picture) -> str:
    rows = list(picture.engines.values())
    beside = None if picture.view is None else picture.view.rate
    head = "".join(
        f'<th class="{kind}" data-sort="{name}" aria-sort="none">{label}</th>'
        for name, label, kind in _ENGINE_COLUMNS
    )
    text = (
        f'<tr><th scope="row">{_html(row.place)}</th><td>{_html(row.state)}</td>'
        f'<td class="n">{row.running} of {row.slots}</td><td class="n">{count(row.done)}</td>'
        f'<td class="n">{count(row.failed)}</td><td class="n">{_rate(row.rate, beside)}</td>'
        f'<td class="n">{NOBODY if row.load is None else row.load}</td>'
        f'<td class="n">{_memory(row.memory_used, row.memory_total)}</td><td class="n"></td></tr>\n'
        for row in rows[:MOST_ROWS]
    )
    tools = (
        '<input id="filter" class="scripted" type="search" placeholder="Filter" aria-label="Filter nodes">'
    )
    more = len(rows) - MOST_ROWS
    note = f"and {count(more)} more" if more > 0 else ""
    return _table("engines", "Nodes", head + '<th class="scripted"></th>', text, tools=tools, note=note)


def _rate(rate: float | None, beside: float | None = None) -> str:
    return NOBODY if rate is None else per_second(rate, beside)


def _memory(used: int | None, total: int | None) -> str:
    return NOBODY if not total or used is None else f"{used / total:.0%}"


def _running(picture: Picture) -> str:
    rows = (
        f'<tr><td class="n">{row.id}</td><td class="n">{row.line}</td><td>{_html(row.place)}</td>'
        f'<td class="n">{"new" if row.seconds is None else whole_seconds(row.seconds)}</td>'
        f"<td><code>{_html(row.command)}</code></td></tr>\n"
        for row in picture.running
    )
    head = '<th class="n">task</th><th class="n">line</th><th>node</th><th class="n">for</th><th>command</th>'
    return _table("running", "Longest running tasks", head + '<th class="scripted"></th>', rows)


def _kinds(picture: Picture) -> str:
    view = picture.view
    kinds = [] if view is None else view.failure_kinds
    rows = (
        f'<tr><td class="n">{total}</td><td class="bad">{_html(how)}</td><td class="n">{id}</td>'
        f'<td>{_html(where)}</td><td class="wide"><samp>{_html(said)}</samp></td></tr>\n'
        for total, how, id, where, said in map(kind_cells, kinds)
    )
    head = '<th class="n">tasks</th><th>ended</th><th class="n">e.g. task</th><th>on</th><th>last line</th>'
    more = 0 if view is None else view.failure_kinds_count - len(kinds)
    note = f"and {counted(more, 'more kind')}" if more > 0 else "" if kinds else "none so far"
    return _table("kinds", "Kinds of failures", head, rows, note=note)


def _failures(picture: Picture) -> str:
    newest = [row for _, row in picture.failures][: -MOST_ROWS - 1 : -1]
    rows = (
        f'<tr><td class="n">{row.id}</td><td class="n">{row.line}</td><td>{_html(row.place)}</td>'
        f'<td class="bad">{how_ended(row.return_code, row.reason)}</td>'
        f'<td class="n">{duration(row.seconds)}</td>'
        f"<td><code>{_html(row.command)}</code>"
        f"{f'<samp>{_html(row.last_line or row.snippet)}</samp>' if row.snippet else ''}</td></tr>\n"
        for row in newest
    )
    head = (
        '<th class="n">task</th><th class="n">line</th><th>node</th><th>ended</th><th class="n">took</th>'
        "<th>command and output</th>"
    )
    return _table("failures", "Failed tasks", head, rows, note="" if newest else "none so far")


def _log(picture: Picture) -> str:
    newest = [row for _, row in picture.log][: -MOST_ROWS - 1 : -1]
    rows = "".join(
        f"<li><time>{time.strftime('%H:%M:%S', time.localtime(row.time))}</time> {_html(row.text)}</li>\n"
        for row in newest
    )
    head = '<section aria-labelledby="h-log"><h2 id="h-log">Messages</h2>'
    said = "" if newest else "none so far"
    return f'{head}\n<ol id="log">\n{rows}</ol>\n<p class="faint" id="log-note">{said}</p></section>\n'


MOST_FOUND = 100
MOST_BYTES = 256 << 20
"""The most bytes read in one search."""
MOST_SECONDS = 2.0
LONGEST_QUERY = 200
SHOWN = 400
"""Characters of a command or snippet."""
_BLOCK = BLOCK
_MARKS = {Mark.SKIPPED: "done before", Mark.SUPERSEDED: "does not count", Mark.PER_ENGINE: "per engine"}


class Found(msgspec.Struct, frozen=True):
    """A task whose line matches."""

    id: int
    line: int
    node: str
    return_code: int
    seconds: float
    finish: float
    snippet: str
    command: str
    mark: str
    reason: str = ""
    last_line: str = ""


class Search(msgspec.Struct, frozen=True):
    """The result: what was `found`, newest first; `before`: the offset in the file from which to continue, 0:
    everything was searched. `problem`: why the search failed."""

    found: list[Found]
    before: int = 0
    problem: str = ""


def search(path: str, query: str, *, failed: bool, before: int | None) -> Search:
    """Search for `query` (an id, or text in node, snippets or command; empty: everything) in the lines of
    tasks, or only of `failed` ones, before byte `before` of the file (None: its end)."""
    try:
        descriptor = open_own(path, os.O_RDONLY)
    except OSError as error:
        return Search([], problem=f"the status file cannot be read: {error.strerror}")
    try:
        size = os.fstat(descriptor).st_size
        end = size if before is None else max(0, min(before, size))
        return _search(descriptor, end, query[:LONGEST_QUERY], failed)
    except OSError as error:
        return Search([], problem=f"the status file cannot be read: {error.strerror}")
    finally:
        os.close(descriptor)


def _search(descriptor: int, end: int, query: str, failed: bool) -> Search:
    found: list[Found] = []
    wanted, number = query.lower().encode("utf-8", "replace"), query.encode() if query.isdecimal() else b""
    # The file escapes some characters.
    needle = b"" if set(query) & set("\\'\"") else wanted
    deadline, least = time.monotonic() + MOST_SECONDS, end - MOST_BYTES
    for offset, block in blocks_before(descriptor, end, _BLOCK):
        place = offset + len(block) + 1
        for line in reversed(block.split(b"\n")) if needle in block.lower() else ():
            place -= len(line) + 1
            if (failed and not line.startswith(b"R")) or needle not in line.lower():
                continue
            task = _task(line, wanted, number)
            if task is not None:
                found.append(task)
                if len(found) == MOST_FOUND:
                    return Search(found, place)
        if offset and (offset <= least or time.monotonic() > deadline):
            return Search(found, offset)
    return Search(found)


def _task(line: bytes, wanted: bytes, number: bytes) -> Found | None:
    record = parse_line(line)
    if record is None or record.mark is Mark.BARRIER:
        return None
    command, snippet = _text(record.command), _text(record.err) or _text(record.out)
    where = f"{record.node}\n{command}\n{snippet}".lower().encode("utf-8", "replace")
    if number != str(record.id).encode() and wanted not in where:
        return None  # it was a part of a number, or spanned two fields
    return _found(record, command, snippet)


def _found(r: Record, command: str, snippet: str) -> Found:
    return Found(
        r.id, r.line, printable(r.node), r.return_code, r.elapsed, r.finish, printable(snippet[:SHOWN]),
        printable(command[:SHOWN]), _MARKS.get(r.mark, ""), r.reason.words,
        line_of_record(r) if r.failed else "",
    )  # fmt: skip


def _text(field: bytes) -> str:
    plain = unquoted(field)
    return (field if plain is None else plain).decode("utf-8", "replace")


def as_json(result: Search) -> dict[str, Any]:
    """As JSON for the page."""
    return {
        "found": [msgspec.structs.astuple(task) for task in result.found],
        "before": result.before,
        "problem": result.problem,
    }
