"""`dbutil submit`: submit tasks to a run, and wait until they are done if asked to."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from disbatch.cli.verb_options import AddVerb, usual_options
from disbatch.model.errors import EXIT_COMPLETE, EXIT_FAILED, DisbatchError, SilenceError, UsageError
from disbatch.model.text import counted

if TYPE_CHECKING:
    from disbatch.client.find import Run
    from disbatch.client.follow import Follower
    from disbatch.wire.client_protocol import Taken

READ = 1 << 20
"""Bytes of standard input asked for in one read."""


class Submission(NamedTuple):
    """Lines to submit (`-`: those of standard input), whether to wait until their tasks are done, and the
    seconds to wait for the driver's answer."""

    commands: list[str]
    wait: bool
    patience: float


class Lines(NamedTuple):
    """Lines of `source`; `number`: that of the first one."""

    source: str
    number: int
    lines: list[bytes]


def add_submit(add: AddVerb) -> None:
    """Declare the verb."""
    parser = add("submit", parents=[usual_options()], help="submit tasks")
    parser.add_argument("--wait", action="store_true",
        help="wait until they are done, and print their status lines; exit with 1 if one failed")  # fmt: skip
    parser.add_argument("commands", nargs="+", metavar="COMMAND",
        help="a line of a task file; -: lines from standard input")  # fmt: skip
    parser.set_defaults(
        perform=lambda given, say: submit(
            given.run, Submission(given.commands, given.wait, given.timeout), say
        )
    )


def submit(run_prefix: str | None, submission: Submission, complain: Callable[[str], None]) -> int:
    """Submit the tasks; the exit code. The ids of the tasks go to standard output."""
    from disbatch.client.find import find_run

    run = find_run(run_prefix)
    try:
        return asyncio.run(
            _submit(run, submission, sys.stdout.buffer, lambda text: complain(f"{run.prefix}: {text}"))
        )
    except (UsageError, SilenceError) as error:
        raise type_of(error)(f"{run.prefix}: {error}") from error


def type_of(error: DisbatchError) -> type[DisbatchError]:
    """UsageError or SilenceError, whichever it is."""
    return UsageError if isinstance(error, UsageError) else SilenceError


async def _submit(run: Run, submission: Submission, out: BinaryIO, say: Callable[[str], None]) -> int:
    from disbatch.client.find import client_of
    from disbatch.client.follow import Follower

    async with client_of(run, say) as client:
        submitter = _Submitter(Follower(client), submission.patience, None if submission.wait else out)
        if submission.wait:
            return await _submit_and_wait(submitter, submission.commands, out)
        await submitter.submit(submission.commands)
        return EXIT_COMPLETE


async def _submit_and_wait(submitter: _Submitter, commands: list[str], out: BinaryIO) -> int:
    """Print the status lines of tasks that end, while others are still submitted."""
    from disbatch.rundir.statusfile import without_command

    follower, failed = submitter.follower, False
    submitting = asyncio.create_task(submitter.submit(commands))
    collecting = asyncio.create_task(follower.collect())
    try:
        while not submitting.done() or follower.pending:
            either = {collecting} if submitting.done() else {submitting, collecting}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if submitting.done():
                submitting.result()
            if not collecting.done():
                continue
            told = collecting.result()
            for line, record in told.ended:
                failed |= record.failed
                out.write(without_command(line) + b"\n")
            out.flush()
            if told.over and follower.pending:
                how = f" ({told.words})" if told.words else ""
                left = counted(follower.pending, "of these tasks is", "of these tasks are")
                raise SilenceError(f"the run ended{how}; {left} not done")
            collecting = asyncio.create_task(follower.collect())
        submitting.result()
        return EXIT_FAILED if failed else EXIT_COMPLETE
    finally:
        submitting.cancel()
        collecting.cancel()


class _Submitter:
    """Submits lines, with `patience` seconds for each answer; `out`, if any, gets the ids of the tasks."""

    def __init__(self, follower: Follower, patience: float, out: BinaryIO | None) -> None:
        self.follower = follower
        self._patience = patience
        self._out = out
        self._taken = 0

    async def submit(self, commands: list[str]) -> None:
        """Submit all of them, in order. UsageError for the first line that is refused, SilenceError if there
        is no answer."""
        try:
            for group in _groups(commands):
                if group is None:
                    async for lines in _standard_input():
                        await self._submit_lines(lines)
                else:
                    await self._submit_lines(Lines("argument", 1, group))
        except DisbatchError as error:
            raise type_of(error)(f"{error}{self._taken_before}") from error

    @property
    def _taken_before(self) -> str:
        if not self._taken:
            return ""
        return f" (before it {counted(self._taken, 'line was', 'lines were')} taken)"

    async def _submit_lines(self, lines: Lines) -> None:
        from disbatch.wire.client_protocol import Submit

        for source, number, some in batches(lines):
            taken = await self.follower.submit(Submit(some, source, number), self._patience)
            self._taken += len(some)
            if self._out is not None:
                self._out.write(f"{_words(taken)}\n".encode())
                self._out.flush()


def _words(taken: Taken) -> str:
    first, last = taken.first, taken.first + taken.ids - 1
    if last < first:
        return "taken; no task is in it"
    return f"task {first}" if first == last else f"tasks {first}-{last}"


def batches(lines: Lines) -> Iterator[Lines]:
    """Batches of as many lines as the driver accepts. UsageError for a line that is too long."""
    from disbatch.wire.client_protocol import MAX_SUBMITTED, MOST_LINES_SUBMITTED

    batch: list[bytes] = []
    number, size = lines.number, 0
    for here, line in enumerate(lines.lines, lines.number):
        if len(line) > MAX_SUBMITTED:
            most = f"longer than {MAX_SUBMITTED >> 20} MiB; put the work in a script and call that"
            raise UsageError(f"{lines.source}:{here}: {most}")
        if batch and (size + len(line) > MAX_SUBMITTED or len(batch) >= MOST_LINES_SUBMITTED):
            yield Lines(lines.source, number, batch)
            batch, number, size = [], here, 0
        batch.append(line)
        size += len(line)
    if batch:
        yield Lines(lines.source, number, batch)


def _groups(commands: list[str]) -> Iterator[list[bytes] | None]:
    """Groups of commands; None where standard input must be read."""
    group: list[bytes] = []
    for command in commands:
        if command != "-":
            group.append(os.fsencode(command))
            continue
        if group:
            yield group
        yield None
        group = []
    if group:
        yield group


async def _standard_input() -> AsyncIterator[Lines]:
    """Lines as they come. UsageError if it cannot be read."""
    from disbatch.sources.file import unreadable
    from disbatch.sources.opening import STDIN_NAME, is_pollable
    from disbatch.sources.source import LineSplitter

    splitter, pollable, data = LineSplitter(), is_pollable(0), b"-"
    while data:
        try:
            if pollable:
                await _readable(0)
            data = os.read(0, READ)
        except BlockingIOError:
            continue  # another reader of it was faster
        except OSError as error:
            raise unreadable(STDIN_NAME, error) from error
        number, lines = splitter.feed(data) if data else splitter.finish()
        if lines:
            yield Lines(STDIN_NAME, number, lines)


async def _readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)
