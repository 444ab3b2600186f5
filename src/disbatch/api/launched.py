"""A `disbatch` process that this program has started: it accepts tasks as long as the program lives and keeps
it open."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from disbatch.contexts.local import own_argv
from disbatch.model.errors import EXIT_USAGE, DisbatchError, UsageError
from disbatch.model.text import parse_path_line

KEPT = 1 << 16
"""Bytes of its last messages that are read."""


class Launched:
    """`start` it, then wait until it is `ready`. It has a session of its own, so only the program gets
    signals from the terminal, such as that of Ctrl-C. `ended` is its exit code, minus the signal's number if
    it was killed."""

    def __init__(self, process: asyncio.subprocess.Process, stdin: int, words: IO[bytes] | None) -> None:
        self._process = process
        self._stdin = stdin
        self._words = words
        self.ended = asyncio.get_running_loop().create_task(process.wait())
        _launched.add(self)

    @classmethod
    async def start(
        cls,
        options: Sequence[str],
        *,
        directory: Path | None,
        environment: Mapping[str, str] | None,
        stderr: IO[Any] | int | None,
    ) -> Launched:
        """`disbatch --keep-open --owned OPTIONS`; its messages go to `stderr`, or are kept. UsageError if it
        cannot be started."""
        if not sys.executable:
            raise UsageError("disbatch cannot be started: sys.executable names no Python")
        words = tempfile.TemporaryFile() if stderr is None else None  # noqa: SIM115 - closed with us
        theirs, ours = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *own_argv("disbatch", "--keep-open", "--owned", *options),
                stdin=theirs,
                stdout=asyncio.subprocess.PIPE,
                stderr=words if words is not None else stderr,
                cwd=directory,
                env=environment,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            os.close(ours)
            raise UsageError(f"disbatch cannot be started: {error}") from error
        finally:
            os.close(theirs)
        return cls(process, ours, words)

    async def ready(self) -> str:
        """Wait until the run accepts tasks; returns the prefix of its files. UsageError if the options are
        wrong, DisbatchError if it cannot start for another reason."""
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if line.endswith(b"\n"):
            return parse_path_line(os.fsdecode(line[:-1]))
        code = await asyncio.shield(self.ended)
        text = self.messages or f"disbatch ended with {code} before it accepted tasks"
        self.close()
        raise (UsageError if code == EXIT_USAGE else DisbatchError)(text)

    @property
    def messages(self) -> str:
        """Its last messages, if they were kept."""
        if self._words is None:
            return ""
        size = os.fstat(self._words.fileno()).st_size
        text = os.pread(self._words.fileno(), KEPT, max(0, size - KEPT)).decode(errors="replace")
        return text.strip().removeprefix("disbatch: ")

    @property
    def conclusion(self) -> str:
        """How the run ended, in one line."""
        lines = self.messages.splitlines() or ["the reason is not known"]
        again = [line.split(None, 1)[1] for line in lines if line.startswith("  resume ")]
        return "; resume with: ".join([f"the run ended: {lines[0]}", *again])

    def take_no_more(self) -> None:
        """It accepts no more tasks, and ends when all are done."""
        stdin, self._stdin = self._stdin, -1
        if stdin >= 0:
            with contextlib.suppress(OSError):
                os.close(stdin)

    def close(self) -> None:
        """Its messages are not needed any more."""
        self.take_no_more()
        if self._words is not None:
            self._words.close()
            self._words = None


_launched: weakref.WeakSet[Launched] = weakref.WeakSet()


def _let_go_in_child() -> None:
    """A forked process would keep this end of the pipe, and so the run, open."""
    for each in _launched:
        each.take_no_more()


os.register_at_fork(after_in_child=_let_go_in_child)
