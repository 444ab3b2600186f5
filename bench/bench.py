"""What disbatch costs, each number with its peer or its limit beside it in the same run.

    true     5,000 x `true` on 2 slots, against `xargs -P2`, which runs one bash a task too and keeps nothing
    sleep    1,000 x `sleep 0.1` on 8 slots, against `xargs -P8`
    first    from the start of the command to the start of the first task
    output   many x `echo` on 2 slots: CPU of the engine a task, without --output, with it, and with a pack
    stream   many x `:` by REPEAT on 2 slots: CPU of driver and engine a task, and the driver's memory

Sides that are compared take turns (ours, peer, ours, peer, ...) and the best of each counts, since another
program on the machine can only make a time longer. A number beyond its limit is marked `SHORT`; it does not
fail the command, because a time says as much about the machine as about the program. A run that loses a task
does fail it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

DISBATCH = Path(sys.executable).with_name("disbatch")
ROUNDS = 3
SAMPLE_EVERY = 0.25
COLUMNS = "{:<42} {:>12} {:>12} {:>7} {:>10}  {}"


@dataclass(frozen=True)
class Row:
    """One line of the table; all but `good` as text."""

    what: str
    ours: str
    limit: str
    good: bool
    peer: str = ""
    ratio: str = ""

    def __str__(self) -> str:
        verdict = "ok" if self.good else "SHORT"
        return COLUMNS.format(self.what, self.ours, self.peer, self.ratio, self.limit, verdict)


class Failure(Exception):
    """A run did not do what it should have done; there is nothing to measure."""


class Workshop:
    """Runs disbatch and xargs in a directory of their own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.runs = 0

    def write(self, name: str, text: str) -> Path:
        """A task file."""
        path = self.directory / name
        path.write_text(text)
        return path

    def start(self, tasks: Path, slots: int, *options: str) -> tuple[subprocess.Popen[bytes], Path]:
        """Start disbatch over `tasks`; the process, and the prefix of its files."""
        self.runs += 1
        prefix = self.directory / f"run{self.runs}"
        with prefix.with_suffix(".out").open("wb") as out:
            process = subprocess.Popen(
                [DISBATCH, "-s", f"localhost:{slots}", "-p", prefix, *options, tasks],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=self.directory,
            )
        return process, prefix

    def check(self, process: subprocess.Popen[bytes], prefix: Path, count: int) -> None:
        """The run is over: `count` tasks must be in its record, all with return code 0."""
        good = 0
        for status in self.directory.glob(prefix.name + "_*status.txt"):
            with status.open("rb") as lines:
                good += sum(line.split(b"\t", 7)[6] == b"0" for line in lines)
        if process.returncode != 0 or good != count:
            out = prefix.with_suffix(".out").read_text(errors="replace")[-2000:]
            raise Failure(f"disbatch ended with {process.returncode}, {good} of {count} tasks done:\n{out}")

    def ours(self, tasks: Path, slots: int, count: int) -> float:
        """Seconds that disbatch takes."""
        began = time.perf_counter()
        process, prefix = self.start(tasks, slots)
        process.wait()
        took = time.perf_counter() - began
        self.check(process, prefix, count)
        return took

    def peer(self, tasks: Path, slots: int) -> float:
        """Seconds that xargs takes, one bash a task."""
        began = time.perf_counter()
        with tasks.open("rb") as lines:
            subprocess.run(["xargs", f"-P{slots}", "-d", "\\n", "-n1", "bash", "-c"], stdin=lines, check=True)
        return time.perf_counter() - began


def against_xargs(workshop: Workshop, command: str, count: int, slots: int, limit: float) -> list[Row]:
    """`count` times `command` on `slots` slots, ours and xargs' in turn."""
    tasks = workshop.write("tasks", f"{command}\n" * count)
    pairs = [(workshop.ours(tasks, slots, count), workshop.peer(tasks, slots)) for _ in range(ROUNDS)]
    ours, peer = (min(side) for side in zip(*pairs, strict=True))
    return [
        Row(
            f"{count:,} x `{command}`, {slots} slots",
            f"{count / ours:,.0f}/s",
            f">= {limit}",
            peer / ours >= limit,
            peer=f"{count / peer:,.0f}/s",
            ratio=f"{peer / ours:.2f}",
        )
    ]


def first_task(workshop: Workshop) -> list[Row]:
    """How long a user waits for the first task on this machine."""
    stamp = workshop.directory / "began"
    tasks = workshop.write("first", f"echo $EPOCHREALTIME > {stamp}\n")
    waits = []
    for _ in range(ROUNDS):
        began = time.time()
        process, prefix = workshop.start(tasks, 1)
        process.wait()
        workshop.check(process, prefix, 1)
        waits.append(float(stamp.read_text().replace(",", ".")) - began)
    return [Row("start of the command to first task", f"{min(waits):.2f} s", "<= 0.4 s", min(waits) <= 0.4)]


