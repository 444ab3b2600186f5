"""Start an engine on this machine, and the few lines of Python that start one anywhere."""

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
"""What `python -c` runs on another host, with the package's directory as argument, or none.

It never imports from the working directory (the user may have a `queue.py` there), and looks into the
package's directory only after everywhere else. It goes through the login shells of other hosts: one line,
no single quote, no backslash, no `!`; and any Python since 2.6 must be able to read it.
"""


_FROM_ITS_DIRECTORY = BOOT.replace(
    "[p for p in sys.path if p]+sys.argv[1:2]", "sys.argv[1:2]+[p for p in sys.path if p]"
)
"""The same where that directory holds what shall run, whatever else is called disbatch there."""
_REPORT_AND_STAY = """import sys
def report(kind, error, trace):
    sys.__excepthook__(kind, error, trace)
    sys.stdout.write("disbatch-engine-error %s: %s\\n" % (kind.__name__, error))
    sys.stdout.flush()
    getattr(sys.stdin, "buffer", sys.stdin).read()
sys.excepthook = report
"""
"""What comes before that in a step: report why Python cannot run an engine, and end when stdin does. A step's
last output may be lost if the step ends at once, or does not read its stdin (seen with Slurm)."""


def own_argv(function: str, *arguments: str) -> list[str]:
    """The command that calls this function of `cli.entry` in another process of this machine, which imports
    from where we do."""
    call = (
        "import sys;"
        "sys.path[:]=sys.argv[1:2]+[p for p in sys.path if p];"
        "del sys.argv[1];"
        f"from disbatch.cli.entry import {function};"
        f"sys.exit({function}())"
    )
    return [sys.executable or "python3", "-c", call, package_path(), *arguments]


def engine_argv(python: str | None = None, package: str | None = None) -> list[str]:
    """The command of an engine that sees our installation as we do: our own interpreter and package unless
    told otherwise."""
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
