"""How an engine is started on this machine, and the few lines of Python that start one anywhere."""

from __future__ import annotations

import os
import sys

from disbatch.contexts.spawn import Spawned, spawn

BOOT = (
    "import sys;"
    "sys.version_info<(3,11)and sys.exit("
    '"disbatch-engine-error Python "+sys.version.split()[0]+" is too old there, disbatch needs 3.11: ");'
    "sys.path[:]=[p for p in sys.path if p]+sys.argv[1:];"
    "del sys.argv[1:];"
    "from disbatch.engine.__main__ import main;"
    "sys.exit(main())"
)
"""What `python -c` runs, with the package's directory as argument, or none: as `python -m disbatch.engine`.

It never imports from the working directory (the user may have a `queue.py` there), and looks into the
package's directory only after everywhere else. It goes through the login shells of other hosts: one line,
no single quote, no backslash, no `!`; and any Python since 2.6 must be able to read it.
"""


def package_path() -> str:
    """The directory that `import disbatch` found the package in: site-packages, or a checkout's src."""
    return os.path.abspath(__file__).rsplit("/", 3)[0]  # noqa: PTH100 - pathlib costs 5 ms here


def engine_argv(python: str | None = None, package: str | None = None) -> list[str]:
    """The command of a local engine: our own interpreter and package unless told otherwise."""
    return [python or sys.executable or "python3", "-c", BOOT, package or package_path()]


def spawn_local(argv: list[str] | None = None) -> Spawned:
    """Start a local engine, which waits for its Bootstrap on stdin; closing that pipe ends it.

    Give the result to `Launcher.adopt`. OSError if it cannot be started.
    """
    return spawn(argv or engine_argv())
