"""How long a report of many lines takes, and how much memory.

    python bench/report.py [--lines N]

Writes a status file of so many tasks (1,000,000: 32 nodes of 16 slots, ten barriers, 1% failed) and makes its
report as text, as JSON and as a page, each with its limit: 10 s and 300 MB for a million lines. Beside it, in
the same run, `awk` summing up one column: the least that a script can do. A number beyond its limit is marked
`SHORT`; it does not fail the command, because a time says as much about the machine as about the program.
"""

from __future__ import annotations

import argparse
import heapq
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random

DBUTIL = Path(sys.executable).with_name("dbutil")
ROUNDS = 3
NODES, SLOTS = 32, 16
COLUMNS = "{:<28} {:>9} {:>9} {:>9} {:>9} {:>9}  {}"
LIMIT_SECONDS, LIMIT_MEGABYTES = 10e-6, 300e-6
"""A line."""


def write_status(path: Path, count: int) -> None:
    """A run in which every slot takes the next task as soon as it is free. In the order of their ends, so
    that little is kept: what this process takes, the measured ones are said to take, too."""
    random = Random(1)
    start = 1772366400.0
    every = max(2, count // 10)
    busy = [(start, node, slot, "") for node in range(NODES) for slot in range(SLOTS)]
    with path.open("w") as file:
        for id in range(count):
            if id % every == every - 1:
                busy.sort()
                file.writelines(line for *_, line in busy)
                latest = busy[-1][0]
                busy = [(latest, node, slot, "") for _, node, slot, _ in busy]
                times = f"9.0\t{latest - 9:.6f}\t{latest:.6f}"
                file.write(
                    f'   B\t{id}\t{id + 1}\t-1\thead\t7\t0\t{times}\t0\t""\t0\t""\t\'#DISBATCH BARRIER\'\n'
                )
                continue
            began, node, slot, line = busy[0]
            file.write(line)
            took = random.lognormvariate(3.0, 0.6) * (1.7 if node == 2 else 1.0)
            failed = random.random() < 0.01
            line = task_line(id, node, failed, began, took)
            heapq.heapreplace(busy, (began + took, node, slot, line))
        file.writelines(line for *_, line in sorted(busy))


def task_line(id: int, node: int, failed: bool, began: float, took: float) -> str:
    """One line of the status file."""
    said = f"28\t'cannot open input file {id}\\n'" if failed else '0\t""'
    numbers = f"{id}\t{id + 1}\t-1\tnode{node:02}\t{1000 + id}\t{int(failed)}"
    times = f"{took:.6f}\t{began:.6f}\t{began + took:.6f}"
    command = f"cd /work/project ; ./simulate --seed {id} --out out/{id}.dat 2>&1"
    return f"{'R E ' if failed else '    '}\t{numbers}\t{times}\t0\t\"\"\t{said}\t'{command}'\n"


def measure(*command: str | Path) -> tuple[float, float, float]:
    """Seconds, CPU seconds and megabytes of a command: the best of some rounds."""
    found = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(f"{command[0]} ended with {os.waitstatus_to_exitcode(status)}")
        took = time.perf_counter() - began
        found.append((took, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e6))
    return min(found)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lines", type=int, default=1_000_000)
    count = parser.parse_args().lines
    with tempfile.TemporaryDirectory() as directory:
        status = Path(directory) / "Tasks_1_status.txt"
        write_status(status, count)
        size = status.stat().st_size / 1e6
        print(f"{count:,} lines, {size:.0f} MB\n")
        print(COLUMNS.format("", "seconds", "limit", "CPU s", "MB", "limit", ""))
        page = Path(directory) / "page.html"
        for what, arguments in (("text", []), ("--json", ["--json"]), ("--html", ["--html", page])):
            took, cpu, memory = measure(DBUTIL, "report", status, *arguments)
            seconds, megabytes = max(1.0, LIMIT_SECONDS * count), max(100.0, LIMIT_MEGABYTES * count)
            good = took <= seconds and memory <= megabytes
            row = (f"{took:.2f}", f"{seconds:g}", f"{cpu:.2f}", f"{memory:.0f}", f"{megabytes:g}")
            print(COLUMNS.format(f"dbutil report, {what}", *row, "ok" if good else "SHORT"))
        took, cpu, memory = measure("awk", "-F", "\t", "{ s += $8 } END { print s }", status)
        print(
            COLUMNS.format(
                "awk, the sum of a column", f"{took:.2f}", "", f"{cpu:.2f}", f"{memory:.0f}", "", ""
            )
        )
        print(f"\nthe page: {page.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
