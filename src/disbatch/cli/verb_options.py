"""Options that several verbs of `dbutil` have: which run, which of its tasks, and how long to wait."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Sequence

from disbatch.model.errors import UsageError

AddVerb = Callable[..., argparse.ArgumentParser]
"""`add(name, help=...)` declares a verb and returns its parser."""
PATIENCE = 10.0
_RANGE = re.compile(r"([0-9]{1,18})(?:-([0-9]{1,18}))?")


def run_option() -> argparse.ArgumentParser:
    """Which run."""
    option = argparse.ArgumentParser(add_help=False)
    option.add_argument(
        "--run", metavar="PREFIX", default=argparse.SUPPRESS, help="the run: the prefix of its files"
    )
    return option


def usual_options() -> argparse.ArgumentParser:
    """Which run, and how long to wait for its driver."""
    usual = argparse.ArgumentParser(add_help=False, parents=[run_option()])
    usual.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=seconds(0.001, 86400),
        default=PATIENCE,
        help="seconds to wait for the driver's answer (%(default)g)",
    )
    return usual


def seconds(least: float, most: float) -> Callable[[str], float]:
    """The type of an option that takes seconds within these bounds."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text}: give seconds, from {least:g} to {most:,g}")
        return value

    return parse


def parse_ranges(verb: str, words: Sequence[str]) -> list[tuple[int, int]]:
    """`12` and `100-199` as (first, last). UsageError."""
    ranges = []
    for word in words:
        found = _RANGE.fullmatch(word)
        first = int(found[1]) if found else 0
        last = int(found[2] or found[1]) if found else -1
        if last < first:
            raise UsageError(f"{verb} {word:.80}: give the ids of tasks (12) or ranges of them (100-199)")
        ranges.append((first, last))
    return ranges
