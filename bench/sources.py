"""What it costs to give tasks one by one, through each way in; a task is `:`, on 2 slots.

    many     as many tasks as the source can give, to the end of the last: tasks a second
    one      one task at a time, each waited for before the next: milliseconds from task to task

The file is the peer of the others: all its tasks are there from the beginning. Sources take turns, and the
best of each counts, since another program on the machine can only make a time longer. The last two are
programs that sign in as a task source: in the driver's own key store, and in a redis-server that is started
here (without one, there is no such row). To add a source: a
function that gives so many tasks to a run and returns when they have ended, with its seconds, in MANY or ONE.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from disbatch import DisBatch, DisBatcher
from disbatch.api.compat import open_values
from disbatch.sources.keystore import DONE_TASK, RESULT_KEY, SOURCE_NAME, TASK_KEY

DISBATCH = str(Path(sys.executable).with_name("disbatch"))
DBUTIL = str(Path(sys.executable).with_name("dbutil"))
SLOTS = "localhost:2"
TASK = ":"
GENERATOR = "import sys\nfor n in range({count}):\n print(':', flush=True)\n"
"""One line, one write."""
ROUNDS = 3


class Place:
    """A directory for runs, each with files of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._runs = 0

    def prefix(self) -> str:
        """For a new run."""
        self._runs += 1
        return str(self.directory / f"run{self._runs}")

    def check(self, prefix: str, count: int) -> None:
        """All tasks are recorded."""
        lines = Path(f"{prefix}_status.txt").read_bytes().count(b"\n")
        if lines != count:
            raise SystemExit(f"{prefix}: {lines} of {count} tasks were recorded")


class Open:
    """A run that is kept open, and has its engine."""

    def __init__(self, place: Place) -> None:
        self.prefix = place.prefix()
        words = [DISBATCH, "--keep-open", "--owned", "-s", SLOTS, "-p", self.prefix]
        self._process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()
        self.dbutil("submit", "--wait", TASK)

    def dbutil(self, *words: str, stdin: int = subprocess.DEVNULL) -> None:
        """Ask it."""
        subprocess.run(
            [DBUTIL, "--run", self.prefix, *words], stdin=stdin, stdout=subprocess.DEVNULL, check=True
        )

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def generator(count: int) -> subprocess.Popen[bytes]:
    """Writes lines one by one."""
    script = GENERATOR.format(count=count)
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)


def timed(what: Callable[[], object]) -> float:
    """Seconds."""
    began = time.perf_counter()
    what()
    return time.perf_counter() - began


def disbatch(place: Place, count: int, source: str, stdin: int) -> float:
    """A whole run, its start and end included."""
    prefix = place.prefix()
    words = [DISBATCH, "-s", SLOTS, "-p", prefix, source]
    seconds = timed(lambda: subprocess.run(words, stdin=stdin, stderr=subprocess.DEVNULL, check=True))
    place.check(prefix, count)
    return seconds


def file(place: Place, count: int) -> float:
    """`disbatch Tasks`."""
    tasks = place.directory / "Tasks"
    tasks.write_text(f"{TASK}\n" * count)
    return disbatch(place, count, str(tasks), subprocess.DEVNULL)


def stdin(place: Place, count: int) -> float:
    """`generator | disbatch -`."""
    with generator(count) as lines:
        assert lines.stdout is not None
        return disbatch(place, count, "-", lines.stdout.fileno())


def submit(place: Place, count: int) -> float:
    """`generator | dbutil submit --wait -`."""
    run = Open(place)
    with generator(count) as lines:
        assert lines.stdout is not None
        descriptor = lines.stdout.fileno()
        seconds = timed(lambda: run.dbutil("submit", "--wait", "-", stdin=descriptor))
    run.close()
    place.check(run.prefix, count + 1)
    return seconds


def api(place: Place, count: int) -> float:
    """`run.submit` in a loop, then `run.wait`."""

    def give() -> None:
        for _ in range(count):
            run.submit(TASK)
        run.wait()

    prefix = place.prefix()
    with DisBatch(nodes=SLOTS, prefix=prefix) as run:
        run.submit(TASK).result()
        seconds = timed(give)
    place.check(prefix, count + 1)
    return seconds


