"""`dbutil status`: print the state of a run; `dbutil monitor`: show it full-screen."""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from disbatch.cli.verb_options import AddVerb, run_option, seconds, usual_options
from disbatch.model.errors import EXIT_COMPLETE, EXIT_INCOMPLETE, SilenceError, UsageError

if TYPE_CHECKING:
    from disbatch.client.find import Found
    from disbatch.watch.run_state import Standing
    from disbatch.wire.client_protocol import Wants

MOST = 1000
SHOWN = 5
IN_JSON = 100
WIDTH = 120
"""Columns where there is no terminal."""
SILENCE = 600.0
"""Seconds for which --watch waits for a silent driver, as engines do."""
END_OF_LINE = "\x1b[K\n"


class Shown(NamedTuple):
    """What to show of a run: how many of each kind, None: the default; `redrawn`: again whenever it
    changes."""

    json: bool
    redrawn: bool
    running: int | None
    failures: int | None
    log: int | None
    engines: int | None

    def wants(self) -> Wants:
        """The request to the driver."""
        from disbatch.model.failure import MOST_KINDS
        from disbatch.watch.status_text import SHOWN_KINDS
        from disbatch.wire.client_protocol import MOST_ENGINES, Wants

        usual = IN_JSON if self.json else SHOWN
        running, failures, log = (
            usual if number is None else number for number in (self.running, self.failures, self.log)
        )
        engines = MOST_ENGINES if self.engines is None else self.engines
        return Wants(engines, running, failures, log, kinds=MOST_KINDS if self.json else SHOWN_KINDS)


def add_status(add: AddVerb) -> None:
    """Declare the verb."""
    parser = add("status", parents=[usual_options()], help="the state of a run, also after its end")
    parser.add_argument("--json", action="store_true", help="print JSON, in one line")
    parser.add_argument(
        "--watch", action="store_true", help="print it again whenever it changes, until the end"
    )
    for name, what in (
        ("running", "longest running tasks"),
        ("failures", "last failed tasks"),
        ("log", "last messages"),
        ("engines", "engines"),
    ):
        usual = f"{SHOWN}; with --json {IN_JSON}" if name != "engines" else "20; with --json all"
        parser.add_argument(f"--{name}", metavar="N", type=_number, help=f"show N {what} ({usual})")
    parser.set_defaults(
        perform=lambda given, say: status(
            given.run,
            Shown(given.json, given.watch, given.running, given.failures, given.log, given.engines),
            given.timeout,
        )
    )


