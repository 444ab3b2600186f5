"""A report as aligned lines for a terminal of 80 columns, with bars and curves of characters; empty parts are
left out."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from disbatch.model.text import count, counted, duration, one_line, per_second, run_time, wrapped
from disbatch.watch.report.axis import bin_ticks, time_ticks
from disbatch.watch.report.figures import Durations, Failure, Node, Report, Run, Spread, Tasks, Went

_EIGHTHS = " ▁▂▃▄▅▆▇█"
_LEFT_EIGHTHS = " ▏▎▍▌▋▊▉█"

PLAIN = str.maketrans(
    {
        **dict(zip("▁▂▃▄▅▆▇█", "..::==##", strict=True)),
        **dict(zip("▏▎▍▌▋▊▉", "..::==#", strict=True)),
        "─": "-",
        "×": "x",
        "…": "~",
    }
)
"""Replacements where only ASCII can be shown."""


def bar(share: float, width: int) -> str:
    """A bar of at most `width` columns; visible for every share above 0."""
    eighths = max(1, round(share * width * 8)) if share > 0 else 0
    return "█" * (eighths // 8) + (_LEFT_EIGHTHS[eighths % 8] if eighths % 8 else "")


def area(shares: Sequence[float], height: int) -> list[str]:
    """A column for each share of the height, from the top line down; visible for every share above 0."""
    filled = [max(1, round(min(1.0, share) * height * 8)) if share > 0 else 0 for share in shares]
    return [
        "".join(_EIGHTHS[max(0, min(8, eighths - 8 * level))] for eighths in filled).rstrip()
        for level in reversed(range(height))
    ]


WIDTH = 80
UNBROKEN = 1 << 16
"""Columns of a command to be copied."""
_LABEL = 12
_CHART = 64
_HEIGHT = 5
_NODES = 12
_FAILURES = 8
_SLOWEST = 5

WENT = (
    ("tasks", "tasks", "green"),
    ("uncounted", "other attempts", "magenta"),
    ("startup", "start-up", "cyan"),
    ("barriers", "barriers", "yellow"),
    ("tail", "tail", "blue"),
    ("other", "between tasks", "bright_black"),
)
"""Parts of the slots' time: the field of `Went`, its name, a colour."""


def render(report: Report) -> list[Text]:
    """The lines, without their ends."""
    parts = [_head(report)]
    if report.utilisation is not None:
        parts += [_went(report.slot_seconds), _busy(report.runs)]
        parts.append(_durations(report.durations))
    if len(report.nodes) > 1:
        parts.append(_nodes(report.nodes))
    if report.failures:
        parts.append(_failures(report))
    if len(report.slowest) > 1:
        parts.append(_slowest(report))
    parts.append(_resume(report))
    lines: list[Text] = []
    for part in filter(None, parts):
        lines += [Text(), *part] if lines else part
    return lines


def _row(label: str, text: str, style: str = "") -> Text:
    return Text.assemble(f"  {label:<{_LABEL}}", (text, style))


def _title(text: str) -> Text:
    return Text(text, "bold")


# ---- the head ----


def _head(report: Report) -> list[Text]:
    names = [file.name for file in report.files]
    lines = [_title(clean(names[0], WIDTH))]
    lines += [Text(clean(name, WIDTH)) for name in names[1:6]]
    if len(names) > 6:
        lines.append(Text(f"and {counted(len(names) - 6, 'more file')}"))
    lines += [
        _row("note" if i == 0 else "", clean(note, UNBROKEN), "yellow") for i, note in enumerate(report.notes)
    ]
    lines.append(Text())
    tasks = report.tasks
    if not tasks.known:
        lines.append(Text("  no task has ended yet"))
    else:
        lines.append(_row("tasks", f"{count(tasks.known)}: {outcomes(tasks)}"))
        lines[-1].highlight_regex(r"[0-9,]+ (failed|lost)", "red")
    lines += [_row("", text) for text in besides(tasks)]
    if report.barrier_count:
        waited = f"; they kept tasks waiting for {duration(report.barrier_seconds)}"
        lines.append(_row("barriers", count(report.barrier_count) + waited))
    if report.per_engine:
        runs = sum(each.count for each in report.per_engine)
        failed = sum(each.failed for each in report.per_engine)
        text = counted(runs, "command") + (f", {count(failed)} failed" if failed else "")
        lines.append(_row("per engine", text, "red" if failed else ""))
    return lines + _times(report)


def _times(report: Report) -> list[Text]:
    if report.start is None or report.finish is None or report.utilisation is None:
        return []
    ran = sum(run.tasks for run in report.runs)
    rate = f", {per_second(ran / report.seconds)}" if report.seconds > 0 else ""
    in_runs = f" in {len(report.runs)} runs" if len(report.runs) > 1 else ""
    where = f"{counted(report.slots, 'slot')} on {counted(len(report.nodes), 'node')}"
    return [
        _row("time", f"{run_time(report.seconds)}{in_runs}{rate}"),
        _row("", f"{moment(report.start)} to {moment(report.finish)}"),
        _row("slots", f"{where}, {share(report.utilisation)} used by tasks"),
    ]


