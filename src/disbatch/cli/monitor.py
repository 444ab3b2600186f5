"""`dbutil monitor`: a run on a whole terminal, while it goes on and after its end."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable

from disbatch.cli.verbs import run_option
from disbatch.model.errors import EXIT_COMPLETE, UsageError

MOST_RUNNING = 200
MOST_FAILURES = 1000
MOST_LOG = 500
LONGEST_INTERVAL = 3600.0


def add_monitor(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Declare the verb with `add(name, help=...)`, which makes a parser."""
    parser = add("monitor", parents=[run_option()], help="watch a run on the terminal, and steer it by keys")
    parser.add_argument(
        "--interval",
        metavar="SECONDS",
        type=_seconds,
        default=1.0,
        help="between two drawings, for a slow connection (%(default)g)",
    )


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not 0.1 <= seconds <= LONGEST_INTERVAL:
        raise argparse.ArgumentTypeError(f"{text}: give seconds, from 0.1 to {LONGEST_INTERVAL:g}")
    return seconds


def monitor(options: argparse.Namespace) -> int:
    """Show it until the user leaves; the exit code."""
    if not _is_terminal():
        raise UsageError("monitor: this is no terminal; `dbutil status --watch` writes lines")
    from disbatch.cli.runs import look_up

    found = look_up(options.run)
    import zmq

    from disbatch.cli.status import resume
    from disbatch.model.kinds import MOST_KINDS
    from disbatch.watch.monitor.app import Monitor
    from disbatch.watch.spectator import Spectator
    from disbatch.wire.watching import Wants

    wants = Wants(running=MOST_RUNNING, failures=MOST_FAILURES, log=MOST_LOG, course=True, kinds=MOST_KINDS)
    advice = resume(found) if found.connect is not None else found.words
    with zmq.Context() as context:
        app = Monitor(
            lambda: Spectator(context, found.prefix, found.connect, wants, resume=advice),
            interval=options.interval,
            has_terminal=_is_terminal,
        )
        app.run()
    if app.trouble is not None:
        raise app.trouble
    return app.return_code or EXIT_COMPLETE


def _is_terminal() -> bool:
    """It is drawn on standard error's."""
    streams = (sys.__stdin__, sys.__stdout__, sys.__stderr__)
    return os.environ.get("TERM", "dumb") != "dumb" and all(
        each is not None and each.isatty() for each in streams
    )
