"""Numbers of things, and names of nodes, as people are told."""

from __future__ import annotations

MOST_NAMED = 5


def counted(number: float, noun: str, plural: str = "") -> str:
    """`1 task`, `2,000 tasks`, `0.5 cores`; `plural` if that is not the noun with an s."""
    shown = f"{number:,}" if isinstance(number, int) else f"{number:g}"
    return f"{shown} {noun if number == 1 else plural or f'{noun}s'}"


def with_label(node: str, label: str) -> str:
    """`vm (gpu)`: a node of a context that the user gave a label; several may have the same name."""
    return f"{node} ({label})" if label else node


def short_list(names: list[str], most: int = MOST_NAMED) -> str:
    """The first names of a list; a name that stands there more than once is said once."""
    different = list(dict.fromkeys(names))
    rest = len(different) - most
    return ", ".join(different[:most]) + (f" and {rest} more" if rest > 0 else "")