def outcomes(tasks: Tasks) -> str:
    """`4,876 succeeded, 119 failed, 3 lost with their nodes`."""
    parts = [f"{count(tasks.succeeded)} succeeded"]
    failed, lost = tasks.failed - tasks.cancelled, tasks.lost - tasks.not_run
    if failed:
        parts.append(f"{count(failed)} failed")
    if tasks.cancelled:
        parts.append(f"{count(tasks.cancelled)} cancelled")
    if lost:
        parts.append(f"{count(lost)} lost with {'its node' if lost == 1 else 'their nodes'}")
    if tasks.not_run:
        parts.append(f"{count(tasks.not_run)} not run")
    return ", ".join(parts)


def besides(tasks: Tasks) -> list[str]:
    """Further statements about tasks, one line each."""
    said = []
    if tasks.skipped:
        failed = f" ({count(tasks.skipped_failed)} did not succeed)" if tasks.skipped_failed else ""
        said.append(f"{count(tasks.skipped)} of them done by a former run{failed}")
    if tasks.repeated:
        said.append(f"{counted(tasks.repeated, 'line')} not counted: the task ran again")
    if tasks.ended_attempts:
        said.append(f"{counted(tasks.ended_attempts, 'attempt')} ended early, not counted")
    if tasks.without_line > 0:
        said.append(
            f"{counted(tasks.without_line, 'task number')} below {count(tasks.highest)} without a line"
        )
    return said


# ---- time ----


def _went(parts: Went) -> list[Text]:
    lines = [
        Text.assemble(
            (f"{'Where the time of the slots went':<58}", "bold"), (f"{'share':>8}{'slot time':>14}", "dim")
        )
    ]
    for name, words, style in WENT:
        seconds = getattr(parts, name)
        if seconds <= 0:
            continue
        part = seconds / parts.whole
        lines.append(
            Text.assemble(
                f"  {words:<18}", (f"{bar(part, 38):<38}", style), f"{share(part):>8}{duration(seconds):>14}"
            )
        )
    return lines


def _busy(runs: Sequence[Run]) -> list[Text]:
    lines = [_title("Slots at work")]
    shown = [run for run in runs if run.busy][:5]
    for run in shown:
        if len(runs) > 1:
            lines.append(Text(f"  {clean(run.file, WIDTH - 2)}"))
        lines += _chart(run.busy, run.slots, time_ticks(run.seconds, 4))
    if len(shown) < len(runs):
        lines.append(Text(f"  and {counted(len(runs) - len(shown), 'more run')}"))
    return lines


def _chart(values: Sequence[float], top: float, ticks: Iterable[tuple[float, str]]) -> list[Text]:
    """Values as an area, the highest with height `top`; ticks at shares of the width."""
    lines = []
    columns = _resampled(values, _CHART)
    for number, blocks in enumerate(area([value / top for value in columns], _HEIGHT)):
        label = count(round(top)) if number == 0 else ""
        lines.append(Text.assemble(f"{label:>11} ", (blocks, "green")))
    lines.append(Text(f"{0:>11} " + "─" * len(columns)))
    axis = [" "] * (WIDTH - 12)
    end = 0
    for at, words in ticks:
        begin = min(round(at * len(columns)), len(axis) - len(words))
        if begin >= end:
            axis[begin : begin + len(words)] = words
            end = begin + len(words) + 2
    return [*lines, Text(" " * 12 + "".join(axis).rstrip())]


