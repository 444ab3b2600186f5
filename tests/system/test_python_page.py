"""The examples of docs/python.md run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from command import DEADLINE, environment

PAGE = Path(__file__).resolve().parents[2] / "docs" / "python.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S)
SAID = [
    "0 0 {} 0.3 b'slept 0.3\\n'",
    "True 0",
    "[b'4\\n', b'4\\n']",
    "sleep 0.3; exit 3 failed with 3",
    "[0, 1, 2, 3]",
    "b'42'",
    "return code 4",
]
"""A part of what each of them prints, of which times are cut to a digit."""


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_example(tmp_path: Path, number: int) -> None:
    (tmp_path / "example.py").write_text(EXAMPLES[number])
    done = subprocess.run(
        [sys.executable, "example.py"],
        cwd=tmp_path,
        env=environment({"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    said = re.sub(r"(0\.\d)\d+", r"\1", done.stdout)
    said = re.sub(r"^(\d+ \d+) \S+ ", r"\1 {} ", said, flags=re.M)
    assert SAID[number] in said


def test_every_example_is_looked_at() -> None:
    assert len(EXAMPLES) == len(SAID)