def one_submit(place: Place, count: int) -> float:
    """`dbutil submit --wait`, a process for each task."""
    run = Open(place)

    def give() -> None:
        for _ in range(count):
            run.dbutil("submit", "--wait", TASK)

    seconds = timed(give)
    run.close()
    return seconds


def one_api(place: Place, count: int) -> float:
    """`run.submit(...).result()`."""
    with DisBatch(nodes=SLOTS, prefix=place.prefix()) as run:
        run.submit(TASK).result()
        return timed(lambda: [run.submit(TASK).result() for _ in range(count)])


class Guests:
    """A run whose tasks a program gives; it has its engine. In `server`, or in the driver's own store."""

    def __init__(self, place: Place, server: str) -> None:
        self.prefix = place.prefix()
        self.where = f"{self.prefix}_kvsinfo.txt"
        words = [DISBATCH, "-s", SLOTS, "-p", self.prefix, f"--taskserver={server}"]
        self._process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        assert self._process.stderr is not None
        self._process.stderr.readline()
        words = [DBUTIL, "--run", self.prefix, "submit", "--wait", TASK]
        subprocess.run(words, stdout=subprocess.DEVNULL, check=True)

    def end(self) -> None:
        """Wait for it."""
        self._process.communicate()


def many_values(place: Place, count: int, server: str = "") -> float:
    """A value for each task; nobody asks for results."""
    run = Guests(place, server)
    values = open_values(run.where)

    def give() -> None:
        for _ in range(count):
            values.put("tasks", TASK)
        values.put("tasks", "done")
        run.end()

    for key, value in ((SOURCE_NAME, "bench"), (DONE_TASK, "done"), (RESULT_KEY, ""), (TASK_KEY, "tasks")):
        values.put(key, value)
    seconds = timed(give)
    place.check(run.prefix, count + 1)
    return seconds


def one_value(place: Place, count: int, server: str = "") -> float:
    """`DisBatcher.submit`, then `wait_one_task`."""
    run = Guests(place, server)
    guest = DisBatcher("bench", kvsserver=run.where)

    def give() -> None:
        for _ in range(count):
            guest.submit(TASK)
            guest.wait_one_task()

    seconds = timed(give)
    guest.done()
    run.end()
    return seconds


class Redis:
    """A server on a free port, with nothing on disk."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.address = f"127.0.0.1:{port}"
        words = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--save", ""]
        self._process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        while "Ready to accept" not in self._process.stdout.readline():
            if self._process.poll() is not None:
                raise SystemExit("redis-server does not start")

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.communicate()


Source = Callable[[Place, int], float]
MANY: dict[str, Source] = {
    "file": file, "stdin": stdin, "dbutil submit": submit, "API": api, "own key store": many_values
}  # fmt: skip
ONE: dict[str, tuple[Source, int]] = {
    "dbutil submit": (one_submit, 20), "API": (one_api, 100), "own key store": (one_value, 100)
}  # fmt: skip
"""And how many tasks are enough."""


def best(measure: Callable[[str], float], names: list[str]) -> dict[str, float]:
    """The fewest seconds of each, in turns."""
    found: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(ROUNDS):
        for name in names:
            found[name].append(measure(name))
    return {name: min(seconds) for name, seconds in found.items()}


def main() -> None:
    """Measure, and print two tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, default=5000, help="of each source (%(default)s)")
    count = parser.parse_args().tasks
    redis = Redis() if shutil.which("redis-server") else None
    if redis is not None:
        server = redis.address
        MANY["Redis"] = lambda place, count: many_values(place, count, server)
        ONE["Redis"] = (lambda place, count: one_value(place, count, server), 100)
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        place = Place(Path(directory))
        os.chdir(directory)
        many = best(lambda name: MANY[name](place, count), list(MANY))
        one = best(lambda name: ONE[name][0](place, ONE[name][1]), list(ONE))
    if redis is not None:
        redis.close()
    print(f"{'many: ' + str(count) + ' tasks':<24}{'tasks/s':>10}{'of file':>10}")
    for name, seconds in many.items():
        print(f"  {name:<22}{count / seconds:>10.0f}{many['file'] / seconds:>10.2f}")
    print(f"{'one at a time':<24}{'ms':>10}")
    for name, seconds in one.items():
        print(f"  {name:<22}{1000 * seconds / ONE[name][1]:>10.1f}")


if __name__ == "__main__":
    main()