def _resampled(values: Sequence[float], columns: int) -> list[float]:
    """Means of neighbours, or each value as often as fits."""
    if len(values) <= columns:
        wide = columns // len(values)
        return [value for value in values for _ in range(wide)]
    found = []
    for column in range(columns):
        part = values[column * len(values) // columns : (column + 1) * len(values) // columns]
        found.append(sum(part) / len(part))
    return found


# ---- durations ----


def _durations(durations: Durations) -> list[Text]:
    lines = [_title("How long tasks took")]
    heads = ("tasks", "min", "5%", "median", "mean", "95%", "99%", "max")
    lines.append(
        Text(f"  {'':<10}" + "".join(f"{head:>{8 if i else 9}}" for i, head in enumerate(heads)), "dim")
    )
    for label, spread in (("succeeded", durations.succeeded), ("failed", durations.failed)):
        if spread is not None:
            lines.append(
                Text(
                    f"  {label:<10}{count(spread.count):>9}"
                    + "".join(f"{duration(s):>8}" for s in _points(spread))
                )
            )
    bins = durations.histogram
    if sum(each.count for each in bins) > 1:
        lines.append(Text())
        top = max(each.count for each in bins)
        lines += _chart([each.count for each in bins], top, bin_ticks(bins, durations.logarithmic))
    return lines


def _points(spread: Spread) -> list[float]:
    return [spread.shortest, spread.p5, spread.median, spread.mean, spread.p95, spread.p99, spread.longest]


# ---- tables ----


def _nodes(nodes: Sequence[Node]) -> list[Text]:
    heads = f"{'slots':>6}{'tasks':>10}{'failed':>8}{'median':>9}{'vs all':>8}{'busy':>7}"
    lines = [Text.assemble((f"{'Nodes':<20}", "bold"), (heads, "dim"))]
    ordered = by_interest(nodes)
    for node in ordered[:_NODES]:
        failed = count(node.failed) if node.failed else ""
        median = duration(node.durations.median) if node.durations else ""
        ratio = f"×{node.ratio:.2f}" if node.ratio is not None else ""
        busy = share(node.busy) if node.busy is not None else ""
        name = set_cell_size(clean(node.name, 18), 18)
        row = f"  {name}{node.slots:>6}{count(node.tasks):>10}{failed:>8}{median:>9}{ratio:>8}{busy:>7}"
        bad = "slow" in node.remarks or "fails" in node.remarks
        lines.append(Text.assemble(row, ("  " + ", ".join(node.remarks), "bold red" if bad else "green")))
        lines[-1].rstrip()
    rest = ordered[_NODES:]
    ratios = [node.ratio for node in rest if node.ratio is not None]
    if rest:
        span = f", ×{min(ratios):.2f} to ×{max(ratios):.2f}" if ratios else ""
        lines.append(Text(f"  and {counted(len(rest), 'more node')}{span}"))
    return lines


def by_interest(nodes: Iterable[Node]) -> list[Node]:
    """Those with a remark first, then the slowest."""
    return sorted(nodes, key=lambda node: (not node.remarks, -(node.ratio or 0.0), node.name))


def title_of_failures(tasks: Tasks) -> str:
    """The title of the table of kinds."""
    return "Failures" if tasks.failed > tasks.cancelled or tasks.lost else "Cancelled tasks"


def _failures(report: Report) -> list[Text]:
    lines = [_title(title_of_failures(report.tasks))]
    for failure in report.failures[:_FAILURES]:
        lines.append(
            Text.assemble("  ", (f"{counted(failure.count, 'task')}: {failure.how}", "red"), where(failure))
        )
        said = wrapped(failure.last_line, WIDTH - 6) if failure.last_line else ()
        lines += [Text(("      " if at else "    > ") + line, "dim") for at, line in enumerate(said)]
        lines.append(Text("    " + examples(failure, WIDTH - 4)))
    if report.failure_groups > _FAILURES:
        lines.append(Text(f"  and {counted(report.failure_groups - _FAILURES, 'more kind')}"))
    return lines


def where(failure: Failure) -> str:
    """`, all on node3`; empty if no node stands out."""
    if failure.count < 2:
        return f", on {clean(failure.most_on, 30)}"
    if failure.nodes == 1:
        return f", all on {clean(failure.most_on, 30)}"
    if failure.most >= 0.5 * failure.count and failure.most > 2:
        return f", {count(failure.most)} of them on {clean(failure.most_on, 30)}"
    return f", on {counted(failure.nodes, 'node')}"


def examples(failure: Failure, room: int) -> str:
    """`tasks 17, 203 and 28 more`, within this width."""
    words = "task" if failure.count == 1 else "tasks"
    shown: list[str] = []
    for task in map(str, failure.tasks):
        if shown and len(words) + sum(len(each) + 2 for each in shown) + len(task) + 20 > room:
            break
        shown.append(task)
    more = failure.count - len(shown)
    return f"{words} {', '.join(shown)}" + (f" and {count(more)} more" if more else "")


def _slowest(report: Report) -> list[Text]:
    lines = [_title("Slowest tasks")]
    for task in report.slowest[:_SLOWEST]:
        words = f"  {duration(task.elapsed):>8}  task {task.id} on {clean(task.node, 20)}: "
        lines.append(Text(words + clean(task.command, max(16, WIDTH - cell_len(words)))))
    return lines


def _resume(report: Report) -> list[Text]:
    lines = []
    if report.resume.rest:
        lines = [
            Text("  run the tasks that have no result:"),
            Text("    " + clean(report.resume.rest, UNBROKEN)),
        ]
    if report.tasks.failed:
        again = "all tasks have ended; run the unsuccessful ones again"
        what = "run these and the unsuccessful ones" if lines else again
        lines += [Text(f"  {what}:"), Text("    " + clean(report.resume.failed, UNBROKEN))]
    return [_title("Go on"), *lines] if lines else []


# ---- words ----


def share(part: float) -> str:
    """`83.6%`; values near 0 or 1 are not rounded to them."""
    if 0 < part < 0.0005:
        return "<0.1%"
    return f"{part:.1%}"


def moment(seconds: float) -> str:
    """A time as local time of this machine."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
    except (ValueError, OverflowError, OSError):
        return f"{seconds:.0f} s after 1970"


def clean(text: str, width: int) -> str:
    """Foreign text on one line, at most so many columns."""
    shown = one_line(text.encode("utf-8", "replace"), width)
    return shown if cell_len(shown) <= width else set_cell_size(shown, width - 1).rstrip() + "…"
