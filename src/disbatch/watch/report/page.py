"""A report as one HTML file: pictures inside, no script, no external resources."""

from __future__ import annotations

import time
from html import escape
from pathlib import Path

from disbatch.model.failure import how_failed
from disbatch.model.text import count, counted, duration, per_second, printable, run_time
from disbatch.model.version import VERSION
from disbatch.watch.report import tables
from disbatch.watch.report.analysis import Analysis
from disbatch.watch.report.data import REASONS
from disbatch.watch.report.figures import Report, Went
from disbatch.watch.report.svg import (
    Axis,
    Bar,
    Timeline,
    busy_plot,
    draw_timeline,
    histogram_plot,
    timeline_plot,
)
from disbatch.watch.report.text import WENT, besides, clean, moment, outcomes, share

MARK = b"<!doctype html>\n<!-- disbatch report -->\n"
"""The beginning of each page: only a file that begins like this is ever replaced."""

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def render_page(analysis: Analysis, report: Report) -> bytes:
    """The complete file."""
    parts = [_head(report)]
    if report.utilisation is not None:
        axis = Axis([run.seconds for run in report.runs])
        timeline = draw_timeline(analysis.lines, analysis.counts, analysis.stretches)
        parts += [
            _went(report.slot_seconds),
            _busy(report, axis),
            _timeline(analysis, timeline, axis),
            _durations(report),
        ]
    parts += [tables.nodes(report), tables.failures(report), tables.slowest(report), tables.barriers(report)]
    parts += [tables.per_engine(report), tables.runs(report), tables.resume(report)]
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


def _head(report: Report) -> str:
    names = [escape(clean(file.name, 400)) for file in report.files]
    lines = [f"<h1>{names[0]}</h1>\n"]
    lines += [f'<p class="faint">{name}</p>\n' for name in names[1:]]
    if report.start is not None and report.finish is not None:
        lines.append(f'<p class="faint">{moment(report.start)} to {moment(report.finish)}</p>\n')
    lines += [f'<p class="note">{escape(printable(note))}</p>\n' for note in report.notes]
    tasks = report.tasks
    if not tasks.known:
        return "<header>\n" + "".join(lines) + "<p>No task has ended yet.</p>\n</header>\n"
    facts = [("tasks", count(tasks.known), outcomes(tasks))]
    bad = tasks.failed - tasks.cancelled + tasks.lost
    if bad:
        facts.append(
            (
                "failed or lost" if tasks.lost else "failed",
                f'<span class="bad">{count(bad)}</span>',
                share(bad / tasks.known),
            )
        )
    if report.utilisation is not None:
        ran = sum(run.tasks for run in report.runs)
        rate = per_second(ran / report.seconds) if report.seconds > 0 else ""
        facts.append(("time", run_time(report.seconds), rate))
        facts.append(("slots", count(report.slots), f"on {counted(len(report.nodes), 'node')}"))
        facts.append(("used by tasks", share(report.utilisation), "of the slots' time"))
    if report.barrier_count:
        facts.append(
            ("barriers", count(report.barrier_count), f"kept waiting for {duration(report.barrier_seconds)}")
        )
    shown = "".join(
        f"<div><dt>{name}</dt><dd>{value}<small>{words}</small></dd></div>\n" for name, value, words in facts
    )
    lines.append(f'<dl class="facts">\n{shown}</dl>\n')
    lines += [f'<p class="faint">{words}</p>\n' for words in besides(tasks)]
    return "<header>\n" + "".join(lines) + "</header>\n"


def _went(parts: Went) -> str:
    shown = [(name, words, getattr(parts, name)) for name, words, _ in WENT if getattr(parts, name) > 0]
    colour = {name: "--a" if name == "tasks" else f"--{name}" for name, _, _ in shown}
    bars = "".join(
        f'<i style="flex:{seconds / parts.whole:.5f};--c:var({colour[name]})"></i>'
        for name, _, seconds in shown
    )
    rows = [
        [
            (f'<span class="swatch" style="--c:var({colour[name]})"></span>{words}', ""),
            (share(seconds / parts.whole), "n"),
            (duration(seconds), "n"),
            (_MEANING[name], "less faint"),
        ]
        for name, words, seconds in shown
    ]
    heads = [("", ""), ("share", "n"), ("slot time", "n"), ("", "less")]
    return tables.section(
        "Where the time of the slots went",
        f'<div class="stack" aria-hidden="true">{bars}</div>\n' + tables.table(heads, rows),
    )


_MEANING = {
    "tasks": "tasks that count",
    "uncounted": "attempts that do not count: ended before their end, or run again",
    "startup": "before the first task of a slot",
    "barriers": "waiting for the last task before a barrier",
    "tail": "after the last task of a slot",
    "other": "from one task of a slot to its next",
}


def _busy(report: Report, axis: Axis) -> str:
    if not any(run.busy for run in report.runs):
        return ""
    hint = "How many slots worked; the dashed line is how many there were."
    if len(report.runs) > 1:
        hint += " Runs stand side by side, however long the pause between them."
    return tables.section("Slots at work", busy_plot(report.runs, axis), hint)


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
    names = analysis.lines.node_names

    def told(bar: Bar) -> str:
        lines = analysis.lines
        took, code = duration(bar.finish - bar.start), lines.codes[bar.line]
        ended = f", {how_failed(code, REASONS[lines.reasons[bar.line]].words)}" if code else ""
        return f"task {lines.ids[bar.line]} on {clean(names[lines.nodes[bar.line]], 60)}: {took}{ended}"

    keys = [("a", "tasks")]
    failing = any(bar.ending == 1 for bar in timeline.bars) or any(cell.failing for cell in timeline.cells)
    if failing:
        keys.append(("failed", "failed" if timeline.bars else "a third or more failed"))
    if any(bar.ending == 2 for bar in timeline.bars):
        keys.append(("uncounted", "attempts that do not count"))
    shown = "".join(
        f'<span><i class="swatch" style="--c:var(--{name})"></i>{words}</span>' for name, words in keys
    )
    key = f'<p class="key">{shown}</p>\n' if len(keys) > 1 else ""
    return tables.section("Timeline", timeline_plot(timeline, axis, told) + key, hint)


def _durations(report: Report) -> str:
    bins = report.durations.histogram
    plot = ""
    if sum(each.count for each in bins) > 1:
        plot = histogram_plot(bins, report.durations.logarithmic)
    scale = (
        "The scale is logarithmic: each step across is as many times longer."
        if report.durations.logarithmic
        else ""
    )
    return tables.section("How long tasks took", plot + tables.percentiles(report), scale)
