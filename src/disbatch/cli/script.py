"""Write and read PREFIX_dbUtil.sh, which runs `dbutil` for one run and holds the command that resumes it."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

import msgspec

from disbatch.contexts.local import own_argv
from disbatch.model.errors import UsageError
from disbatch.rundir.paths import RunFiles
from disbatch.rundir.runscript import MARK, RunCommand, prefix_of, read_script

SCRIPT = """\
#!/bin/sh
# dbutil for one run: what its files begin with stands behind --run
{mark}{asked}
exec {dbutil} --run {prefix} "$@"
"""


def write_script(files: RunFiles, asked: RunCommand) -> None:
    """Make the file, or write it anew if it is the run's. UsageError if it cannot be made."""
    path = files.script
    text = SCRIPT.format(
        mark=MARK,
        asked=json.dumps(msgspec.to_builtins(asked)),  # in ASCII, whatever bytes the names hold
        dbutil=shlex.join(own_argv("dbutil")),
        prefix=shlex.quote(str(files.elsewhere.prefix)),
    )
    new = path.with_name(f"{path.name}.new")
    again = read_script(str(files.prefix)) is not None
    try:
        if again:
            new.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        descriptor = os.open(new if again else path, flags, 0o777)
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
        if again:
            new.replace(path)
    except OSError as error:
        raise UsageError(f"{path}: cannot be created: {error.strerror}") from error


def read_run_command(status: str) -> RunCommand | None:
    """How to go on with the run of ours that wrote this status file; None if nobody knows, or if the file is
    not where that run had it."""
    asked = read_script(prefix_of(status))
    try:
        return asked if asked is not None and Path(asked.status).samefile(status) else None
    except (OSError, ValueError):
        return None
