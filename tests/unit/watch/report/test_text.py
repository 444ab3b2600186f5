"""The report on a terminal: aligned, 80 columns, silent about what is not there."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_lines import barrier, line, reported, write
from rich.cells import cell_len

from disbatch.model.statusline import Mark
from disbatch.watch.report.text import PLAIN, WIDTH, area, bar, render
from disbatch.watch.report.wording import clean, moment, share

DATA = Path(__file__).parents[2] / "data"
HISTORY = [
    b"bad\n",
    line(0, 0, 0.5, mark=Mark.PER_ENGINE, command=b"module load x"),
    line(0, 1, 3, code=1),
    line(0, 4, 2),
    line(1, 1, 7, code=3, node="node2", err=b"no such \xff\x1b[31m file 77\n"),
    barrier(2, 8, 2),
    line(4, 8, 4, code=-15, node="node2", mark=Mark.SUPERSEDED),
    line(3, 8, 8),
    line(4, 16, 4),
]


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    with monkeypatch.context() as patched:
        patched.chdir(tmp_path)
        patched.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


def text(*paths: str) -> str:
    return "".join(f"{each.plain}\n" for each in render(reported(*paths)))


def test_a_whole_report() -> None:
    assert text(write(Path("s"), *HISTORY)) == (DATA / "report.txt").read_text()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([], "s\n\n  no task has ended yet\n\nGo on\n"),
        (
            [line(0, elapsed=0, code=-100)],
            "s\n\n  tasks       1: 0 succeeded, 1 lost with its node\n\nFailures\n",
        ),
        (
            [line(0, mark=Mark.SKIPPED)],
            "  tasks       1: 1 succeeded\n              1 of them done by a former run\n",
        ),
    ],
)
def test_what_is_not_there_is_not_mentioned(content: list[bytes], said: str) -> None:
    found = text(write(Path("s"), *content))
    assert said in found
    for title in ("Where the time", "Slots", "How long", "Nodes", "Slowest", "barriers", "per engine"):
        assert title not in found


def test_one_task() -> None:
    found = text(write(Path("s"), line(0)))
    assert "  slots       1 slot on 1 node, 100.0% used by tasks\n" in found
    for title in ("Nodes", "Failures", "Slowest", "run these and the unsuccessful ones", "start-up", "tail"):
        assert title not in found


def test_what_comes_from_outside_is_short_and_printable() -> None:
    nasty = b"\x1b]0;x\x07\xff" + "漢字".encode() * 30 + b"\ttab"
    path = write(
        Path("s"),
        *(line(id, id, 1, code=1, node="n" * 300 + str(id), err=nasty, command=nasty) for id in range(3)),
        line(9, 9, 1, node="節点" * 40),
    )
    # Only the commands that people copy, which name the file, may be longer.
    found = text(path)
    assert all(cell_len(each) <= WIDTH for each in found.splitlines())
    assert all(each.isprintable() for each in found.splitlines())


def test_several_runs() -> None:
    first = write(Path("one"), line(0, 0, 10))
    second = write(Path("two"), line(0, mark=Mark.SKIPPED), line(1, 500, 5))
    found = text(first, second)
    assert found.startswith("one\ntwo\n\n  tasks       2: 2 succeeded\n  time        15 s in 2 runs")
    assert "disbatch -r one -r two Tasks" in found


def test_many_nodes() -> None:
    found = text(write(Path("s"), *(line(id, node=f"n{id}", elapsed=1 + id / 10) for id in range(20))))
    assert "  n19                    1         1           2.90 s   ×1.49 100.0%\n" in found
    assert "  and 8 more nodes, ×0.51 to ×0.87\n" in found


def test_notes() -> None:
    path = write(Path("s"), line(0), b"x\n", b"y\n", line(1)[:9])
    Path("link").symlink_to("s")
    assert reported(path, "link").notes == [
        "link: was named twice, and read once",
        "s: 2 lines are invalid, from line 2 on; not counted",
        "s: its last line is torn, and does not count",
    ]


@given(st.lists(st.floats(0, 2)), st.integers(1, 8))
def test_areas(shares: list[float], height: int) -> None:
    lines = area(shares, height)
    assert len(lines) == height
    for at, part in enumerate(shares):
        column = [each[at : at + 1] or " " for each in lines]
        assert column == sorted(column)
        assert (column[-1] == " ") == (part == 0)
        assert (column == ["█"] * height) == (part >= 1 - 1 / (16 * height))


def test_bars_and_words() -> None:
    assert [bar(part, 4) for part in (0, 0.001, 0.5, 1)] == ["", "▏", "██", "████"]
    assert all((bar(part / 100, 9) + "─×…").translate(PLAIN).isascii() for part in range(101))
    assert [share(part) for part in (0, 0.0001, 0.5, 1)] == ["0.0%", "<0.1%", "50.0%", "100.0%"]
    assert (moment(0), moment(1e300)[-12:]) == ("1970-01-01 00:00:00", "s after 1970")
    assert [clean(words, 5) for words in ("abcde", "abcdef", "漢字漢字", "\ud800")] == [
        "abcde",
        "abcd…",
        "漢字…",
        "?",
    ]
