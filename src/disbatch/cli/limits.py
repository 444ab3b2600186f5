"""Refuse to start under limits of the shell (`ulimit`) that are too low to run anything."""

from __future__ import annotations

import os
import resource

from disbatch.model.errors import UsageError

LEAST_FILES = 32
"""Open files that a driver needs besides those that it gets for its nodes."""
LEAST_PROCESSES = 16
"""Processes and threads that a driver, its engine, keeper and one task need."""
LEAST_MEMORY = 96 << 20
"""Bytes of address space without which a library of ours aborts."""
WORTH_COUNTING = 10_000
"""Processes; a higher limit is not checked."""


def check_memory() -> None:
    """UsageError if `ulimit -v` is too low; to be called before anything large is imported."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY and limit < LEAST_MEMORY:
        raise UsageError(
            f"ulimit -v {limit >> 10}: disbatch needs at least {LEAST_MEMORY >> 10} kB of address space"
        )


def check_limits() -> None:
    """UsageError for a limit that is too low. The soft limit on open files is raised later."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if 0 <= files < LEAST_FILES:
        raise UsageError(f"ulimit -n {files}: disbatch needs at least {LEAST_FILES} open files")
    limit = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    if os.geteuid() and 0 <= limit < WORTH_COUNTING:
        check_processes(limit, count_threads(os.geteuid()))


def check_processes(limit: int, used: int) -> None:
    """UsageError if the limit leaves no room for our processes and threads beside those in use."""
    if limit - used < LEAST_PROCESSES:
        raise UsageError(
            f"ulimit -u {limit}: disbatch needs room for at least {LEAST_PROCESSES} more processes and "
            f"threads, and {used} of yours are running"
        )


def count_threads(user: int) -> int:
    """The threads of all visible processes of this user; 0 where there is no /proc."""
    count = 0
    try:
        numbers = [name for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208
    except OSError:
        return 0
    for number in numbers:
        try:
            if os.stat(f"/proc/{number}").st_uid == user:  # noqa: PTH116
                count += len(os.listdir(f"/proc/{number}/task"))  # noqa: PTH208
        except OSError:
            continue
    return count