def _number(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 7 else -1
    if not 0 <= number <= MOST:
        raise argparse.ArgumentTypeError(f"{text}: give a number up to {MOST:,}")
    return number


def status(run: str | None, shown: Shown, patience: float) -> int:
    """Show the state of the run; the exit code."""
    from disbatch.client.find import look_up

    if sys.stdout is None:
        raise UsageError("standard output is closed")
    found = look_up(run)
    out = _Output(shown)
    if shown.redrawn and found.connect is not None:
        return asyncio.run(_watch(found, shown.wants(), out))
    standing = _ask(found, shown.wants(), patience)
    out.show(standing)
    return EXIT_COMPLETE if standing.is_heard else EXIT_INCOMPLETE


# ---- once ----


def _ask(found: Found, wants: Wants, patience: float) -> Standing:
    from disbatch.rundir.driver_alive import is_dead
    from disbatch.rundir.resume_hint import hint_for_killed
    from disbatch.watch.run_state import DEAD, OVER, SILENT, of_driver, of_file
    from disbatch.wire.client_protocol import Seen, Watch
    from disbatch.wire.client_socket import ask
    from disbatch.wire.renamed_files import is_gone

    from_file = partial(of_file, found.prefix, failures=wants.failures)
    if found.connect is None:
        return from_file(SILENT if found.words else OVER, found.words)
    if is_dead(found.prefix, found.connect):
        words = f"{found.connect.driver} is dead; {hint_for_killed(found.prefix)}"
        return from_file(DEAD, words)
    try:
        answer = ask(found.connect, Watch(wants), patience=patience)
    except (SilenceError, UsageError) as error:
        if is_gone(f"{found.prefix}_connect.json"):
            return from_file(OVER, "")  # it has just ended
        return from_file(SILENT, str(error))
    if not answer.ok or not isinstance(answer.value, Seen):
        raise UsageError(f"{found.prefix}: {' '.join(answer.lines)}")
    return of_driver(found.prefix, answer.value.view)


# ---- whenever it changes ----


async def _watch(found: Found, wants: Wants, out: _Output) -> int:
    import zmq

    from disbatch.client.run_client import line_opener
    from disbatch.rundir.resume_hint import hint_for_killed
    from disbatch.watch.run_state import OVER
    from disbatch.watch.status_client import StatusClient

    with zmq.Context() as context:
        hint = hint_for_killed(found.prefix)
        client = StatusClient(line_opener(context), found.prefix, found.connect, wants, resume=hint)
        heard = True
        try:
            while True:
                async with asyncio.timeout(None if heard else SILENCE):
                    standing = await client.next()
                out.show(standing)
                heard = standing.is_heard
                if standing.state == OVER:
                    return EXIT_COMPLETE
        except TimeoutError:
            return EXIT_INCOMPLETE
        finally:
            client.close()


class _Output:
    """Prints the state of a run: as JSON, or as text, which on a terminal replaces the former text."""

    def __init__(self, shown: Shown) -> None:
        self._json = shown.json
        self._engines = 20 if shown.engines is None else shown.engines
        self._redraws = shown.redrawn and not shown.json and sys.stdout.isatty()
        self._shown = 0

    def show(self, standing: Standing) -> None:
        """Show it now."""
        if self._json:
            sys.stdout.write(standing.json().decode() + "\n")
        else:
            self._show_text(standing)
        sys.stdout.flush()
        self._shown += 1

    def _show_text(self, standing: Standing) -> None:
        from disbatch.watch.status_text import render

        size = shutil.get_terminal_size((WIDTH, 0)) if sys.stdout.isatty() else os.terminal_size((WIDTH, 0))
        text = render(standing, max(40, size.columns), self._engines)
        encoding = sys.stdout.encoding or "ascii"
        text = text.encode(encoding, "replace").decode(encoding)
        if self._redraws:
            lines = text.split("\n")[: max(5, size.lines - 1)]
            home = "\x1b[H\x1b[2J" if not self._shown else "\x1b[H"
            sys.stdout.write(home + END_OF_LINE.join(lines) + "\x1b[K\n\x1b[J")
        else:
            sys.stdout.write(("\n" if self._shown else "") + text + "\n")


MOST_RUNNING = 200
MOST_FAILURES = 1000
MOST_LOG = 500


def add_monitor(add: AddVerb) -> None:
    """Declare the verb."""
    parser = add("monitor", parents=[run_option()], help="watch a run full-screen, and control it by keys")
    parser.add_argument(
        "--interval",
        metavar="SECONDS",
        type=seconds(0.1, 3600),
        default=1.0,
        help="seconds between updates, for a slow connection (%(default)g)",
    )
    parser.set_defaults(perform=lambda given, say: monitor(given.run, given.interval))


def monitor(run: str | None, interval: float) -> int:
    """Show the run until the user leaves; the exit code."""
    if not _is_terminal():
        raise UsageError("monitor: this is no terminal; `dbutil status --watch` writes lines")
    from disbatch.client.find import look_up

    found = look_up(run)
    import zmq

    from disbatch.client.run_client import line_opener
    from disbatch.model.failure import MOST_KINDS
    from disbatch.rundir.resume_hint import hint_for_killed
    from disbatch.watch.monitor.app import Monitor
    from disbatch.watch.status_client import StatusClient
    from disbatch.wire.client_protocol import Wants

    wants = Wants(running=MOST_RUNNING, failures=MOST_FAILURES, log=MOST_LOG, course=True, kinds=MOST_KINDS)
    advice = hint_for_killed(found.prefix) if found.connect is not None else found.words
    with zmq.Context() as context:
        app = Monitor(
            lambda: StatusClient(line_opener(context), found.prefix, found.connect, wants, resume=advice),
            interval=interval,
            has_terminal=_is_terminal,
        )
        app.run()
    if app.trouble is not None:
        raise app.trouble
    return app.return_code or EXIT_COMPLETE


def _is_terminal() -> bool:
    """The monitor is drawn on standard error."""
    streams = (sys.__stdin__, sys.__stdout__, sys.__stderr__)
    return os.environ.get("TERM", "dumb") != "dumb" and all(
        each is not None and each.isatty() for each in streams
    )
