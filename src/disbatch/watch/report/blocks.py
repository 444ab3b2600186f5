"""Pictures of characters: bars and areas."""

from __future__ import annotations

from collections.abc import Sequence

_EIGHTHS = " ▁▂▃▄▅▆▇█"
_LEFT_EIGHTHS = " ▏▎▍▌▋▊▉█"

PLAIN = str.maketrans(
    {
        **dict(zip("▁▂▃▄▅▆▇█", "..::==##", strict=True)),
        **dict(zip("▏▎▍▌▋▊▉", "..::==#", strict=True)),
        "─": "-",
        "×": "x",
        "…": "~",
    }
)
"""What stands for them where only ASCII can be shown."""


def bar(share: float, width: int) -> str:
    """A bar of at most `width` columns; what is not nothing shows."""
    eighths = max(1, round(share * width * 8)) if share > 0 else 0
    return "█" * (eighths // 8) + (_LEFT_EIGHTHS[eighths % 8] if eighths % 8 else "")


def area(shares: Sequence[float], height: int) -> list[str]:
    """A column for each share of the height, from the top line down; what is not nothing shows."""
    filled = [max(1, round(min(1.0, share) * height * 8)) if share > 0 else 0 for share in shares]
    return [
        "".join(_EIGHTHS[max(0, min(8, eighths - 8 * level))] for eighths in filled).rstrip()
        for level in reversed(range(height))
    ]
