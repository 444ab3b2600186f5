"""This machine: its name, and the cores that a run may use, within the limits of a container."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from disbatch.contexts.nodes import Machine


def this_machine() -> Machine:
    """This machine, as the kernel describes it."""
    return Machine(os.uname().nodename, usable_cores(), _full_name)


def _full_name() -> str:
    import socket

    return socket.getfqdn()


def usable_cores(root: Path = Path("/")) -> int:
    """Cores that this process may run on, or its control group's CPU quota if that is less; at least 1."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        cores = os.cpu_count() or 1
    quota = cpu_quota(root)
    return cores if quota is None else max(1, min(cores, int(quota + 1e-9)))


def cpu_quota(root: Path = Path("/")) -> float | None:
    """The smallest CPU quota, in cores, of this process's control group and its parents; None if none.

    Reads versions 1 and 2 below `root`. In a container the path in /proc/self/cgroup may be the host's and
    not exist; then only the existing directories count.
    """
    quotas: list[float] = []
    for line in _read(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            for top in ("sys/fs/cgroup", "sys/fs/cgroup/unified"):
                quotas += [_quota_2(folder) for folder in _upwards(root / top, path)]
        elif "cpu" in controllers.split(","):
            for top in {f"sys/fs/cgroup/{controllers}", "sys/fs/cgroup/cpu"}:
                quotas += [_quota_1(folder) for folder in _upwards(root / top, path)]
    return min((quota for quota in quotas if quota > 0), default=None)


def _upwards(top: Path, path: str) -> list[Path]:
    parts = [part for part in PurePosixPath(path).parts if part not in ("/", "..")]
    return [top.joinpath(*parts[:length]) for length in range(len(parts), -1, -1)]


def _quota_2(folder: Path) -> float:
    return _ratio(*_read(folder / "cpu.max").split()[:2])


def _quota_1(folder: Path) -> float:
    return _ratio(_read(folder / "cpu.cfs_quota_us").strip(), _read(folder / "cpu.cfs_period_us").strip())


def _ratio(quota: str = "", period: str = "") -> float:
    """Cores, or 0 for no limit: `max` in version 2, -1 in version 1, or no such file."""
    if quota.isdigit() and period.isdigit() and int(period):
        return int(quota) / int(period)
    return 0.0


def _read(path: Path) -> str:
    try:
        with path.open(encoding="ascii", errors="replace") as file:
            return file.read(1 << 16)
    except OSError:
        return ""
