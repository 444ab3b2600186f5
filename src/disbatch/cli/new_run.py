"""Prepare a new run from its options, and carry it out."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

from disbatch.cli.context import pool_of
from disbatch.cli.output import choose_output
from disbatch.cli.resume import clear_abandoned, former_life, former_record
from disbatch.cli.run import Inputs, Prepared, carry_out, open_inputs
from disbatch.cli.run_options import OutputOptions, RunOptions
from disbatch.contexts.context import Choice
from disbatch.contexts.discovery import restarted_by
from disbatch.contexts.spawn import Spawned
from disbatch.model.errors import ResumeError
from disbatch.model.job import JOB_IDS
from disbatch.rundir.output_manifest import Output, kept_before
from disbatch.rundir.paths import claim, working_directory
from disbatch.rundir.resume import Former
from disbatch.rundir.resume_by_command import ByCommand
from disbatch.watch.progress import choose_observer
from disbatch.wire.engine_protocol import SECRET_VARIABLES


def run(options: RunOptions, arguments: list[str], choice: Choice, early: Spawned | None) -> int:
    """One run; the exit code. DisbatchError for what keeps it from starting."""
    observer = choose_observer(sys.stderr)
    inputs = open_inputs(options, arguments, observer.say)
    prepared = prepare(options, inputs, choice, observer.say)
    return carry_out(options, prepared, observer, early)


def prepare(options: RunOptions, inputs: Inputs, choice: Choice, say: Callable[[str], None]) -> Prepared:
    """Read the records of the runs that it resumes, and claim its files. DisbatchError."""
    jobid = _jobid()
    resume, record = options.resume, options.record
    former = _restarted_job(options, inputs, jobid, say)
    if former is None:
        former = former_record(resume, resume.resume_from, inputs.opened, say)
    pool = pool_of(options.context, choice)
    directory = working_directory()
    before = kept_before(resume.resume_from, by_command=resume.by_command)
    output = choose_output(
        *(options.output, directory),
        goes_on=bool(resume.resume_from or restarted_by(os.environ)),
        here=any(node.local for node in choice.nodes),
        by_command=resume.by_command,
        before=before,
        jobid=jobid,
    )
    if options.output is not None and output is not None:
        _report_directory(options.output, output, directory, say)
    claimed = claim(record.prefix, inputs.task_name, jobid, record.logfile)
    for path in resume.resume_from:
        clear_abandoned(path)
    return Prepared(
        inputs=inputs,
        pool=pool,
        claimed=claimed,
        jobid=jobid,
        directory=os.fsencode(directory),
        environment={**_environment(), b"DISBATCH_CONNECT": bytes(claimed.files.elsewhere.connect)},
        output=output,
        before=before,
        former=former,
    )


def _restarted_job(
    options: RunOptions, inputs: Inputs, jobid: str, say: Callable[[str], None]
) -> Former | ByCommand | None:
    """What this job completed before its scheduler started it again; None if it was not, or that is not
    known."""
    scheduler = restarted_by(os.environ)
    if not scheduler:
        return None
    named = options.resume.resume_from
    paths = former_life(options.record.prefix, inputs.task_name, jobid, named)
    if not paths:
        return None
    files = ", ".join(paths)
    if inputs.opened.summary is None:
        again = " ".join(f"-r {path}" for path in paths)
        before = f"what it did before is in {files} ({again} goes on from there)"
        say(f"{scheduler} started this job again; {before}")
        return None
    try:
        former = former_record(options.resume, [*named, *paths], inputs.opened, say, ended=True)
    except ResumeError as error:
        problem = f"its former record does not fit: {error}; beginning anew"
        say(f"{scheduler} started this job again, but {problem}")
        return None
    say(f"{scheduler} started this job again: going on from {files}")
    return former


def _report_directory(
    asked: OutputOptions, output: Output, directory: str, say: Callable[[str], None]
) -> None:
    """Tell the user if output goes to another directory than the one asked for."""
    place = os.fsdecode(output.directory)
    if place != str(Path(directory) / asked.directory):
        say(
            f"--output {asked.directory}: tasks had other numbers there; their output now goes to "
            f"{os.path.join(asked.directory, os.path.basename(place))}"  # noqa: PTH118, PTH119 - as given
        )


def _jobid() -> str:
    for variable in JOB_IDS:
        value = os.environ.get(variable)
        if value:
            return re.sub(r"[^A-Za-z0-9_.+-]", "_", value)[:100]
    return f"{time.strftime('%y%m%d%H%M%S')}_{os.getpid()}"


def _environment() -> dict[bytes, bytes]:
    """The environment of tasks: the user's, without secrets and without LC_CTYPE, which Python sets in the C
    locale."""
    environment = {name: value for name, value in os.environb.items() if name not in SECRET_VARIABLES}
    try:
        at_start = Path("/proc/self/environ").read_bytes()
    except OSError:
        return environment
    if b"LC_CTYPE" in environment and not any(v.startswith(b"LC_CTYPE=") for v in at_start.split(b"\0")):
        del environment[b"LC_CTYPE"]
    return environment
