"""`dbutil cat`: show what tasks printed, while they run and afterwards."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from disbatch.cli.verb_options import AddVerb, parse_ranges, run_option
from disbatch.model.errors import EXIT_COMPLETE, EXIT_FAILED, EXIT_USAGE, UsageError
from disbatch.model.text import short_list
from disbatch.rundir.runscript import CONNECT, OUTPUT, named_prefix, status_file
from disbatch.wire.ownfile import is_foreign

if TYPE_CHECKING:
    from disbatch.rundir.saved_output import SavedOutput
    from disbatch.rundir.task_output import Reasons

MOST_TASKS = 100_000


def add_cat(add: AddVerb) -> None:
    """Declare the verb."""
    help = "show the output of tasks, of a run with --output; also while they run"
    parser = add("cat", parents=[run_option()], help=help)
    parser.add_argument("--err", action="store_true", help="show stderr instead of stdout")
    parser.add_argument(
        "tasks", nargs="+", metavar="TASKID", help="ids as in the status file: 12, or 100-199"
    )
    parser.set_defaults(
        perform=lambda given, say: cat(given.run, parse_tasks(given.tasks), err=given.err, say=say)
    )


def cat(run: str | None, tasks: list[int], *, err: bool, say: Callable[[str], None]) -> int:
    """Print the output of the tasks, one after the other; the exit code. `say` gets a line for each task that
    has none."""
    prefix = _only_run() if run is None else named_prefix(run)
    from disbatch.rundir.output_manifest import manifest_of
    from disbatch.rundir.saved_output import SavedOutput, read_lines
    from disbatch.rundir.task_output import Reasons

    told = manifest_of(prefix)
    if sys.stdout is None:
        raise UsageError("standard output is closed")
    wanted = frozenset(tasks)
    lines = read_lines(Path(status_file(prefix)), wanted)
    kept = SavedOutput(told, wanted, lines)
    reasons = Reasons(told, prefix, lines, int(err), kept.damaged)
    try:
        for number, reason in _written(kept, tasks, reasons, sys.stdout.buffer):
            say(f"task {number}: {reason}" if "-" not in number else f"tasks {number}: {reason}")
    finally:
        kept.close()
    if reasons.is_damaged:
        return EXIT_FAILED
    return EXIT_USAGE if reasons.wrong else EXIT_COMPLETE


def _written(
    kept: SavedOutput, tasks: Sequence[int], reasons: Reasons, out: BinaryIO
) -> Iterable[tuple[str, str]]:
    """Write the output; yields the numbers of tasks whose output is missing or incomplete, and why."""
    first = last = -1
    pending = ""
    for task in tasks:
        found = kept.find(task, reasons.stream)
        if found is not None:
            for block in found.blocks:
                out.write(block)
            out.flush()
        reason = reasons.of(task) if found is None else reasons.of_lack(task, found)
        if pending and reason == pending and task == last + 1:
            last = task
            continue
        if pending:
            yield _numbers(first, last), pending
        first, last, pending = task, task, reason
    if pending:
        yield _numbers(first, last), pending


def _numbers(first: int, last: int) -> str:
    return f"{first}" if first == last else f"{first}-{last}"


def parse_tasks(words: Sequence[str]) -> list[int]:
    """`12` and `100-199` as numbers. UsageError."""
    tasks: list[int] = []
    for first, last in parse_ranges("cat", words):
        if len(tasks) + last - first >= MOST_TASKS:
            raise UsageError(f"at most {MOST_TASKS:,} tasks per command: use several commands")
        tasks += range(first, last + 1)
    return tasks


def _only_run() -> str:
    """The only run of the working directory that keeps output, or the only live one of them."""
    from disbatch.client.find import files_here

    runs = [name.removesuffix(OUTPUT) for name in files_here(OUTPUT) if not is_foreign(name)]
    live = [run for run in runs if os.path.lexists(run + CONNECT)]
    for found in (runs, live):
        if len(found) == 1:
            return found[0]
    if not runs:
        raise UsageError("no run in this directory keeps output: name one with --run PREFIX")
    raise UsageError(f"several runs here keep output, choose one with --run: {short_list(runs, 10)}")
