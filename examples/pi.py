"""Draws random points until pi is known well enough: tasks are handed in as results come.

    python pi.py                 on this machine, or in the Slurm job that it runs in
    python pi.py localhost:2     on these nodes
"""

import sys
from concurrent.futures import FIRST_COMPLETED, Future, wait
from itertools import count
from math import sqrt

from disbatch import DisBatch, TaskResult

POINTS = 100_000
ENOUGH = 0.002
DRAW = (
    "awk 'BEGIN {{ srand({seed}); for (n = 0; n < {points}; n++) hits += rand()^2 + rand()^2 < 1; "
    "print hits }}'"
)


def main() -> None:
    """Print what pi is, give or take a standard error below ENOUGH."""
    hits = points = 0
    with DisBatch(nodes=sys.argv[1] if sys.argv[1:] else None) as run:
        commands = (DRAW.format(seed=seed, points=POINTS) for seed in count(1))
        waiting: set[Future[TaskResult]] = {run.submit(next(commands)) for _ in range(8)}
        error = 1.0
        while error > ENOUGH:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for task in done:
                hits += int(task.result().check().out)
                points += POINTS
            share = hits / points
            error = 4 * sqrt(share * (1 - share) / points)
            waiting |= {run.submit(next(commands)) for _ in done}
        for task in waiting:
            task.cancel()
    print(f"pi is {4 * hits / points:.4f}, give or take {error:.4f}: {points // POINTS} tasks")


if __name__ == "__main__":
    main()
