"""`dbutil submit`: hands tasks in to a run that goes on, and may wait until they are done."""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, BinaryIO

from disbatch.cli.verbs import usual_options
from disbatch.model.errors import EXIT_COMPLETE, EXIT_FAILED, SilenceError, UsageError

if TYPE_CHECKING:
    from disbatch.cli.runs import Run
    from disbatch.wire.caller import Caller
    from disbatch.wire.requests import Taken

COLLECT_PATIENCE = 20.0
"""Seconds without any answer, after which the driver may be dead: it answers every 10."""


def add_submit(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Declare the verb with `add(name, help=...)`, which makes a parser."""
    parser = add("submit", parents=[usual_options()], help="hand in tasks")
    parser.add_argument("--wait", action="store_true",
        help="until they are done; print their status lines; exit 1 if one failed")  # fmt: skip
    parser.add_argument("commands", nargs="+", metavar="COMMAND",
        help="a line of a task file each; - reads lines from standard input")  # fmt: skip


def submit(options: argparse.Namespace, out: BinaryIO) -> int:
    """Hand the tasks in; the exit code. What happened goes to `out`, a line each."""
    from disbatch.cli.runs import find_run

    run = find_run(options.run)
    try:
        return asyncio.run(_submit(run, options, out))
    except (UsageError, SilenceError) as error:
        raise type(error)(f"{run.prefix}: {error}") from error


async def _submit(run: Run, options: argparse.Namespace, out: BinaryIO) -> int:
    import zmq

    from disbatch.wire.caller import Caller
    from disbatch.wire.requests import Submit, Taken

    loop = asyncio.get_running_loop()
    session = secrets.token_hex(16) if options.wait else ""
    with zmq.Context() as context:
        caller = Caller(loop, context, run.connect)
        try:
            waited: set[int] = set()
            for lines in _batches(options.commands):
                answer = await caller.call(Submit(lines, session), options.timeout)
                if not answer.ok or not isinstance(answer.value, Taken):
                    raise UsageError(" ".join(answer.lines))
                if options.wait:
                    waited |= _ids(answer.value)
                    continue
                out.write(f"{answer.lines[0]}\n".encode())
                out.flush()
            return await _wait(caller, session, waited, out) if options.wait else EXIT_COMPLETE
        finally:
            caller.close()


def _ids(taken: Taken) -> set[int]:
    return set(range(taken.first, taken.first + sum(taken.counts)))


async def _wait(caller: Caller, session: str, waited: set[int], out: BinaryIO) -> int:
    """Print the status lines of these as they end."""
    from disbatch.model.status import parse_line
    from disbatch.wire.requests import Collect, Results

    driver, known, failed = 0, 0, False
    while waited:
        answer = await caller.call(Collect(session, driver, known), COLLECT_PATIENCE)
        results = answer.value
        if not isinstance(results, Results):
            raise UsageError(" ".join(answer.lines))
        for line in results.lines:
            record = parse_line(line + b"\t''\n")
            if record is not None and record.id in waited:
                waited.discard(record.id)
                failed |= record.failed
                out.write(line + b"\n")
        out.flush()
        driver, known = results.driver, results.since + len(results.lines)
        if results.over and waited:
            raise SilenceError(f"the run ended, and {len(waited)} of these tasks are not done")
    return EXIT_FAILED if failed else EXIT_COMPLETE


def _batches(commands: list[str]) -> Iterator[list[bytes]]:
    from disbatch.wire.requests import MAX_SUBMITTED, MOST_LINES_SUBMITTED

    batch: list[bytes] = []
    size = 0
    for line in _lines(commands):
        if batch and (size + len(line) > MAX_SUBMITTED or len(batch) >= MOST_LINES_SUBMITTED):
            yield batch
            batch, size = [], 0
        batch.append(line)
        size += len(line)
    if batch:
        yield batch


def _lines(commands: list[str]) -> Iterator[bytes]:
    for command in commands:
        if command != "-":
            yield os.fsencode(command)
            continue
        for line in sys.stdin.buffer:
            yield line.removesuffix(b"\n").removesuffix(b"\r")
