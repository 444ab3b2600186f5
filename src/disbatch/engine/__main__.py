"""The main function of an engine process, which `contexts.local` starts. Its orders come on standard input or
in the file that is named, see `bootstrap`."""

from __future__ import annotations

import os
import sys

from disbatch.engine.search_path import prefer_own


def main() -> int:
    """Run an engine until it departs; the exit status, see `engine.Departure`."""
    prefer_own()
    # Imported here, while the driver still prepares the Bootstrap: everything below needs them.
    import asyncio
    import ctypes  # noqa: F401
    import logging  # noqa: F401

    from disbatch.engine import bootstrap, keeper
    from disbatch.model.errors import LaunchError
    from disbatch.model.task import Way

    orders = None
    try:
        by_file = sys.argv[1:2]  # where no standard input reaches us
        orders = bootstrap.read_bootstrap_file(*by_file) if by_file else bootstrap.read_bootstrap(0)
        ready = bootstrap.check(orders, os.environb)
    except LaunchError as error:
        bootstrap.complain(error)
        if orders is not None and orders.way is Way.STEP:
            bootstrap.drain_input()
        return 2
    except KeyboardInterrupt:
        return 2
    sys.excepthook = sys.__excepthook__  # the launcher's hook is for errors before this
    if orders.way is Way.SSH:
        bootstrap.detach(ready.log)
    elif orders.way is Way.STEP:
        bootstrap.stay(ready.log)
    elif os.getsid(0) != os.getpid() and os.getpgrp() != os.getpid():
        # The driver acts on a terminal's Ctrl-C.
        os.setsid()
    # Imported late: a library that starts threads must not come before the fork.
    parent = keeper.split(orders.engine, ready.division.slots)

    from disbatch.engine.engine import run

    return asyncio.run(run(ready, parent))


if __name__ == "__main__":
    sys.exit(main())
