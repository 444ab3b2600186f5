"""Parse and check the options of `disbatch`; each error is one line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from disbatch.cli.parser import Parser
from disbatch.client.command_line import add_options
from disbatch.model.errors import UsageError
from disbatch.model.output import DEFAULT_LIMIT

if TYPE_CHECKING:
    import msgspec

    from disbatch.cli.run_options import ContextOptions, FixPaths, RunOptions, TakeoverOptions

    Part = TypeVar("Part", bound=msgspec.Struct)

DESCRIPTION = "Run a file of shell commands, one a line, as many at a time as there are slots."
EPILOG = """\
examples:
  disbatch Tasks  on this machine, one task per core
  disbatch -s ws1:8,ws2:16 Tasks  on two workstations, through ssh
  sbatch -n 20 disbatch Tasks  on 20 cores of a Slurm cluster
  disbatch -c 4 Tasks  four cores per task
  disbatch -r Tasks_JOBID_status.txt Tasks  continue a former run
  generator | disbatch -  tasks as they are generated

exit status:
  0  the run is complete, even if tasks failed
  1  a task failed, and -e, -f or BARRIER CHECK was given
  2  bad usage or input: nothing ran; in a stream, nothing after the bad line
  3  the run could not be completed
  128 + N  ended by signal N
"""


def build_parser() -> argparse.ArgumentParser:
    """All options."""
    parser = Parser(
        prog="disbatch",
        description=DESCRIPTION,
        epilog=EPILOG,
        allow_abbrev=False,
        usage="disbatch [options] TASKFILE",
    )
    add_options(parser)
    return parser


def parse(argv: Sequence[str]) -> RunOptions | TakeoverOptions | FixPaths:
    """The checked options of a command line. UsageError for options that cannot work."""
    given = _read(argv)
    from disbatch.cli.run_options import FixPaths, TakeoverOptions

    if given.fix_paths:
        return FixPaths()
    if given.takeover is None:
        return _checked(given)
    if given.takeover == "" or given.taskfile not in (None, "-"):
        what = "the name is empty" if not given.takeover else "name no task file, the run has its own"
        raise UsageError(f"--takeover: {what}")
    _refuse_settled(given)
    return TakeoverOptions(given.takeover, given.force, feeds=given.taskfile is not None)


def parse_run(argv: Sequence[str]) -> RunOptions:
    """The checked options of a run. UsageError for options that cannot work."""
    return _checked(_read(argv))


def context_options(given: argparse.Namespace) -> ContextOptions:
    """The options that `command_line.add_where` and `add_reach` declare."""
    from disbatch.cli.run_options import ContextOptions

    return _part(ContextOptions, given)


def _read(argv: Sequence[str]) -> argparse.Namespace:
    given, rest = build_parser().parse_known_args(argv)
    if rest:
        wrong = next((word for word in rest if word.startswith("-")), None)
        raise UsageError(
            f"unknown option {wrong}; see disbatch --help"
            if wrong
            else f"one task file only: {rest[0]} is one too many; see disbatch --help"
        )
    return given


def _checked(given: argparse.Namespace) -> RunOptions:
    if given.force:
        raise UsageError("--force works with --takeover only")
    _check_together(given)
    _refuse_empty(given)
    return _run_options(given)


def _run_options(given: argparse.Namespace) -> RunOptions:
    from disbatch.cli import run_options as o

    waits = given.wait_for_engines
    limit = DEFAULT_LIMIT if given.output_limit is None else given.output_limit
    return o.RunOptions(
        context=_part(o.ContextOptions, given),
        pool=o.PoolOptions(
            startup_only=given.startup_only,
            waits=waits if waits is not None or given.startup_only else 0.0,
            listen=None if given.use_address is None else parse_address(given.use_address),
        ),
        source=_part(o.SourceOptions, given),
        resume=o.ResumeOptions(
            given.resume_from, given.retry, given.force_resume, by_command=given.resume_by == "command"
        ),
        record=_part(o.RecordOptions, given),
        output=None if given.output is None else o.OutputOptions(given.output, given.output_pack, limit),
        limits=_part(o.LimitOptions, given),
        notices=o.NoticeOptions(
            web=(given.web_address or ("127.0.0.1", 0)) if given.web else None,
            mail=None if given.mail_to is None else o.MailOptions(given.mail_to, given.mail_freq or 1),
            on_finish=given.on_finish or "",
            on_failure=given.on_failure or "",
        ),
    )


def _part(kind: type[Part], given: argparse.Namespace) -> Part:
    """The options with the names of the fields of `kind`."""
    return kind(**{name: getattr(given, name) for name in kind.__struct_fields__})


def _check_together(options: argparse.Namespace) -> None:
    """Options that exclude each other, or need each other."""
    if options.owned and not options.keep_open:
        raise UsageError("--owned works with --keep-open only")
    _check_source(options)
    for option, value in {
        "-R": options.retry, "--force-resume": options.force_resume, "--resume-by": options.resume_by,
    }.items():  # fmt: skip
        if value and not options.resume_from:
            raise UsageError(f"{option} works with -r STATUSFILE only")
    if options.force_resume and options.resume_by == "command":
        raise UsageError("--resume-by command compares no numbers: leave --force-resume out")
    _refuse_without_output(options)
    if options.web_address is not None and not options.web:
        raise UsageError("--web-address works with -w only")
    if options.mail_freq is not None and options.mail_to is None:
        raise UsageError("--mailFreq works with --mailTo ADDR only")
    if options.heartbeat * 2 > options.patience:
        raise UsageError("--patience must be at least twice --heartbeat")
    if options.tunnel and options.use_address:
        raise UsageError("--tunnel and --use-address exclude each other")
    if options.startup_only:
        _refuse_nodes(options)


def _check_source(options: argparse.Namespace) -> None:
    """Tasks come from one place."""
    given = {
        "a task file": options.taskfile,
        "--taskserver": options.taskserver,
        "--taskcommand": options.taskcommand,
    }
    named = [what for what, value in given.items() if value is not None]
    if not named and options.kvsserver and ":" not in options.kvsserver:
        word = options.kvsserver
        raise UsageError(f"--kvsserver {word}: no HOST:PORT; for a task file write --kvsserver= {word}")
    if not named and not (options.startup_only or options.keep_open):
        raise UsageError('no task file: name one, or "-" for standard input; see disbatch --help')
    if len(named) > 1:
        raise UsageError(f"{' and '.join(named)}: tasks come from one of them only")
    if options.keep_open and named and options.taskfile is None:
        raise UsageError(f"--keep-open: with {named[0]} a program says when the last task has come")
    if options.taskcommand is not None and not options.taskcommand.strip():
        raise UsageError("--taskcommand: the command is empty")


def _of_nodes(options: argparse.Namespace) -> dict[str, Any]:
    """Options that say which nodes there are, and how they are divided."""
    return {
        "-s": options.ssh_node, "-c": options.cores_per_task, "-t": options.tasks_per_node,
        "--fill": options.fill, "-g": options.gpu, "-E": options.env_resource, "--bind": options.bind,
        "-C": options.task_limit, "--label": options.label,
    }  # fmt: skip


def _refuse_nodes(options: argparse.Namespace) -> None:
    """-S has no nodes of its own."""
    given = _of_nodes(options) | {
        "-k": options.retire_command, "-K": options.no_retire,
        "--time-limit-margin": options.time_limit_margin,
        "--tunnel": options.tunnel, "--ssh-python": options.ssh_python,
    }  # fmt: skip
    for option, value in given.items():
        if value:
            raise UsageError(f"{option} is about nodes, and -S starts with none: give it to dbutil attach")


def _refuse_settled(options: argparse.Namespace) -> None:
    """A run that is taken over keeps its nodes and its files."""
    for option, value in (_of_nodes(options) | {"-S": options.startup_only}).items():
        if value:
            more = "dbutil attach adds others, and --wait-for-engines S leaves time for that"
            raise UsageError(f"{option}: a run that is taken over keeps its nodes; {more}")
    for option, value in {"-p": options.prefix, "-l": options.logfile}.items():
        if value is not None:
            raise UsageError(f"{option}: a run that is taken over keeps its files")
    if options.resume_by:
        raise UsageError("--resume-by: a run that is taken over goes on as it began")
    if options.resume_from:
        raise UsageError("--takeover goes on with a run, -r begins another one: give one of them")


def _refuse_without_output(options: argparse.Namespace) -> None:
    for name, given in (("-pack", options.output_pack), ("-limit", options.output_limit is not None)):
        if given and options.output is None:
            raise UsageError(f"--output{name} works with --output DIR only")


def _refuse_empty(options: argparse.Namespace) -> None:
    """Refuse empty words, which come from shell variables that are not set."""
    named = {"-p": options.prefix, "-l": options.logfile, "--ssh-python": options.ssh_python}
    named |= {"--output": options.output, "--mailTo": options.mail_to}
    for option, value in named.items():
        if value == "":
            raise UsageError(f"{option}: the name is empty")
    for option, command in (("--on-finish", options.on_finish), ("--on-failure", options.on_failure)):
        if command is not None and not command.strip():
            raise UsageError(f"{option}: the command is empty")
    if "" in options.resume_from:
        raise UsageError("-r: the name of the status file is empty")
    if options.taskfile == "":
        raise UsageError("the name of the task file is empty")


def parse_address(text: str) -> tuple[str, int]:
    """HOST:PORT of --use-address."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    plain = all(letter.isalnum() or letter in "._-:%" for letter in host)
    number = int(port) if port.isascii() and port.isdigit() and len(port) <= 5 else -1
    if not host or not plain or not 0 <= number < 65536:
        raise UsageError(f"--use-address {text}: write HOST:PORT, e.g. login1.example.org:5000 (0: any port)")
    return host, number
