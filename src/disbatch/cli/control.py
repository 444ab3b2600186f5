"""The verbs of `dbutil` that ask the driver of a running run to do something."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from disbatch.cli.verb_options import AddVerb, parse_ranges, usual_options
from disbatch.model.errors import EXIT_COMPLETE, UsageError
from disbatch.model.text import printable

if TYPE_CHECKING:
    from disbatch.client.find import Run
    from disbatch.wire.client_protocol import Verb


class Order(NamedTuple):
    """What one of these verbs asks of the driver of the run with this prefix (None: the only one here).
    `words`: names of nodes, or ids of tasks."""

    run: str | None
    verb: str
    words: list[str]
    patience: float


def add_verbs(add: AddVerb) -> None:
    """Declare them."""
    usual = usual_options()
    nodes = "nodes, or labels: all nodes of a label"
    drain = add("drain", parents=[usual], help="no new tasks on these nodes; those that run there finish")
    stop = add("stop", parents=[usual], help="end the tasks on these nodes; they run again elsewhere")
    for verb in (drain, stop):
        verb.add_argument("words", nargs="+", metavar="NODE", help=nodes)
    pause = add("pause", parents=[usual], help="start no more tasks; those that run finish")
    resume = add("resume", parents=[usual], help="start tasks again")
    cancel = add("cancel", parents=[usual], help="never run these tasks, and end those that run")
    cancel.add_argument(
        "words", nargs="+", metavar="TASKID", help="ids as in the status file: 12, or 100-199"
    )
    close = add("close", parents=[usual], help="take no more tasks (submit); the run ends when all are done")
    ends = "end the run now, or what a killed driver left of it; `disbatch -r` goes on later"
    finish = add("finish", parents=[usual], help=ends)
    for verb in (drain, stop, pause, resume, cancel, close, finish):
        verb.set_defaults(perform=_perform)
    for verb in (pause, resume, close, finish):
        verb.set_defaults(words=[])


def _perform(given: argparse.Namespace, say: Callable[[str], None]) -> int:
    order = Order(given.run, given.verb, given.words, given.timeout)
    if order.verb == "finish" and (code := finish_dead_run(order.run)) is not None:
        return code
    for line in ask_driver(order):
        print(printable(line))  # noqa: T201
    return EXIT_COMPLETE


def ask_driver(order: Order) -> list[str]:
    """What it did, a line each. UsageError if it refuses, SilenceError if it does not answer."""
    wanted = _request(order)
    from disbatch.client.find import find_run
    from disbatch.model.errors import SilenceError
    from disbatch.wire.client_socket import ask
    from disbatch.wire.connect import is_here

    run = find_run(order.run)
    dead = "" if order.verb != "finish" or is_here(run.connect) else _where_to_finish(run)
    try:
        answer = ask(run.connect, wanted, patience=order.patience, is_starting=run.is_starting)
    except UsageError as error:
        raise UsageError(f"{run.prefix}: {error}{dead}") from error
    except SilenceError as error:
        find_run(run.prefix)  # says if the run has ended meanwhile, or its driver is dead
        raise SilenceError(f"{run.prefix}: {error}{dead}") from error
    if not answer.ok:
        raise UsageError(f"{run.prefix}: {' '.join(answer.lines)}")
    return answer.lines


def finish_dead_run(prefix: str | None) -> int | None:
    """End the run if its driver is known to be dead; the exit code. None: that has to be asked."""
    from disbatch.client.find import find_any_run

    run = find_any_run(prefix)
    if not run.is_gone:
        return None
    from disbatch.cli.takeover import finish

    return finish(run.prefix)


def _where_to_finish(run: Run) -> str:
    """Only there it can be seen whether the driver lives."""
    return f"; if that driver was killed, `dbutil finish` on {run.connect.host} ends what it left"


def _request(order: Order) -> Verb:
    from disbatch.wire import client_protocol

    if order.verb in ("drain", "stop"):
        names = _bounded(list(dict.fromkeys(order.words)), client_protocol.MOST_NAMES)
        for name in names:
            if not 0 < len(name) < 256 or not name.isprintable():
                raise UsageError(f"{order.verb}: {name!r:.80} is no name of a node")
        return client_protocol.Drain(names) if order.verb == "drain" else client_protocol.Stop(names)
    if order.verb == "cancel":
        return client_protocol.Cancel(
            _bounded(parse_ranges("cancel", order.words), client_protocol.MOST_RANGES)
        )
    if order.verb in ("finish", "close"):
        return client_protocol.Finish() if order.verb == "finish" else client_protocol.Close()
    return client_protocol.Pause() if order.verb == "pause" else client_protocol.Unpause()


def _bounded(what: list[Any], most: int) -> list[Any]:
    if len(what) > most:
        raise UsageError(f"more than {most:,} at once: say it in several commands")
    return what
