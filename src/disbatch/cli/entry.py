"""The entry points of our processes: import only our own modules, and let ^C end the process silently while
modules are imported (Python would print a traceback).

`python -m disbatch.cli.entry` is `dbutil`.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` may be another module before `prefer_own`
import sys

from disbatch.engine.search_path import prefer_own


def _main_of(module: str, name: str) -> int:
    """Run a command's `main`; the exit code."""
    # Ignored, as behind nohup, it stays so.
    usual = _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler
    if usual:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)  # if a launcher ignored it, no exit code would be known
    prefer_own()
    from disbatch.cli.limits import check_memory
    from disbatch.model.errors import UsageError

    try:
        check_memory()
    except UsageError as error:
        sys.stderr.write(f"{name}: {error}\n")
        return 2
    from importlib import import_module

    main = import_module(module).main
    if usual:
        _signal.signal(_signal.SIGINT, _signal.default_int_handler)
    return int(main())


def disbatch() -> int:
    """`disbatch`; the exit code."""
    return _main_of("disbatch.cli.main", "disbatch")


def dbutil() -> int:
    """`dbutil`; the exit code."""
    return _main_of("disbatch.cli.dbutil", "dbutil")


def web_page() -> int:
    """The process that serves the web page of a run; the exit code."""
    return _main_of("disbatch.watch.web.__main__", "disbatch")


def relay() -> int:
    """The process that serves the port of a run; the exit code."""
    prefer_own()
    from disbatch.wire.relay import main

    return main()


if __name__ == "__main__":
    sys.exit(dbutil())
