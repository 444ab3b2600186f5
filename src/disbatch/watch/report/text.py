"""A report as aligned lines for a terminal of 80 columns, with bars and curves of characters; empty parts are
left out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from disbatch.model.text import count, counted, duration, run_time, wrapped
from disbatch.watch.report.axis import bin_ticks, time_ticks
from disbatch.watch.report.figures import Durations, Node, Report, Run, SlotSeconds
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
_LABEL = 12
_CHART = 64
_HEIGHT = 5
_NODES = 12
_FAILURES = 8
_SLOWEST = 5


def render(report: Report) -> list[Text]:
    """The lines, without their ends."""
    parts = [_head(report)]
    if report.utilisation is not None:
        parts += [_slot_time(report.slot_seconds), _busy(report.runs)]
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
    in_runs = f" in {len(report.runs)} runs" if len(report.runs) > 1 else ""
    where = f"{counted(report.slots, 'slot')} on {counted(len(report.nodes), 'node')}"
    return [
        _row("time", f"{run_time(report.seconds)}{in_runs}{', ' * bool(rate(report))}{rate(report)}"),
        _row("", f"{moment(report.start)} to {moment(report.finish)}"),
        _row("slots", f"{where}, {share(report.utilisation)} used by tasks"),
    ]


# ---- time ----


def _slot_time(parts: SlotSeconds) -> list[Text]:
    lines = [
        Text.assemble(
            (f"{'Where the time of the slots went':<58}", "bold"), (f"{'share':>8}{'slot time':>14}", "dim")
        )
    ]
    for _, words, style, _, seconds, part in slot_time_rows(parts):
        drawn = f"{bar(part, 38):<38}", style
        lines.append(Text.assemble(f"  {words:<18}", drawn, f"{share(part):>8}{duration(seconds):>14}"))
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
    for label, number, *points in percentiles(durations):
        lines.append(Text(f"  {label:<10}{number:>9}" + "".join(f"{point:>8}" for point in points)))
    bins = durations.histogram
    if sum(each.count for each in bins) > 1:
        lines.append(Text())
        top = max(each.count for each in bins)
        lines += _chart([each.count for each in bins], top, bin_ticks(bins, durations.logarithmic))
    return lines


# ---- tables ----


def _nodes(nodes: Sequence[Node]) -> list[Text]:
    heads = f"{'slots':>6}{'tasks':>10}{'failed':>8}{'median':>9}{'vs all':>8}{'busy':>7}"
    lines = [Text.assemble((f"{'Nodes':<20}", "bold"), (heads, "dim"))]
    ordered = by_interest(nodes)
    for node in ordered[:_NODES]:
        row = f"  {set_cell_size(clean(node.name, 18), 18)}{node.slots:>6}"
        row += "".join(f"{cell:>{width}}" for cell, width in zip(cells(node), (10, 8, 9, 8, 7), strict=True))
        bad = "slow" in node.remarks or "fails" in node.remarks
        lines.append(Text.assemble(row, ("  " + ", ".join(node.remarks), "bold red" if bad else "green")))
        lines[-1].rstrip()
    rest = ordered[_NODES:]
    ratios = [node.ratio for node in rest if node.ratio is not None]
    if rest:
        span = f", ×{min(ratios):.2f} to ×{max(ratios):.2f}" if ratios else ""
        lines.append(Text(f"  and {counted(len(rest), 'more node')}{span}"))
    return lines


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


def _slowest(report: Report) -> list[Text]:
    lines = [_title("Slowest tasks")]
    for task in report.slowest[:_SLOWEST]:
        words = f"  {duration(task.elapsed):>8}  task {task.id} on {clean(task.node, 20)}: "
        lines.append(Text(words + clean(task.command, max(16, WIDTH - cell_len(words)))))
    return lines


def _resume(report: Report) -> list[Text]:
    lines = []
    for clauses, command in commands(report):
        lines += [Text(f"  {'; '.join(clauses)}:"), Text("    " + clean(command, UNBROKEN))]
    return [_title("Go on"), *lines] if lines else []
