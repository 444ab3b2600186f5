"""The verbs of `dbutil` that change a run: declare them, and ask the driver to carry them out."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from disbatch.cli.verb_options import AddVerb, parse_ranges, usual_options
from disbatch.model.errors import EXIT_COMPLETE, UsageError
from disbatch.model.text import printable
from disbatch.model.verbs import FINISH, RUN_VERBS, RunVerb, Target

if TYPE_CHECKING:
    from disbatch.client.find import Run
    from disbatch.wire.verbs import RunRequest


class Order(NamedTuple):
    """A verb for the driver of the run with this prefix (None: the only one here). `words`: names of nodes,
    or ids of tasks. `patience`: how many seconds to wait for the answer."""

    run: str | None
    verb: RunVerb
    words: list[str]
    patience: float


_WORDS = {
    Target.NODES: ("NODE", "nodes, or labels, which mean all nodes with that label"),
    Target.TASKS: ("TASKID", "ids as in the status file: 12, or 100-199"),
}


def add_verbs(add: AddVerb) -> None:
    """Declare them."""
    usual = usual_options()
    for verb in RUN_VERBS.values():
        parser = add(verb.name, parents=[usual], help=verb.help)
        parser.set_defaults(perform=_perform)
        if verb.target in _WORDS:
            metavar, explained = _WORDS[verb.target]
            parser.add_argument("words", nargs="+", metavar=metavar, help=explained)
        else:
            parser.set_defaults(words=[])


def _perform(given: argparse.Namespace, say: Callable[[str], None]) -> int:
    order = Order(given.run, RUN_VERBS[given.verb], given.words, given.timeout)
    if order.verb is FINISH and (code := finish_dead_run(order.run)) is not None:
        return code
    for line in ask_driver(order):
        print(printable(line))  # noqa: T201
    return EXIT_COMPLETE


def ask_driver(order: Order) -> list[str]:
    """What it did, a line each. UsageError if it refuses, SilenceError if it does not answer."""
    request = request_of(order)
    from disbatch.client.find import find_run
    from disbatch.model.errors import SilenceError
    from disbatch.wire.client_socket import ask
    from disbatch.wire.connect import is_here

    run = find_run(order.run)
    dead = "" if order.verb is not FINISH or is_here(run.connect) else _where_to_finish(run)
    try:
        answer = ask(run.connect, request, patience=order.patience, is_starting=run.is_starting)
    except UsageError as error:
        raise UsageError(f"{run.prefix}: {error}{dead}") from error
    except SilenceError as error:
        find_run(run.prefix)  # says if the run has ended meanwhile, or its driver is dead
        raise SilenceError(f"{run.prefix}: {error}{dead}") from error
    if not answer.ok:
        raise UsageError(f"{run.prefix}: {' '.join(answer.lines)}")
    return answer.lines


def finish_dead_run(prefix: str | None) -> int | None:
    """End the run if its driver is known to be dead; the exit code. None: the driver may live: ask it."""
    from disbatch.client.find import find_any_run

    run = find_any_run(prefix)
    if not run.is_gone:
        return None
    from disbatch.cli.takeover import finish

    return finish(run.prefix)


def _where_to_finish(run: Run) -> str:
    """Advice: only on the driver's host it is known whether the driver lives."""
    return f"; if that driver was killed, `dbutil finish` on {run.connect.host} ends what it left"


def request_of(order: Order) -> RunRequest:
    """The request to the driver. UsageError if the words are no names, or no ids."""
    from disbatch.wire.verbs import MOST_NAMES, MOST_RANGES, run_request

    verb = order.verb
    if verb.target is Target.RUN:
        return run_request(verb)
    if verb.target is Target.TASKS:
        return run_request(verb, _bounded(parse_ranges(verb.name, order.words), MOST_RANGES))
    names = _bounded(list(dict.fromkeys(order.words)), MOST_NAMES)
    for name in names:
        if not 0 < len(name) < 256 or not name.isprintable():
            raise UsageError(f"{verb.name}: {name!r:.80} is not a valid node name")
    return run_request(verb, names)


def _bounded(what: list[Any], most: int) -> list[Any]:
    if len(what) > most:
        raise UsageError(f"at most {most:,} per command: use several commands")
    return what
