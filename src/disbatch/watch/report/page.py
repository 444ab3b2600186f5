"""A report as one HTML file: pictures and tables, no script, no external resources."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from disbatch.model.failure import how_failed
from disbatch.model.text import count, counted, duration, printable, run_time
from disbatch.model.version import VERSION
from disbatch.watch.report.analysis import Analysis
from disbatch.watch.report.data import REASONS
from disbatch.watch.report.figures import Node, Report, SlotSeconds
from disbatch.watch.report.svg import (
    Axis,
    Bar,
    Timeline,
    busy_plot,
    draw_timeline,
    histogram_plot,
    spread_plot,
    timeline_plot,
)
from disbatch.watch.report.wording import (
    UNBROKEN,
    besides,
    by_interest,
    cells,
    clean,
    commands,
    examples,
    moment,
    outcomes,
    percentiles,
    rate,
    share,
    slot_time_rows,
    title_of_failures,
    where,
)

MARK = b"<!doctype html>\n<!-- disbatch report -->\n"
"""The beginning of each page: only a file that begins like this is ever replaced."""

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_NODES = 40
_MOST_NODES = 2000
_FAILURES = 50
_LONG = 2000


def render_page(analysis: Analysis, report: Report) -> bytes:
    """The complete file."""
    parts = [_head(report)]
    if report.utilisation is not None:
        axis = Axis([run.seconds for run in report.runs])
        timeline = draw_timeline(analysis.lines, analysis.counts, analysis.spans)
        parts += [
            _slot_time(report.slot_seconds),
            _busy(report, axis),
            _timeline(analysis, timeline, axis),
            _durations(report),
        ]
    parts += [_nodes(report), _failures(report), _slowest(report), _barriers(report)]
    parts += [_per_engine(report), _runs(report), _resume(report)]
    name = escape(clean(report.files[0].name, 200))
    css = Path(__file__).with_name("page.css").read_text("utf-8")
    text = (
        f'<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{name}: report</title>\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>\n{css}</style>\n</head>\n<body>\n{''.join(parts)}"
        f"<footer>Made by disbatch {VERSION} on {moment(time.time())}. Times are those of the nodes' "
        f"clocks, shown as {escape(time.strftime('%Z'))}.</footer>\n</body>\n</html>\n"
    )
    return MARK + text.encode("utf-8", "replace")


# ---- parts of HTML ----


def _section(title: str, body: str, hint: str = "") -> str:
    """A section of the page; empty without a body."""
    if not body:
        return ""
    explained = f'<p class="hint">{hint}</p>\n' if hint else ""
    return f"<section>\n<h2>{title}</h2>\n{explained}{body}</section>\n"


Column = tuple[str, ...]
"""The head of a column; its class: "n" for numbers, "less" if a narrow page may omit it; the class of its
cells, if that is another one."""


def _table(columns: Sequence[Column], rows: Iterable[Sequence[str]], name: str = "") -> str:
    """Cells are HTML; `name` is a class."""
    head = "".join(f'<th scope="col"{_class(look)}>{escape(words)}</th>' for words, look, *_ in columns)
    looks = [_class(column[-1]) for column in columns]
    body = "".join(
        f"<tr>{''.join(f'<td{look}>{cell}</td>' for look, cell in zip(looks, row, strict=True))}</tr>\n"
        for row in rows
    )
    return (
        f'<div class="scroll"><table{_class(name)}>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}</tbody></table></div>\n"
    )


def _class(name: str) -> str:
    return f' class="{name}"' if name else ""


def _swatch(tag: str, colour: str) -> str:
    return f'<{tag} class="swatch" style="--c:var(--{colour})"></{tag}>'


def _bad(words: str) -> str:
    return f'<span class="bad">{words}</span>'


def _code(text: str, width: int = _LONG) -> str:
    return f"<code>{escape(clean(text, width))}</code>"


# ---- the head ----


def _head(report: Report) -> str:
    names = [escape(clean(file.name, 400)) for file in report.files]
    lines = [f"<h1>{names[0]}</h1>\n"]
    lines += [f'<p class="faint">{name}</p>\n' for name in names[1:]]
    if report.start is not None and report.finish is not None:
        lines.append(f'<p class="faint">{moment(report.start)} to {moment(report.finish)}</p>\n')
    lines += [f'<p class="note">{escape(printable(note))}</p>\n' for note in report.notes]
    if report.tasks.known:
        shown = "".join(
            f"<div><dt>{name}</dt><dd>{value}<small>{words}</small></dd></div>\n"
            for name, value, words in _facts(report)
        )
        lines.append(f'<dl class="facts">\n{shown}</dl>\n')
        lines += [f'<p class="faint">{words}</p>\n' for words in besides(report.tasks)]
    else:
        lines.append("<p>No task has ended yet.</p>\n")
    return "<header>\n" + "".join(lines) + "</header>\n"


def _facts(report: Report) -> list[tuple[str, str, str]]:
    """Names, values, and what is beside them."""
    tasks = report.tasks
    facts = [("tasks", count(tasks.known), outcomes(tasks))]
    bad = tasks.failed - tasks.cancelled + tasks.lost
    if bad:
        name = "failed or lost" if tasks.lost else "failed"
        facts.append((name, _bad(count(bad)), share(bad / tasks.known)))
    if report.utilisation is not None:
        facts.append(("time", run_time(report.seconds), rate(report)))
        facts.append(("slots", count(report.slots), f"on {counted(len(report.nodes), 'node')}"))
        facts.append(("used by tasks", share(report.utilisation), "of the slots' time"))
    if report.barrier_count:
        waited = f"kept waiting for {duration(report.barrier_seconds)}"
        facts.append(("barriers", count(report.barrier_count), waited))
    return facts


# ---- time ----


def _slot_time(parts: SlotSeconds) -> str:
    bars, rows = "", []
    for name, words, _, meaning, seconds, part in slot_time_rows(parts):
        colour = "a" if name == "tasks" else name
        bars += f'<i style="flex:{part:.5f};--c:var(--{colour})"></i>'
        rows.append([f"{_swatch('span', colour)}{words}", share(part), duration(seconds), meaning])
    columns = [("", ""), ("share", "n"), ("slot time", "n"), ("", "less", "less faint")]
    stack = f'<div class="stack" aria-hidden="true">{bars}</div>\n'
    return _section("Where the time of the slots went", stack + _table(columns, rows))


def _busy(report: Report, axis: Axis) -> str:
    if not any(run.busy for run in report.runs):
        return ""
    hint = "How many slots worked; the dashed line is how many there were."
    if len(report.runs) > 1:
        hint += " Runs stand side by side, however long the pause between them."
    return _section("Slots at work", busy_plot(report.runs, axis), hint)


def _timeline(analysis: Analysis, timeline: Timeline, axis: Axis) -> str:
    if not timeline.bars and not timeline.cells:
        return ""
    if timeline.bars:
        hint = "Each bar is a task; neighbours alternate in shade."
        if len(timeline.bars) <= 2000:
            hint += " Point at one to see which."
    else:
        hint = f"A row for each {timeline.what}: the stronger the colour, the busier."
    if timeline.what == "slot":
        hint += (
            " Which slot a task had is not recorded: a task is shown in the one that was free for longest."
        )
    lines = analysis.lines
    names = lines.node_names

    def describe(bar: Bar) -> str:
        took, code = duration(bar.finish - bar.start), lines.codes[bar.line]
        ended = f", {how_failed(code, REASONS[lines.reasons[bar.line]].words)}" if code else ""
        return f"task {lines.ids[bar.line]} on {clean(names[lines.nodes[bar.line]], 60)}: {took}{ended}"

    keys = [("a", "tasks")]
    if any(bar.ending == 1 for bar in timeline.bars) or any(cell.failing for cell in timeline.cells):
        keys.append(("failed", "failed" if timeline.bars else "a third or more failed"))
    if any(bar.ending == 2 for bar in timeline.bars):
        keys.append(("uncounted", "attempts that do not count"))
    shown = "".join(f"<span>{_swatch('i', name)}{words}</span>" for name, words in keys)
    key = f'<p class="key">{shown}</p>\n' if len(keys) > 1 else ""
    return _section("Timeline", timeline_plot(timeline, axis, describe) + key, hint)


def _durations(report: Report) -> str:
    bins, logarithmic = report.durations.histogram, report.durations.logarithmic
    plot = histogram_plot(bins, logarithmic) if sum(each.count for each in bins) > 1 else ""
    columns = [("", ""), ("tasks", "n"), ("shortest", "n less"), ("5%", "n less"), ("median", "n")]
    columns += [("mean", "n less"), ("95%", "n"), ("99%", "n less"), ("longest", "n")]
    hint = "The scale is logarithmic: each step across is as many times longer." if logarithmic else ""
    return _section("How long tasks took", plot + _table(columns, percentiles(report.durations)), hint)


# ---- tables ----


def _nodes(report: Report) -> str:
    """All nodes, those with remarks first."""
    if len(report.nodes) < 2:
        return ""
    ordered = by_interest(report.nodes)
    spreads = [node.durations for node in ordered if node.durations is not None]
    low = min((spread.p5 for spread in spreads), default=0.0)
    high = max((spread.p95 for spread in spreads), default=0.0)
    body = _node_table(ordered[:_NODES], low, high)
    rest = ordered[_NODES:_MOST_NODES]
    if rest:
        more = f"{counted(len(rest), 'more node')}"
        body += f"<details><summary>{more}</summary>\n{_node_table(rest, low, high)}</details>\n"
    if len(ordered) > _MOST_NODES:
        left = counted(len(ordered) - _MOST_NODES, "more node")
        body += f"<p>And {left}: <code>--json</code> has them all.</p>\n"
    hint = (
        f"How long tasks took on each node, from {duration(low)} to {duration(high)}: the line goes "
        "from 5% to 95% of them, the block is the middle half, the mark the median. A node gets a remark "
        "(slow, fast, fails) only if chance hardly makes such a difference."
    )
    return _section("Nodes", body, hint)


def _node_table(listed: Sequence[Node], low: float, high: float) -> str:
    columns = [("node", "", "name"), ("slots", "n less"), ("tasks", "n less"), ("failed", "n")]
    columns += [("durations", "wide"), ("median", "n"), ("vs all", "n"), ("busy", "n less")]
    rows = []
    for node in listed:
        slow = "slow" in node.remarks
        look = "bad" if slow or "fails" in node.remarks else "good"
        remark = f'<br><span class="{look}">{", ".join(node.remarks)}</span>' if node.remarks else ""
        tasks, failed, *rest = cells(node)
        plot = spread_plot(node.durations, low, high, slow)
        rows.append([escape(clean(node.name, 60)) + remark, count(node.slots), tasks, failed, plot, *rest])
    return _table(columns, rows)


def _failures(report: Report) -> str:
    """A row for each kind of failure."""
    if not report.failures:
        return ""
    rows = []
    for failure in report.failures[:_FAILURES]:
        body = _bad(escape(failure.how)) + escape(where(failure))
        if failure.last_line:
            body += f"<br><code>{escape(failure.last_line)}</code>"
        body += f'<br><span class="faint">{escape(examples(failure, 120))}</span>'
        rows.append([count(failure.count), body])
    body = _table([("tasks", "n"), ("ended with", "")], rows)
    if report.failure_groups > _FAILURES:
        body += f"<p>And {counted(report.failure_groups - _FAILURES, 'more kind')}.</p>\n"
    hint = "By return code and the last line of their output, where all numbers count as equal."
    return _section(title_of_failures(report.tasks), body, hint)


def _slowest(report: Report) -> str:
    """The longest tasks."""
    if len(report.slowest) < 2:
        return ""
    rows = []
    for task in report.slowest:
        ended = f" {_bad(escape(how_failed(task.return_code, task.reason)))}" if task.return_code else ""
        node, command = escape(clean(task.node, 60)), _code(task.command) + ended
        rows.append([duration(task.elapsed), str(task.id), str(task.line), node, command])
    columns = [("took", "n"), ("task", "n"), ("line", "n less"), ("node", "", "name"), ("command", "most")]
    return _section("Slowest tasks", _table(columns, rows))


def _barriers(report: Report) -> str:
    """The barriers that made tasks wait longest."""
    if not report.barriers:
        return ""
    rows = [[str(each.id), duration(each.elapsed), escape(moment(each.finish))] for each in report.barriers]
    hint = f"The {len(rows)} that kept tasks waiting longest, of {count(report.barrier_count)}."
    columns = [("task number", "n"), ("kept waiting", "n"), ("ended", "")]
    return _section(
        "Barriers", _table(columns, rows, "narrow"), hint if report.barrier_count > len(rows) else ""
    )


def _per_engine(report: Report) -> str:
    """The commands that each engine ran."""
    if not report.per_engine:
        return ""
    rows = []
    for each in report.per_engine:
        failed = _bad(count(each.failed)) if each.failed else ""
        times = duration(each.median), duration(each.longest)
        rows.append([count(each.count), failed, *times, _code(each.command)])
    columns = [("ran", "n"), ("failed", "n"), ("median", "n"), ("longest", "n less"), ("command", "")]
    return _section("Commands for each engine", _table(columns, rows))


def _runs(report: Report) -> str:
    """Each run, if there are several."""
    if len(report.runs) < 2:
        return ""
    columns = [
        ("run", "n"),
        ("began", ""),
        ("took", "n"),
        ("slots", "n"),
        ("nodes", "n less"),
        ("tasks", "n"),
    ]
    rows = []
    for number, run in enumerate(report.runs, 1):
        numbers = map(count, (run.slots, run.nodes, run.tasks))
        took = run_time(run.seconds)
        rows.append([str(number), escape(moment(run.start)), took, *numbers, _code(run.file)])
    return _section("Runs", _table([*columns, ("file", "")], rows))


def _resume(report: Report) -> str:
    """The commands that continue the run."""
    body = ""
    for clauses, command in commands(report):
        sentence = ". ".join(clause.capitalize() for clause in clauses)
        body += f"<p>{sentence}:</p>\n<pre>{escape(clean(command, UNBROKEN))}</pre>\n"
    return _section("Go on", body)
