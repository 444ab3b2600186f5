"""Asks Slurm's own commands about a job: which nodes it has now, when it ends, how it is ended.

Each answers within milliseconds, or, where the controller is away, tries for a minute; so they run at the
same time, and none is waited for beyond the limit.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping
from typing import IO

from disbatch.contexts.hetjob import JobFacts
from disbatch.contexts.slurm import parse_config, parse_job, parse_version
from disbatch.contexts.words import ended_how, lines

TIMEOUT = 10.0
"""Seconds for all of them."""
KILLED = 1.0
"""Seconds that a killed command has to be gone."""
MAX_OUTPUT = 1 << 23
"""Bytes of one stream; the configuration of a big site is about 1 MB."""
_CHUNK = 1 << 16
_NO_SUCH_JOB = b"Invalid job id specified"


class _Command:
    """A command, what it has said so far, and, once it is over, in one line why that is not to be used."""

    def __init__(self, argv: list[str], environ: Mapping[str, str]) -> None:
        self.name = " ".join(argv)
        self.out = bytearray()
        self.err = bytearray()
        self.problem = ""
        self.process: subprocess.Popen[bytes] | None = None
        try:
            # A group of its own: what is to be killed may be a site's shell script around the real command.
            self.process = subprocess.Popen(
                argv,
                env=dict(environ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except FileNotFoundError:
            self.problem = f"there is no {argv[0]} command in PATH"
        except OSError as error:
            self.problem = f"{argv[0]} cannot be run: {error.strerror or error}"

    def streams(self) -> list[tuple[IO[bytes], bytearray]]:
        """Its pipes, and where what comes out of them belongs."""
        if self.process is None or self.process.stdout is None or self.process.stderr is None:
            return []
        return [(self.process.stdout, self.out), (self.process.stderr, self.err)]

    def conclude(self, deadline: float, timeout: float) -> None:
        """See it end until `deadline` (monotonic), or kill it; it had `timeout` seconds in all."""
        if self.process is None:
            return
        try:
            code = self.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.kill()
            self.problem = f"{self.name}: no answer within {timeout:g} s"
            return
        self._close()
        if code:
            said = lines(bytes(self.err))
            self.problem = f"{self.name}: {said[-1] if said else ended_how(code)}"

    def kill(self) -> None:
        """End it, and what it started."""
        if self.process is None:
            return
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(KILLED)
        self._close()

    def _close(self) -> None:
        for pipe, _ in self.streams():
            pipe.close()


def ask(job: str, environ: Mapping[str, str], timeout: float = TIMEOUT) -> JobFacts:
    """What `scontrol` and `srun`, found by `environ`'s PATH, say of the job, after `timeout` seconds at most.

    What they do not say is not known, and `problem` says in one line why.
    """
    environ = {**environ, "SLURM_TIME_FORMAT": "%s"}  # not local time in a format of the user's
    deadline = time.monotonic() + timeout
    argvs = (f"scontrol show job -d -o {job}", "scontrol show config", "srun --version")
    commands = [_Command(argv.split(), environ) for argv in argvs]
    try:
        _listen(commands, deadline)
    except BaseException:  # Ctrl-C: leave nothing behind
        for command in commands:
            command.kill()
        raise
    for command in commands:
        command.conclude(deadline, timeout)
    about_job, config, version = commands
    if _NO_SUCH_JOB in about_job.err:
        return JobFacts(gone="Slurm knows no such job (Invalid job id specified)")
    facts = JobFacts() if about_job.problem else parse_job(about_job.out.decode(errors="replace"), job)
    return dataclasses.replace(
        facts,
        kill_wait=parse_config(config.out.decode(errors="replace")),
        version=parse_version(version.out.decode(errors="replace")),
        problem=next(filter(None, (facts.problem, *(command.problem for command in commands))), ""),
    )


def _listen(commands: list[_Command], deadline: float) -> None:
    """Take what they say until all have closed their streams, or the deadline."""
    with selectors.DefaultSelector() as selector:
        for command in commands:
            for pipe, taken in command.streams():
                selector.register(pipe, selectors.EVENT_READ, taken)
        while selector.get_map() and (left := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                data = os.read(key.fd, _CHUNK)
                key.data.extend(data[: MAX_OUTPUT - len(key.data)])
                if not data:
                    selector.unregister(key.fileobj)
