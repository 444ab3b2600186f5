"""--output: choose the directory, a new one or that of the runs that this run resumes."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from disbatch.cli.run_options import OutputOptions
from disbatch.contexts.discovery import restarted_by
from disbatch.engine.output_files import prepare
from disbatch.model.errors import UsageError
from disbatch.model.output import is_shard
from disbatch.model.pack import PACK_END
from disbatch.rundir import output_manifest
from disbatch.rundir.output_manifest import Before, Output, OutputFile
from disbatch.rundir.paths import RunFiles

RUN = "run-"
"""Beginning of the name of a subdirectory for a run whose tasks have other numbers; its job id follows."""
NOTHING_BEFORE = Before([], [])


def choose_output(
    options: OutputOptions | None,
    directory: str,
    *,
    goes_on: bool,
    here: bool,
    by_command: bool = False,
    before: Before = NOTHING_BEFORE,
    jobid: str = "",
) -> Output | None:
    """Where output is kept; None: nowhere. `directory`: the tasks' working directory. `goes_on`: the run
    continues a former one and may use its directory, or, if tasks have other numbers there, a subdirectory.
    `before`: what former runs kept. `here`: tasks run on this machine, too. UsageError."""
    if options is None:
        return None
    shown = f"--output {options.directory}"
    path = Path(directory) / options.directory
    if os.path.lexists(path) and not path.is_dir():
        raise UsageError(f"{shown}: is not a directory")
    if not goes_on and _is_used(path):
        raise UsageError(
            f"{shown}: holds the output of another run; name another directory, or go on with that run: "
            "-r STATUSFILE"
        )
    path = _own_place(path, before, jobid, by_command=by_command)
    if here:
        try:
            prepare(os.fsencode(path), f"driver-{os.getpid()}")
        except OSError as error:
            raise UsageError(f"{shown}: cannot be written: {error.strerror}") from error
    return Output(os.fsencode(path), options.packed, options.limit)


def _own_place(path: Path, before: Before, jobid: str, *, by_command: bool) -> Path:
    """The directory in which tasks have the same numbers as in this run."""
    for name in before.directories:  # a run that we go on from found other numbers there
        if Path(name).parent == path and Path(name).name.startswith(RUN):
            return Path(name)
    if not before.has_renumbered(str(path)) and not (by_command and _is_used(path)):
        return path
    own = path / f"{RUN}{jobid}"
    number = 1
    while _is_used(own) and not restarted_by(os.environ):
        number += 1
        own = path / f"{RUN}{jobid}-{number}"
    return own


def _is_used(path: Path) -> bool:
    """True if the directory holds output of a run; False also if it cannot be read."""
    try:
        names = [each.name for each in path.iterdir()]
        shards = [each.name for name in names if is_shard(name) for each in (path / name).iterdir()]
    except OSError:
        return False
    return any(is_shard(name) for name in shards) or any(name.endswith(PACK_END) for name in names)


def inherited_output(options: OutputOptions | None, directory: str, files: RunFiles) -> Output | None:
    """The output settings of the run that is taken over, which its engines know. UsageError if the options
    ask for others."""
    manifest = output_manifest.kept_output(str(files.prefix))
    kept = None if manifest is None else manifest.output
    asked = choose_output(options, directory, goes_on=True, here=False)
    if kept is not None and asked is not None:
        own = Path(os.fsdecode(kept.directory))
        if own.name.startswith(RUN) and bytes(own.parent) == asked.directory:
            asked = replace(asked, directory=kept.directory)
    if kept != asked:
        raise UsageError(f"{files.prefix}: a run that is taken over keeps its output where it did, as it did")
    return kept


def write_output_file(output: Output, files: RunFiles, before: Before) -> None:
    """Write the output manifest, for `dbutil cat`."""
    output_manifest.write(files.output, OutputFile.of(output, Path(files.prefix), before))
