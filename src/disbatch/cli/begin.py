"""The first steps of our processes: they are to import our own modules, and while that goes on, ^C ends them
without a word. Python would tell where it was just then.

`python -m disbatch.cli.begin` is `dbutil`.
"""

from __future__ import annotations

import sys

from disbatch.engine.search_path import prefer_own

LEAST_MEMORY = 96 << 20
"""Bytes of address space without which a library of ours aborts."""


def _main_of(module: str, name: str) -> int:
    """Run a command's `main`; the exit code."""
    prefer_own()
    if not _has_memory(name):
        return 2
    import signal
    from importlib import import_module

    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # and not ignored, as behind nohup
    if usual:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    main = import_module(module).main
    if usual:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return int(main())


def _has_memory(name: str) -> bool:
    """False, with one line for the user, if `ulimit -v` leaves too little to begin."""
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY or limit >= LEAST_MEMORY:
        return True
    sys.stderr.write(
        f"{name}: ulimit -v {limit >> 10}: {name} needs at least {LEAST_MEMORY >> 10} kB of address space\n"
    )
    return False


def disbatch() -> int:
    """`disbatch`; the exit code."""
    return _main_of("disbatch.cli.main", "disbatch")


def dbutil() -> int:
    """`dbutil`; the exit code."""
    return _main_of("disbatch.cli.dbutil", "dbutil")


def web_page() -> int:
    """The process that serves the web page of a run; the exit code."""
    return _main_of("disbatch.watch.web.__main__", "disbatch")


if __name__ == "__main__":
    sys.exit(dbutil())
