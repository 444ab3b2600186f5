"""Start an engine on this machine, and the Python code that starts one anywhere."""

from __future__ import annotations

import sys

from disbatch.contexts.spawn import Spawned, spawn
from disbatch.engine.search_path import package_path

BOOT = (
    "import sys;"
    "sys.version_info<(3,11)and sys.exit("
    '"disbatch-engine-error Python "+sys.version.split()[0]+" is too old there, disbatch needs 3.11: ");'
    "sys.path[:]=[p for p in sys.path if p]+sys.argv[1:2];"
    "del sys.argv[1:2];"
    "from disbatch.engine.__main__ import main;"
    "sys.exit(main())"
)
"""The code for `python -c` on another host; its argument, if any, is the package's directory.

It never imports from the working directory (which may contain a `queue.py`), and searches the package's
directory last. It passes through login shells: one line, no single quote, no backslash, no `!`. Any Python
since 2.6 must be able to parse it.
"""


_FROM_ITS_DIRECTORY = BOOT.replace(
    "[p for p in sys.path if p]+sys.argv[1:2]", "sys.argv[1:2]+[p for p in sys.path if p]"
)
"""The same, but the package's directory is searched first."""
_REPORT_AND_STAY = """import sys
def report(kind, error, trace):
    sys.__excepthook__(kind, error, trace)
    sys.stdout.write("disbatch-engine-error %s: %s\\n" % (kind.__name__, error))
    sys.stdout.flush()
    getattr(sys.stdin, "buffer", sys.stdin).read()
sys.excepthook = report
"""
"""Precedes that code in a step: report why Python cannot run an engine, and end when stdin ends. The last
output of a step may be lost if it ends at once, or does not read its stdin (seen with Slurm)."""


def own_argv(function: str, *arguments: str) -> list[str]:
    """The command that calls this function of `cli.entry` in another process of this machine, with our import
    path."""
    call = (
        "import sys;"
        "sys.path[:]=sys.argv[1:2]+[p for p in sys.path if p];"
        "del sys.argv[1];"
        f"from disbatch.cli.entry import {function};"
        f"sys.exit({function}())"
    )
    return [sys.executable or "python3", "-c", call, package_path(), *arguments]


def engine_argv(python: str | None = None, package: str | None = None) -> list[str]:
    """The command of an engine that sees our installation; by default with our interpreter and package."""
    return [python or sys.executable or "python3", "-c", _FROM_ITS_DIRECTORY, package or package_path()]


def step_argv(python: str | None = None, package: str | None = None) -> list[str]:
    """The same as the only process of a scheduler's step."""
    interpreter, option, program, directory = engine_argv(python, package)
    return [interpreter, option, _REPORT_AND_STAY + program, directory]


def spawn_local(argv: list[str] | None = None) -> Spawned:
    """Start a local engine, which waits for its Bootstrap on stdin; closing that pipe ends it.

    Give the result to `Launcher.adopt`. OSError if it cannot be started.
    """
    return spawn(argv or engine_argv(), merged=True)