@dataclass
class Watch:
    """Samples a driver and the engine under it while they run.

    CPU in seconds of the processes themselves, without the tasks that they waited for; memory in MB.
    `points` are (CPU of the driver, CPU of the engine and its keeper, lines in the status file).
    """

    driver: int
    status: Path
    points: list[tuple[float, float, int]] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    lines: int = 0
    offset: int = 0

    def sample(self) -> None:
        """Read once; a process that has just ended gives no point."""
        engines = self.engines()
        try:
            stat = Path(f"/proc/{self.driver}/stat").read_text().rpartition(") ")[2].split()
            driver, engine = cpu(self.driver), sum(cpu(pid) for pid in engines)
        except OSError:
            return
        if engines and int(stat[21]) > 0:
            self.points.append((driver, engine, self.count()))
            self.memory.append(int(stat[21]) * os.sysconf("SC_PAGE_SIZE") / 1e6)

    def count(self) -> int:
        """Lines in the status file; only what is new is read."""
        try:
            with self.status.open("rb") as file:
                file.seek(self.offset)
                new = file.read()
        except FileNotFoundError:
            return 0
        self.offset += len(new)
        self.lines += new.count(b"\n")
        return self.lines

    def cost(self) -> tuple[float, float]:
        """CPU seconds of driver and engine for one more task: what happened after the first quarter, since
        starting up is not a matter of tasks."""
        first, last = self.points[len(self.points) // 4], self.points[-1]
        tasks = max(1, last[2] - first[2])
        return (last[0] - first[0]) / tasks, (last[1] - first[1]) / tasks

    def engines(self) -> list[int]:
        """The driver's descendants that are disbatch's own: the engine and its keeper, not the tasks."""
        found, unseen = [], children(self.driver)
        while unseen:
            pid = unseen.pop()
            try:
                own = b"disbatch" in Path(f"/proc/{pid}/cmdline").read_bytes()
            except OSError:
                continue
            if own:
                found.append(pid)
                unseen += children(pid)
        return found


def cpu(pid: int) -> float:
    """Seconds of CPU that the process has used, with those of its threads that have ended."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def children(pid: int) -> list[int]:
    """The process's children now."""
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(child) for thread in threads for child in (thread / "children").read_text().split()]
    except OSError:
        return []


def watched(workshop: Workshop, tasks: Path, count: int, *options: str) -> tuple[Watch, float]:
    """A run of `count` tasks on 2 slots, watched; and its seconds."""
    process, prefix = workshop.start(tasks, 2, *options)
    watch = Watch(process.pid, Path(f"{prefix}_status.txt"))
    began = time.perf_counter()
    while True:
        watch.sample()
        try:
            process.wait(SAMPLE_EVERY)
            break
        except subprocess.TimeoutExpired:
            pass
    took = time.perf_counter() - began
    workshop.check(process, prefix, count)
    return watch, took


def output(workshop: Workshop, count: int) -> list[Row]:
    """Tasks that print a line: what it costs the engine to keep it, and in how many files."""
    tasks = workshop.write("output", f"#DISBATCH REPEAT {count} echo $DISBATCH_TASKID\n")
    ways: dict[str, list[str]] = {"no --output": [], "--output": [], "--output-pack": ["--output-pack"]}
    costs: dict[str, float] = dict.fromkeys(ways, float("inf"))
    files = dict.fromkeys(ways, 0)
    for round in range(ROUNDS):
        for way, more in ways.items():
            directory = workshop.directory / f"kept{round}{way}"
            options = [] if way == "no --output" else ["--output", str(directory), *more]
            watch, _ = watched(workshop, tasks, count, *options)
            costs[way] = min(costs[way], watch.cost()[1])
            files[way] = sum(path.is_file() for path in directory.rglob("*"))
            shutil.rmtree(directory, ignore_errors=True)
    what = f"{count:,} x `echo`: engine, "
    return [
        Row(
            f"{what}{way}" if way == "no --output" else f"{'':{len(what)}}{way} ({files[way]:,} files)",
            f"{cost * 1e3:.3f} ms",
            "<= 0.2 ms" if way == "no --output" else "",
            way != "no --output" or cost <= 0.2e-3,
            ratio=f"{cost / costs['no --output']:.2f}",
        )
        for way, cost in costs.items()
    ]


def stream(workshop: Workshop, count: int) -> list[Row]:
    """A long list of empty tasks: what one more task costs, and whether memory grows with the list."""
    tasks = workshop.write("stream", f"#DISBATCH REPEAT {count} :\n")
    watch, took = watched(workshop, tasks, count)
    driver, engine = watch.cost()
    peak = max(watch.memory)
    growth = watch.memory[-1] - watch.memory[len(watch.memory) // 4]
    what = f"{count:,} x `:` ({count / took:,.0f}/s): "
    return [
        Row(what + "engine", f"{engine * 1e3:.3f} ms", "<= 0.2 ms", 0 < engine <= 0.2e-3),
        Row(" " * len(what) + "driver", f"{driver * 1e6:.1f} us", "<= 20 us", driver <= 20e-6),
        Row(" " * len(what) + "memory", f"{peak:.0f} MB", "< 120 MB", peak < 120),
        Row("   its growth after the first quarter", f"{growth:+.1f} MB", "< 5 MB", growth < 5),
    ]


def main() -> int:
    """Run what is asked for; 0 unless a run went wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    choices = ["true", "sleep", "first", "output", "stream"]
    parser.add_argument("--only", choices=choices, help="run one (default: all)")
    parser.add_argument("--output-tasks", type=int, default=5_000, metavar="N", help="default: %(default)s")
    parser.add_argument("--stream-tasks", type=int, default=50_000, metavar="N", help="default: %(default)s")
    options = parser.parse_args()

    benches: dict[str, Callable[[Workshop], list[Row]]] = {
        "true": lambda workshop: against_xargs(workshop, "true", 5000, 2, 0.85),
        "sleep": lambda workshop: against_xargs(workshop, "sleep 0.1", 1000, 8, 0.95),
        "first": first_task,
        "output": lambda workshop: output(workshop, options.output_tasks),
        "stream": lambda workshop: stream(workshop, options.stream_tasks),
    }
    print(COLUMNS.format("what", "ours", "xargs", "ratio", "limit", ""), flush=True)
    workshop = Workshop(Path(tempfile.mkdtemp(prefix="disbatch-bench-")))
    try:
        for name, bench in benches.items():
            if options.only in (None, name):
                for row in bench(workshop):
                    print(row, flush=True)
    except Failure as failure:
        print(failure, file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(workshop.directory, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
