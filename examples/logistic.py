"""The logistic map x -> r x (1 - x), one value of r at a time, and a picture of all of them.

    logistic.py point INDEX COUNT    where the orbit settles for the INDEX-th of COUNT values of r
    logistic.py picture DIRECTORY    draw what all the points wrote

Used by logistic.tasks; needs nothing but Python.
"""

import math
import sys
from pathlib import Path

R_FIRST, R_LAST = 2.8, 4.0
SETTLE, SAMPLE = 2_000, 10_000
BINS = 480
ROWS, COLUMNS = 24, 96
SHADES = " .:-=+*#%@"


def point(index: int, count: int) -> None:
    """Print r, the Lyapunov exponent (above 0: chaos), and how often the orbit visits each interval."""
    r = R_FIRST + (R_LAST - R_FIRST) * index / (count - 1)
    x = 0.5123
    for _ in range(SETTLE):
        x = r * x * (1 - x)
    visits: dict[int, int] = {}
    stretch = 0.0
    for _ in range(SAMPLE):
        x = r * x * (1 - x)
        stretch += math.log(max(abs(r * (1 - 2 * x)), 1e-300))
        where = min(int(x * BINS), BINS - 1)
        visits[where] = visits.get(where, 0) + 1
    print(f"{r:.6f} {stretch / SAMPLE:.6f}", *(f"{where}:{times}" for where, times in sorted(visits.items())))


def picture(directory: Path) -> None:
    """Print the bifurcation diagram, r to the right and x upwards, and under it where there is chaos."""
    points = sorted(read(file) for file in directory.glob("*/*.txt"))
    density = [[0.0] * COLUMNS for _ in range(ROWS)]
    chaos = [False] * COLUMNS
    for number, (_, exponent, visits) in enumerate(points):
        column = number * COLUMNS // len(points)
        chaos[column] = chaos[column] or exponent > 0
        for where, times in visits:
            density[where * ROWS // BINS][column] += times / SAMPLE
    for row in reversed(density):
        print("".join(SHADES[shade(value)] for value in row).rstrip())
    print("".join("^" if column else "_" for column in chaos))
    first = next((r for r, exponent, _ in points if exponent > 0), None)
    print(f"{len(points)} values of r from {R_FIRST} to {R_LAST}; ^ is chaos, first at r = {first}")


def read(file: Path) -> tuple[float, float, list[tuple[int, int]]]:
    """What `point` printed: r, the exponent, and pairs of interval and visits."""
    r, exponent, *visits = file.read_text().split()
    pairs = (visit.partition(":") for visit in visits)
    return float(r), float(exponent), [(int(where), int(times)) for where, _, times in pairs]


def shade(share: float) -> int:
    """An index into SHADES for a share of an orbit; logarithmic, so that rare visits are seen too."""
    if share <= 0:
        return 0
    return max(1, min(len(SHADES) - 1, round((math.log10(share) + 3) / 3 * len(SHADES))))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["point", index, count]:
            point(int(index), int(count))
        case ["picture", directory]:
            picture(Path(directory))
        case _:
            sys.exit(__doc__)
