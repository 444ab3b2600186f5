"""`dbutil`: what there is to do about task files and runs besides running them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from disbatch import __version__
from disbatch.model.errors import EXIT_COMPLETE, EXIT_INCOMPLETE, EXIT_SIGINT, DisbatchError, UsageError

LATER = ("attach", "status", "monitor", "drain", "stop", "submit", "put", "get", "view", "report")
"""Verbs of later versions; they parse, so that PREFIX_dbUtil.sh stays good."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see dbutil --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="dbutil",
        description="What there is to do about task files and runs besides running them.",
        epilog=f"Not in this version yet: {', '.join(LATER)}.",
    )
    parser.add_argument("--version", action="version", version=f"dbutil {__version__}")
    parser.add_argument("--run", metavar="PREFIX", help="the run: what its files begin with")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=_Parser)
    check = verbs.add_parser("check", help="read task files, say what they hold, run nothing")
    check.add_argument("files", nargs="+", metavar="TASKFILE")
    for verb in LATER:
        verbs.add_parser(verb, add_help=False).add_argument("rest", nargs=argparse.REMAINDER)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    try:
        options = _parser().parse_args(list(sys.argv[1:] if argv is None else argv))
        if options.verb == "check":
            return _check(options.files)
        raise UsageError(f"{options.verb}: not in this version yet")
    except DisbatchError as error:
        print(f"dbutil: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_SIGINT
    except BrokenPipeError:
        return EXIT_INCOMPLETE


def _check(paths: list[str]) -> int:
    """Check each file; the worst exit code."""
    worst = EXIT_COMPLETE
    for path in paths:
        try:
            print(_describe(path))  # noqa: T201
        except UsageError as error:
            print(f"dbutil: {error}", file=sys.stderr)  # noqa: T201
            worst = error.exit_code
    return worst


def _describe(path: str) -> str:
    import os

    from disbatch.sources.opening import open_tasks
    from disbatch.watch.words import counted

    opened = open_tasks(path)
    os.close(opened.descriptor)
    if opened.summary is None:
        raise UsageError(f"{opened.name}: is a stream; only a regular file can be checked")
    held = [counted(opened.summary.tasks, "task")]
    if opened.summary.barriers:
        held.append(counted(opened.summary.barriers, "barrier"))
    return "\n".join([f"{opened.name}: {', '.join(held)}", *opened.summary.warnings])


if __name__ == "__main__":
    sys.exit(main())
