"""PREFIX_dbUtil.sh: `dbutil` bound to a run, which stays when that is over; and how to go on with the run."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

import msgspec

from disbatch.contexts.local import own_argv
from disbatch.driver.files import RunFiles
from disbatch.model.errors import UsageError
from disbatch.wire.ownfile import read_own

SCRIPT = """\
#!/bin/sh
# dbutil for one run: what its files begin with stands behind --run
{mark}{asked}
exec {dbutil} --run {prefix} "$@"
"""
MARK = "# run: "
LARGEST = 1 << 20
STATUS = "_status.txt"


class RunCommand(msgspec.Struct, frozen=True):
    """The command that goes on with a run, in `directory`, with its status file `status` (absolute); the
    other one, if tasks were handed in. `tasks`: how many the task file has; None if it is none."""

    directory: str
    status: str
    resume: str
    resume_with_submitted: str
    tasks: int | None = None


def write_script(files: RunFiles, asked: RunCommand) -> None:
    """Make the file. UsageError if it cannot be made."""
    path = files.script
    text = SCRIPT.format(
        mark=MARK,
        asked=json.dumps(msgspec.to_builtins(asked)),  # in ASCII, whatever bytes the names hold
        dbutil=shlex.join(own_argv("dbutil")),
        prefix=shlex.quote(str(files.elsewhere.prefix)),
    )
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o777)
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
    except OSError as error:
        raise UsageError(f"{path}: cannot be created: {error.strerror}") from error


def read_run_command(status: str) -> RunCommand | None:
    """How to go on with the run of ours that wrote this status file; None if nobody knows, or if the file is
    not where that run had it."""
    if not status.endswith(STATUS):
        return None
    try:
        path = f"{status.removesuffix(STATUS)}_dbUtil.sh"
        text = read_own(path, LARGEST).decode(errors="surrogateescape")
        told = next((line for line in text.splitlines() if line.startswith(MARK)), MARK)
        asked = msgspec.convert(json.loads(told.removeprefix(MARK)), RunCommand)
        return asked if Path(asked.status).samefile(status) else None
    except (OSError, ValueError, RecursionError):
        return None
