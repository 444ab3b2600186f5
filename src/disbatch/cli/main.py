"""`disbatch`: from options to exit code.

The local engine is started before the driver's modules are imported, so that both processes start at the same
time. Therefore nothing heavy is imported at the top of this file.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from disbatch.cli.limits import check_limits
from disbatch.cli.options import parse
from disbatch.cli.parser import run_command
from disbatch.model.errors import EXIT_COMPLETE, UsageError
from disbatch.watch.terminal import lasting

if TYPE_CHECKING:
    from disbatch.cli.run_options import FixPaths, RunOptions, SourceOptions, TakeoverOptions
    from disbatch.contexts.context import Choice
    from disbatch.contexts.nodes import Node
    from disbatch.contexts.spawn import Spawned


_SHOWN = 80
"""Characters of a wrong name that a message shows."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    _fill_standard_descriptors()
    sys.stderr = lasting(sys.stderr)
    return run_command("disbatch", lambda complain: _carry_out(parse(arguments), arguments, complain))


def _fill_standard_descriptors() -> None:
    """Open /dev/null for standard streams that are closed: otherwise the next opened file would get that
    number, and messages would go into it. Reading from such a standard input still fails."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_WRONLY)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False)


def _carry_out(
    options: RunOptions | TakeoverOptions | FixPaths, arguments: list[str], warn: Callable[[str], None]
) -> int:
    from disbatch.cli.run_options import FixPaths, TakeoverOptions

    if isinstance(options, FixPaths):
        from disbatch.cli.config import fix_paths

        print("\n".join(fix_paths(os.environ)))  # noqa: T201
        return EXIT_COMPLETE
    check_limits()
    _check_directory()
    if isinstance(options, TakeoverOptions):
        from disbatch.cli.takeover import take_over

        return take_over(options, arguments, lambda former: _nodes(former, warn))
    _check_source(options.source)
    choice = _nodes(options, warn)
    early = _start_early(choice.nodes)
    from disbatch.cli.new_run import run

    return run(options, arguments, choice, early)


def _check_directory() -> None:
    try:
        os.getcwd()  # noqa: PTH109 - pathlib comes later
    except OSError as error:
        raise UsageError(f"the working directory: {error.strerror}; cd to one that is there") from error


def _check_source(source: SourceOptions) -> None:
    """Check the names of task file and key store first, before anything slow."""
    taskfile = source.taskfile
    if source.kvsserver is not None or source.taskserver is not None:
        from disbatch.cli.keystore import choose_store

        choose_store(source, os.environ)
    if taskfile is None:
        return
    if taskfile == "-":
        import fcntl

        if fcntl.fcntl(0, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY:
            raise UsageError("stdin: cannot be read: it is closed")
        return
    try:
        mode = os.stat(taskfile).st_mode  # noqa: PTH116 - pathlib comes later
    except OSError as error:
        raise UsageError(f"{taskfile[:_SHOWN]}: {error.strerror}{_or_a_task(taskfile)}") from error
    if mode & 0o170000 == 0o040000:
        raise UsageError(f"{taskfile}: is a directory, not a task file")


def _or_a_task(word: str) -> str:
    """Advice if `word`, which is not a file, looks like a task."""
    if not word.startswith("#") and not any(letter.isspace() for letter in word):
        return ""
    import shlex

    lines = shlex.quote(word) if len(word) <= _SHOWN else "LINES"
    return f"; tasks are lines of a file, or of standard input: echo {lines} | disbatch -"


def _nodes(options: RunOptions, warn: Callable[[str], None]) -> Choice:
    from disbatch.cli.context import find_nodes
    from disbatch.contexts.context import Choice

    return Choice([], []) if options.pool.startup_only else find_nodes(options.context, warn)


def _start_early(nodes: list[Node]) -> Spawned | None:
    if not any(node.local for node in nodes):
        return None
    from disbatch.contexts.local import spawn_local

    try:
        return spawn_local()
    except OSError:
        return None  # the launcher tries again and reports the error


if __name__ == "__main__":
    sys.exit(main())
