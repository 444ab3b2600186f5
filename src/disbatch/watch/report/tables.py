"""The tables of the page: percentiles, nodes, failures, single tasks, runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from disbatch.model.failure import how_failed
from disbatch.model.text import count, counted, duration, run_time
from disbatch.watch.report.figures import Failure, Node, Report
from disbatch.watch.report.svg import spread_plot
from disbatch.watch.report.text import (
    UNBROKEN,
    by_interest,
    clean,
    examples,
    moment,
    share,
    title_of_failures,
    where,
)

_NODES = 40
_MOST_NODES = 2000
_FAILURES = 50
_LONG = 2000

Cell = tuple[str, str]
"""HTML of a cell, and its class: "n" for numbers, "less" if a narrow page may omit it."""


def section(title: str, body: str, hint: str = "") -> str:
    """A section of the page; empty without a body."""
    if not body:
        return ""
    explained = f'<p class="hint">{hint}</p>\n' if hint else ""
    return f"<section>\n<h2>{title}</h2>\n{explained}{body}</section>\n"


def table(heads: Sequence[Cell], rows: Iterable[Sequence[Cell]], name: str = "") -> str:
    """Heads are text; cells are HTML; `name` is a class."""
    head = "".join(f'<th scope="col"{_class(name)}>{escape(words)}</th>' for words, name in heads)
    body = "".join(
        "<tr>" + "".join(f"<td{_class(name)}>{cell}</td>" for cell, name in row) + "</tr>\n" for row in rows
    )
    return (
        f'<div class="scroll"><table{_class(name)}>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}</tbody></table></div>\n"
    )


def _class(name: str) -> str:
    return f' class="{name}"' if name else ""


def percentiles(report: Report) -> str:
    """Two rows at most."""
    heads = [
        ("", ""),
        ("tasks", "n"),
        ("shortest", "n less"),
        ("5%", "n less"),
        ("median", "n"),
        ("mean", "n less"),
    ]
    heads += [("95%", "n"), ("99%", "n less"), ("longest", "n")]
    rows = []
    for label, spread in (("succeeded", report.durations.succeeded), ("failed", report.durations.failed)):
        if spread is not None:
            seconds = (
                spread.shortest,
                spread.p5,
                spread.median,
                spread.mean,
                spread.p95,
                spread.p99,
                spread.longest,
            )
            cells = [label, count(spread.count), *map(duration, seconds)]
            rows.append([(cell, name) for cell, (_, name) in zip(cells, heads, strict=True)])
    return table(heads, rows)


def nodes(report: Report) -> str:
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
    return section("Nodes", body, hint)


def _node_table(listed: Sequence[Node], low: float, high: float) -> str:
    heads = [("node", ""), ("slots", "n less"), ("tasks", "n less"), ("failed", "n"), ("durations", "wide")]
    heads += [("median", "n"), ("vs all", "n"), ("busy", "n less")]
    rows = []
    for node in listed:
        slow = "slow" in node.remarks
        look = "bad" if slow or "fails" in node.remarks else "good"
        remark = f'<br><span class="{look}">{", ".join(node.remarks)}</span>' if node.remarks else ""
        cells = [
            escape(clean(node.name, 60)) + remark,
            count(node.slots),
            count(node.tasks),
            count(node.failed) if node.failed else "",
            spread_plot(node.durations, low, high, slow),
            duration(node.durations.median) if node.durations else "",
            f"×{node.ratio:.2f}" if node.ratio is not None else "",
            share(node.busy) if node.busy is not None else "",
        ]
        rows.append([(cell, "name" if not at else heads[at][1]) for at, cell in enumerate(cells)])
    return table(heads, rows)


def failures(report: Report) -> str:
    """A row for each kind of failure."""
    rows = []
    for failure in report.failures[:_FAILURES]:
        said = failure.last_line
        body = f'<span class="bad">{escape(failure.how)}</span>{escape(where(failure))}'
        body += f"<br><code>{escape(said)}</code>" if said else ""
        rows.append(
            [(count(failure.count), "n"), (body + f'<br><span class="faint">{_examples(failure)}</span>', "")]
        )
    if not rows:
        return ""
    body = table([("tasks", "n"), ("ended with", "")], rows)
    if report.failure_groups > _FAILURES:
        body += f"<p>And {counted(report.failure_groups - _FAILURES, 'more kind')}.</p>\n"
    return section(
        title_of_failures(report.tasks),
        body,
        "By return code and the last line of their output, where all numbers count as equal.",
    )


def _examples(failure: Failure) -> str:
    return escape(examples(failure, 120))


def slowest(report: Report) -> str:
    """The longest tasks."""
    if len(report.slowest) < 2:
        return ""
    rows = []
    for task in report.slowest:
        ended = (
            f' <span class="bad">{escape(how_failed(task.return_code, task.reason))}</span>'
            if task.return_code
            else ""
        )
        rows.append(
            [
                (duration(task.elapsed), "n"),
                (str(task.id), "n"),
                (str(task.line), "n less"),
                (escape(clean(task.node, 60)), "name"),
                (f"<code>{escape(clean(task.command, _LONG))}</code>{ended}", "most"),
            ]
        )
    heads = [("took", "n"), ("task", "n"), ("line", "n less"), ("node", ""), ("command", "most")]
    return section("Slowest tasks", table(heads, rows))


def barriers(report: Report) -> str:
    """The barriers that made tasks wait longest."""
    if not report.barriers:
        return ""
    rows = [
        [(str(each.id), "n"), (duration(each.elapsed), "n"), (escape(moment(each.finish)), "")]
        for each in report.barriers
    ]
    more = report.barrier_count - len(rows)
    shown = (
        f"The {len(rows)} that kept tasks waiting longest, of {count(report.barrier_count)}." if more else ""
    )
    heads = [("task number", "n"), ("kept waiting", "n"), ("ended", "")]
    return section("Barriers", table(heads, rows, "narrow"), shown)


def per_engine(report: Report) -> str:
    """The commands that each engine ran."""
    rows = []
    for each in report.per_engine:
        failed = f'<span class="bad">{count(each.failed)}</span>' if each.failed else ""
        command = f"<code>{escape(clean(each.command, _LONG))}</code>"
        times = [(duration(each.median), "n"), (duration(each.longest), "n less")]
        rows.append([(count(each.count), "n"), (failed, "n"), *times, (command, "")])
    if not rows:
        return ""
    heads = [("ran", "n"), ("failed", "n"), ("median", "n"), ("longest", "n less"), ("command", "")]
    return section("Commands for each engine", table(heads, rows))


def runs(report: Report) -> str:
    """Each run, if there are several."""
    if len(report.runs) < 2:
        return ""
    heads = [
        ("run", "n"),
        ("began", ""),
        ("took", "n"),
        ("slots", "n"),
        ("nodes", "n less"),
        ("tasks", "n"),
        ("file", ""),
    ]
    rows = [
        [
            (str(number), "n"),
            (escape(moment(run.start)), ""),
            (run_time(run.seconds), "n"),
            (count(run.slots), "n"),
            (count(run.nodes), "n less"),
            (count(run.tasks), "n"),
            (f"<code>{escape(clean(run.file, _LONG))}</code>", ""),
        ]
        for number, run in enumerate(report.runs, 1)
    ]
    return section("Runs", table(heads, rows))


def resume(report: Report) -> str:
    """The commands that continue the run."""
    body = ""
    if report.resume.rest:
        body = "<p>Run the tasks that have no result:</p>\n" + _command(report.resume.rest)
    if report.tasks.failed:
        again = "All tasks have ended. Run the unsuccessful ones again"
        what = "Run these and the unsuccessful ones" if body else again
        body += f"<p>{what}:</p>\n" + _command(report.resume.failed)
    return section("Go on", body) if body else ""


def _command(words: str) -> str:
    return f"<pre>{escape(clean(words, UNBROKEN))}</pre>\n"
