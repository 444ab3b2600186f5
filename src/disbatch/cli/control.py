"""The verbs of `dbutil` that ask the driver of a running run to do something."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from disbatch.model.errors import UsageError

if TYPE_CHECKING:
    from disbatch.client.find import Run
    from disbatch.wire.client_protocol import Verb

PATIENCE = 10.0
MOST_PATIENCE = 86400.0
_RANGE = re.compile(r"([0-9]{1,18})(?:-([0-9]{1,18}))?")

_Add = Callable[..., argparse.ArgumentParser]


def add_verbs(add: _Add) -> None:
    """Declare them with `add(name, help=...)`, which makes a parser."""
    usual = usual_options()
    nodes = "nodes, or labels: all nodes of a label"
    drain = add("drain", parents=[usual], help="no new tasks on these nodes; those that run there finish")
    stop = add("stop", parents=[usual], help="end the tasks on these nodes; they run again elsewhere")
    for verb in (drain, stop):
        verb.add_argument("names", nargs="+", metavar="NODE", help=nodes)
    add("pause", parents=[usual], help="start no more tasks; those that run finish")
    add("resume", parents=[usual], help="start tasks again")
    cancel = add("cancel", parents=[usual], help="never run these tasks, and end those that run")
    cancel.add_argument(
        "tasks", nargs="+", metavar="TASKID", help="ids as in the status file: 12, or 100-199"
    )
    add("close", parents=[usual], help="take no more tasks (submit); the run ends when all are done")
    ends = "end the run now, or what a killed driver left of it; `disbatch -r` goes on later"
    add("finish", parents=[usual], help=ends)


def run_option() -> argparse.ArgumentParser:
    """Which run."""
    option = argparse.ArgumentParser(add_help=False)
    option.add_argument(
        "--run", metavar="PREFIX", default=argparse.SUPPRESS, help="the run: what its files begin with"
    )
    return option


def usual_options() -> argparse.ArgumentParser:
    """Which run, and how long to wait for it."""
    usual = argparse.ArgumentParser(add_help=False, parents=[run_option()])
    usual.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=_patience,
        default=PATIENCE,
        help="wait so long for the driver's answer (%(default)g)",
    )
    return usual


def perform(options: argparse.Namespace) -> list[str]:
    """Ask the driver of the run; what it did, a line each."""
    wanted = _verb(options)
    from disbatch.client.find import find_run
    from disbatch.model.errors import SilenceError
    from disbatch.wire.client_socket import ask
    from disbatch.wire.connect import is_here

    run = find_run(options.run)
    dead = "" if options.verb != "finish" or is_here(run.connect) else _where_to_finish(run)
    try:
        answer = ask(run.connect, wanted, patience=options.timeout, is_starting=run.is_starting)
    except UsageError as error:
        raise UsageError(f"{run.prefix}: {error}{dead}") from error
    except SilenceError as error:
        find_run(run.prefix)  # says if the run has ended meanwhile, or its driver is dead
        raise SilenceError(f"{run.prefix}: {error}{dead}") from error
    if not answer.ok:
        raise UsageError(f"{run.prefix}: {' '.join(answer.lines)}")
    return answer.lines


def finish_dead_run(options: argparse.Namespace) -> int | None:
    """End the run if its driver is known to be dead; the exit code. None: that has to be asked."""
    from disbatch.client.find import find_any_run

    run = find_any_run(options.run)
    if not run.is_gone:
        return None
    from disbatch.cli.takeover import finish

    return finish(run.prefix)


def _where_to_finish(run: Run) -> str:
    """Only there it can be seen whether the driver lives."""
    return f"; if that driver was killed, `dbutil finish` on {run.connect.host} ends what it left"


def _verb(options: argparse.Namespace) -> Verb:
    from disbatch.wire import client_protocol

    if options.verb in ("drain", "stop"):
        names = _bounded(list(dict.fromkeys(options.names)), client_protocol.MOST_NAMES)
        for name in names:
            if not 0 < len(name) < 256 or not name.isprintable():
                raise UsageError(f"{options.verb}: {name!r:.80} is no name of a node")
        return client_protocol.Drain(names) if options.verb == "drain" else client_protocol.Stop(names)
    if options.verb == "cancel":
        return client_protocol.Cancel(_bounded(parse_ranges(options.tasks), client_protocol.MOST_RANGES))
    if options.verb in ("finish", "close"):
        return client_protocol.Finish() if options.verb == "finish" else client_protocol.Close()
    return client_protocol.Pause() if options.verb == "pause" else client_protocol.Unpause()


def _bounded(what: list[Any], most: int) -> list[Any]:
    if len(what) > most:
        raise UsageError(f"more than {most:,} at once: say it in several commands")
    return what


def parse_ranges(words: Sequence[str]) -> list[tuple[int, int]]:
    """`12` and `100-199` as (first, last)."""
    ranges = []
    for word in words:
        found = _RANGE.fullmatch(word)
        first = int(found[1]) if found else 0
        last = int(found[2] or found[1]) if found else -1
        if last < first:
            raise UsageError(f"cancel {word:.80}: give the ids of tasks (12) or ranges of them (100-199)")
        ranges.append((first, last))
    return ranges


def _patience(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not 0 < seconds <= MOST_PATIENCE:
        raise argparse.ArgumentTypeError(f"{text}: give seconds")
    return seconds
