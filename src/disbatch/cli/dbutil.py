"""The `dbutil` command: parse its verb and call the module that carries it out."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Sequence

from disbatch.cli.attach import add_attach
from disbatch.cli.cat import add_cat
from disbatch.cli.control import add_verbs
from disbatch.cli.parser import Parser, run_command
from disbatch.cli.report import add_report
from disbatch.cli.submit import add_submit
from disbatch.cli.values import add_values
from disbatch.cli.watching import add_monitor, add_status
from disbatch.model.errors import EXIT_COMPLETE, EXIT_INCOMPLETE, TaskFileError, UsageError
from disbatch.model.text import printable
from disbatch.model.version import VERSION
from disbatch.watch.terminal import lasting


def build_parser() -> Parser:
    """All verbs. Each one's `perform` carries it out with what was parsed, and a function for lines to the
    user; its exit code."""
    parser = Parser(
        prog="dbutil",
        description="Watch and control runs of disbatch, read their output, and check task files.",
    )
    parser.add_argument("--version", action="version", version=f"dbutil {VERSION}")
    parser.add_argument("--run", metavar="PREFIX", help="the run: the prefix of its files")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=Parser)
    check = verbs.add_parser("check", help="check task files: count their tasks, show their errors")
    check.add_argument("files", nargs="+", metavar="TASKFILE", help="tasks, one a line")
    check.set_defaults(perform=lambda given, say: _check(given.files, say))
    add_cat(verbs.add_parser)
    add_attach(verbs.add_parser)
    add_submit(verbs.add_parser)
    add_values(verbs.add_parser)
    add_report(verbs.add_parser)
    add_status(verbs.add_parser)
    add_monitor(verbs.add_parser)
    add_verbs(verbs.add_parser)
    return parser


def _parse(arguments: list[str]) -> argparse.Namespace:
    options, rest = build_parser().parse_known_args(arguments)
    if rest:
        raise UsageError(f"unrecognized arguments: {' '.join(rest)}; see dbutil {options.verb} --help")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    if sys.stderr is not None:
        sys.stderr = lasting(sys.stderr)
    arguments = _with_verb(list(sys.argv[1:] if argv is None else argv))
    return run_command("dbutil", lambda complain: _carry_out(arguments, complain))


def _carry_out(arguments: list[str], complain: Callable[[str], None]) -> int:
    try:
        given = _parse(arguments)
        code: int = given.perform(given, complain)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except BrokenPipeError:
        _discard_output()
    except OSError as error:
        _discard_output()
        where = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        complain(f"{where}{error.strerror or error}")
    return EXIT_INCOMPLETE


def _with_verb(arguments: list[str]) -> list[str]:
    """PREFIX_dbUtil.sh calls us with --run PREFIX; with nothing else, or with other options only, it adds
    nodes, and with --mon it shows the run, as that of the original does."""
    if arguments[:1] != ["--run"] or arguments[2:3] in (["-h"], ["--help"], ["--version"]):
        return arguments
    if arguments[2:3] == ["--mon"]:
        return [*arguments[:2], "monitor", *arguments[3:]]
    if len(arguments) == 2 or (arguments[2:3] and arguments[2].startswith("-")):
        return [*arguments[:2], "attach", *arguments[2:]]
    return arguments


def _discard_output() -> None:
    """Discard what is left in the buffer of standard output, so that Python does not try to write it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _check(paths: list[str], complain: Callable[[str], None]) -> int:
    """Check each file; the worst exit code."""
    worst = EXIT_COMPLETE
    for path in paths:
        try:
            _print_lines(_describe(path))
        except TaskFileError as error:
            for wrong in (error, *error.more):
                complain(str(wrong))
            _print_lines(error.warnings)
            worst = error.exit_code
        except UsageError as error:
            complain(str(error))
            worst = error.exit_code
    return worst


def _print_lines(lines: Iterable[str]) -> None:
    for line in lines:
        print(printable(line))  # noqa: T201


def _describe(path: str) -> list[str]:
    from disbatch.model.text import counted
    from disbatch.sources.opening import open_tasks

    opened = open_tasks(path)
    os.close(opened.descriptor)
    if opened.summary is None:
        raise UsageError(f"{opened.name}: is a stream; only a regular file can be checked")
    held = [counted(opened.summary.tasks, "task")]
    if opened.summary.barriers:
        held.append(counted(opened.summary.barriers, "barrier"))
    return [f"{opened.name}: {', '.join(held)}", *opened.summary.warnings]
