"""Turn status files into the figures of a report."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

from disbatch.model.statusline import Record, command_matches, unquoted
from disbatch.model.text import as_argument, count, counted, duration, shell_command, with_retry
from disbatch.watch.report import figures
from disbatch.watch.report.data import BARRIER, COUNTS, PER_ENGINE, Counts, Lines
from disbatch.watch.report.slots import Place, RunSpan, covered, find_spans, slot_seconds
from disbatch.watch.report.statistics import compare_nodes, find_failures, histogram, spread_of

_BINS = 240
_FEWEST_BINS = 12
_MOST_NAMED = 10
_MOST_COMMANDS = 20
_LONGEST_COMMAND = 2000


class ResumeCommand(NamedTuple):
    """The command that continues the last run, and the number of tasks in its list, if known."""

    command: str
    tasks: int | None


@dataclass
class Analysis:
    """The lines of some files and what follows from them; the pictures of the page need more than the report.

    Close it: the files are read again for rarely needed fields.
    """

    lines: Lines
    counts: Counts
    spans: list[RunSpan]

    @classmethod
    def of(cls, paths: Sequence[str]) -> Analysis:
        """Read the status files. UsageError if one cannot be read or is not a status file."""
        lines = Lines.read(paths)
        try:
            counts = Counts(lines)
            return cls(lines, counts, find_spans(lines, counts))
        except BaseException:
            lines.close()
            raise

    def close(self) -> None:
        """Close the files."""
        self.lines.close()

    def report(self, task_files: Sequence[str], resume: ResumeCommand | None = None) -> figures.Report:
        """All figures. The commands that continue the run come from `resume`; without it they name the task
        files, `task_files`."""
        lines, counts, spans = self.lines, self.counts, self.spans
        tasks = counts.tasks()
        good, bad = self._took()
        bins, logarithmic = histogram(good, bad)
        whole = sum((slot_seconds(span, lines, counts) for span in spans), start=figures.NOTHING)
        failures, groups = find_failures(lines, counts)
        barriers = self._barriers()
        commands = self._per_engine()
        return figures.Report(
            format=figures.FORMAT,
            files=lines.files,
            tasks=tasks,
            start=min((span.start for span in spans), default=None),
            finish=max((span.finish for span in spans), default=None),
            seconds=sum(span.seconds for span in spans),
            slots=max((span.slots for span in spans), default=0),
            utilisation=whole.tasks / whole.whole if whole.whole > 0 else None,
            slot_seconds=whole,
            runs=self._runs(),
            durations=figures.Durations(spread_of(good), spread_of(bad), logarithmic, bins),
            nodes=compare_nodes(lines, counts, spans, good),
            failure_groups=groups,
            failures=failures,
            slowest=self._slowest(good, bad),
            barrier_count=len(barriers),
            barrier_seconds=sum(barrier.elapsed for barrier in barriers),
            barriers=heapq.nlargest(_MOST_NAMED, barriers, key=lambda barrier: barrier.elapsed),
            per_engine=commands[:_MOST_COMMANDS],
            resume=_resume(lines, tasks, task_files, resume),
            notes=_notes(lines, counts, spans),
        )

    def _took(self) -> tuple[list[float], list[float]]:
        """The durations of succeeded and failed tasks that ran here, in order."""
        lines, roles = self.lines, self.counts.roles
        took: tuple[list[float], list[float]] = ([], [])
        for elapsed, role, timed, code in zip(lines.elapsed, roles, lines.timed, lines.codes, strict=True):
            if role == COUNTS and timed:
                took[code != 0].append(elapsed)
        for each in took:
            each.sort()
        return took

    def _runs(self) -> list[figures.Run]:
        whole = sum(span.seconds for span in self.spans)
        found = []
        for span in self.spans:
            share = span.seconds / whole if whole > 0 else 0.0
            bins = max(_FEWEST_BINS, round(_BINS * share))
            step = span.seconds / bins
            found.append(
                figures.Run(
                    file=self._name_of(span),
                    start=span.start,
                    finish=span.finish,
                    seconds=span.seconds,
                    slots=span.slots,
                    nodes=len(span.places),
                    tasks=sum(self._counted(place) for place in span.places),
                    step=step,
                    busy=busy_slots(span, bins) if step > 0 else [],
                )
            )
        return found

    def _counted(self, place: Place) -> int:
        return bytes(map(self.counts.roles.__getitem__, place.rows)).count(COUNTS)

    def _name_of(self, span: RunSpan) -> str:
        return next(source.name for source in self.lines.sources if source.run == span.run)

    def _slowest(self, *took: list[float]) -> list[figures.SingleTask]:
        """`took`: as returned by `_took`."""
        lines, roles = self.lines, self.counts.roles
        longest = heapq.nlargest(_MOST_NAMED, [second for each in took for second in each[-_MOST_NAMED:]])
        if not longest:
            return []
        rows = [row for row, elapsed in enumerate(lines.elapsed) if elapsed >= longest[-1]]
        ran = [row for row in rows if roles[row] == COUNTS and lines.timed[row]]
        found = heapq.nlargest(_MOST_NAMED, ran, key=lines.elapsed.__getitem__)
        records = (lines.record(row) for row in found)
        return [_named(record) for record in records if record is not None]

    def _barriers(self) -> list[figures.Barrier]:
        """Each barrier once, by its last line."""
        lines = self.lines
        rows = {lines.ids[row]: row for row, mark in enumerate(lines.marks) if mark == BARRIER}
        return [
            figures.Barrier(id, lines.elapsed[row], lines.finishes[row]) for id, row in sorted(rows.items())
        ]

    def _per_engine(self) -> list[figures.PerEngine]:
        """By their line in the task file."""
        lines = self.lines
        ran: dict[int, list[tuple[Record, float]]] = {}
        for row in [row for row, mark in enumerate(lines.marks) if mark == PER_ENGINE]:
            record = lines.record(row)
            if record is not None:
                ran.setdefault(record.line, []).append((record, lines.elapsed[row]))
        return [
            figures.PerEngine(
                line=line,
                command=_shown(found[0][0]),
                count=len(found),
                failed=sum(record.failed for record, _ in found),
                median=median(elapsed for _, elapsed in found),
                longest=max(elapsed for _, elapsed in found),
            )
            for line, found in sorted(ran.items())
        ]


def busy_slots(span: RunSpan, bins: int) -> list[float]:
    """The mean number of busy slots in each of so many equal intervals."""
    step = span.seconds / bins
    edges = [span.start + step * at for at in range(bins + 1)]
    busy = [0.0] * bins
    for place in span.places:
        for at, seconds in enumerate(covered(place.starts, place.finishes, edges)):
            busy[at] += seconds / step
    return busy


def _named(record: Record) -> figures.SingleTask:
    return figures.SingleTask(
        id=record.id,
        line=record.line,
        node=record.node,
        return_code=record.return_code,
        elapsed=record.elapsed,
        command=_shown(record),
        reason=record.reason.words,
    )


def _shown(record: Record) -> str:
    r"""The beginning of the command; bytes that are not UTF-8 as \xNN."""
    command = unquoted(record.command)
    command = record.command if command is None else command
    return command[:_LONGEST_COMMAND].decode("utf-8", "backslashreplace")


def _resume(
    lines: Lines, tasks: figures.Tasks, task_files: Sequence[str], resume: ResumeCommand | None
) -> figures.Resume:
    if resume is not None:
        is_complete = resume.tasks is not None and tasks.known - tasks.lost >= resume.tasks
        return figures.Resume("" if is_complete else resume.command, with_retry(resume.command))
    names = {source.run: as_argument(source.path) for source in reversed(lines.sources)}
    words = ["disbatch", *(word for _, name in sorted(names.items()) for word in ("-r", name))]
    feed = f"cat {shell_command(task_files)} | " if len(task_files) > 1 else ""
    source = "-" if feed else task_files[0]
    return figures.Resume(
        feed + shell_command([*words, source]), feed + shell_command([*words, "-R", source])
    )


def _notes(lines: Lines, counts: Counts, spans: Sequence[RunSpan]) -> list[str]:
    """Messages about the files, one line each."""
    notes = [f"{path}: was named twice, and read once" for path in lines.duplicates]
    for file in lines.files:
        if file.bad_lines:
            what = "1 line is" if file.bad_lines == 1 else f"{count(file.bad_lines)} lines are"
            notes.append(f"{file.name}: {what} invalid, from line {file.first_bad} on; not counted")
        if file.live:
            notes.append(f"{file.name}: a run is still writing it: running tasks are not in it yet")
        elif file.torn:
            notes.append(f"{file.name}: its last line is torn, and does not count")
    notes += _differing(lines, counts)
    names = lines.node_names
    wrong = {place.node: place.clock for span in spans for place in span.places if place.clock}
    for node, ahead in list(wrong.items())[:_MOST_NAMED]:
        by = f"{duration(abs(ahead))} {'ahead' if ahead > 0 else 'behind'}"
        notes.append(f"{names[node]}: its clock seems to be {by}; corrected in what follows")
    if len(wrong) > _MOST_NAMED:
        notes.append(f"so do the clocks of {counted(len(wrong) - _MOST_NAMED, 'other node')}")
    return notes


def _differing(lines: Lines, counts: Counts) -> Iterator[str]:
    """The first task id with two different commands."""
    for pair in counts.pairs:
        first, second = map(lines.record, pair)
        if first is None or second is None or first.command == second.command:
            continue
        command = unquoted(second.command)
        if not command_matches(first.command, second.command if command is None else command):
            yield f"task {first.id} has two different commands: are these files of one run?"
            return
