"""What an engine tells of its node's load and memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from disbatch.engine.liveness import node_load


def test_of_this_machine() -> None:
    load, used, total = node_load()
    assert load >= 0 and 0 < used < total


@pytest.mark.parametrize(
    ("text", "memory"),
    [
        ("MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:  400 kB\n", (600 << 10, 1000 << 10)),
        ("MemTotal:  1000 kB\nMemAvailable:  4000 kB\n", (0, 1000 << 10)),
        ("MemTotal:  1000 kB\nMemFree: 1 kB\n", (0, 0)),
        ("MemTotal:  0 kB\nMemAvailable:  0 kB\n", (0, 0)),
        ("", (0, 0)),
        ("MemTotal:  many kB\nMemAvailable:  4000 kB\n", (0, 0)),
    ],
)
def test_what_the_kernel_says(tmp_path: Path, text: str, memory: tuple[int, int]) -> None:
    path = tmp_path / "meminfo"
    path.write_text(text)
    assert node_load(str(path))[1:] == memory


def test_a_system_that_does_not_say(tmp_path: Path) -> None:
    assert node_load(str(tmp_path / "none"))[1:] == (0, 0)
    assert node_load(str(tmp_path))[1:] == (0, 0)
