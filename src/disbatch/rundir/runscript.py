"""Read PREFIX_dbUtil.sh, which stays after the run: how to continue the run, and where its status file is.

The record is PREFIX_status.txt; but if another file takes that name during the run, the record continues as
PREFIX-2_status.txt, or another number (see `wire.renamed_files`), and the script is rewritten first. That
name could also be the record of a separate run with the prefix PREFIX-2: such a run has its own script.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import msgspec

from disbatch.wire.ownfile import owner_of, read_own
from disbatch.wire.renamed_files import is_gone

MARK = "# run: "
LARGEST = 1 << 20
STATUS = "_status.txt"
SCRIPT = "_dbUtil.sh"
CONNECT = "_connect.json"
OUTPUT = "_output.json"
_ENDINGS = (STATUS, SCRIPT, CONNECT, OUTPUT, "_run.json")
_NUMBER = re.compile(r"-[0-9]{1,5}\Z")


class RunCommand(msgspec.Struct, frozen=True):
    """The command that continues a run, in `directory`, with its status file `status` (absolute), and the
    command for a run with submitted tasks. `tasks`: how many the task file has; None if there is none."""

    directory: str
    status: str
    resume: str
    resume_with_submitted: str
    tasks: int | None = None


def read_script(prefix: str) -> RunCommand | None:
    """Read the script of this run, which must belong to our user or to the owner of the record; None if there
    is none."""
    try:
        text = read_own(f"{prefix}{SCRIPT}", LARGEST, trusted=owner_of(f"{prefix}{STATUS}"))
        lines = text.decode(errors="surrogateescape").splitlines()
        told = next((line for line in lines if line.startswith(MARK)), MARK)
        return msgspec.convert(json.loads(told.removeprefix(MARK)), RunCommand)
    except (OSError, ValueError, RecursionError):
        return None


def read_run_command(status: str) -> RunCommand | None:
    """How to continue the run that wrote this status file; None if there is no script of our user, or if the
    file was moved."""
    asked = read_script(prefix_of(status))
    try:
        return asked if asked is not None and Path(asked.status).samefile(status) else None
    except (OSError, ValueError):
        return None


def status_file(prefix: str) -> str:
    """The record of the run with this prefix."""
    usual = f"{prefix}{STATUS}"
    told = read_script(prefix)
    if told is None:
        return usual
    name = Path(told.status).name
    there = os.path.join(os.path.dirname(usual), name)  # noqa: PTH118, PTH120 - spelled as the prefix is
    stem = name.removesuffix(STATUS)
    if stem == name or is_gone(there) or Path(prefix).name not in _shorter(stem):
        return usual
    return usual if _has_script(there.removesuffix(STATUS)) else there


def named_prefix(name: str) -> str:
    """The prefix of the run that a user names by its prefix, or by one of its files."""
    for ending in _ENDINGS:
        name = name.removesuffix(ending)
    return name


def prefix_of(status: str) -> str:
    """The prefix of the run with this record."""
    own = status.removesuffix(STATUS)
    if own != status and not _has_script(own):
        return next((each for each in _shorter(own) if Path(status_file(each)) == Path(status)), own)
    return own


def _has_script(prefix: str) -> bool:
    return not is_gone(f"{prefix}{SCRIPT}")


def _shorter(prefix: str) -> list[str]:
    """The prefix without its last number, and so on."""
    found = []
    while prefix != (prefix := _NUMBER.sub("", prefix)):
        found.append(prefix)
    return found
