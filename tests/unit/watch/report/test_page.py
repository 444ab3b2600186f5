"""The report as a page: one file, no script, nothing fetched, everything escaped, and small."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from html_reader import Reader
from report_lines import barrier, line, write

from disbatch.model.statusline import Mark
from disbatch.watch.report.analysis import Analysis
from disbatch.watch.report.page import MARK, render_page
from disbatch.watch.report.svg import MOST_ROWS, Timeline, draw_timeline

EVIL = b"</title></svg><script>alert('1')</script><img src=x onerror=\"a\">&amp;\xff\x00\x1b"


def page(*paths: str) -> bytes:
    analysis = Analysis.of(paths)
    try:
        return render_page(analysis, analysis.report(["Tasks"]))
    finally:
        analysis.close()


def timeline(*paths: str) -> Timeline:
    analysis = Analysis.of(paths)
    analysis.close()
    return draw_timeline(analysis.lines, analysis.counts, analysis.spans)


HISTORY = [
    line(0, 0, 0.5, mark=Mark.PER_ENGINE, command=EVIL),
    *(
        line(id, id // 4, 1, node=f"n{id % 4}", code=int(id % 7 == 0), err=EVIL, command=EVIL)
        for id in range(40)
    ),
    barrier(40, 10),
    line(41, 10, 5, node="<b>n1</b>"),
    line(42, 10, 5, node="n2", mark=Mark.SUPERSEDED),
]


def test_it_is_one_file(tmp_path: Path) -> None:
    found = page(write(tmp_path / "s<i>", *HISTORY))
    assert found.startswith(MARK)
    read = Reader(found)
    names = {tag for tag, _ in read.tags}
    assert not names & {"script", "img", "link", "iframe", "object", "form", "a", "i>", "b"}
    assert not [each for _, attributes in read.tags for each in attributes if each.startswith("on")]
    assert not re.search(rb"https?:|url\(|@import|src=x onerror=\"a\"|href", found)
    policy = [each["content"] for each in read.named("meta") if "http-equiv" in each]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"]
    assert "alert('1')" in read.words


def test_it_can_be_read_without_seeing(tmp_path: Path) -> None:
    read = Reader(page(write(tmp_path / "s", *HISTORY)))
    assert read.named("html") == [{"lang": "en"}]
    pictures = read.named("svg")
    assert len(pictures) > 3
    for each in pictures:
        assert each.get("aria-hidden") == "true" or (each["role"] == "img" and each["aria-label"])
    assert [tag for tag, _ in read.tags].count("h1") == 1
    assert len(read.named("table")) >= 5
    assert all(each["scope"] == "col" for each in read.named("th"))


def test_what_is_not_there_is_not_mentioned(tmp_path: Path) -> None:
    for content, shown in (
        ([], ["Go on"]),
        ([line(0, mark=Mark.SKIPPED)], ["Go on"]),
        ([line(0, elapsed=0, code=-100)], ["Failures", "Go on"]),
        (
            [line(0)],
            ["Where the time of the slots went", "Slots at work", "Timeline", "How long tasks took", "Go on"],
        ),
        ([line(0, 0, 0)], ["How long tasks took", "Go on"]),
    ):
        found = page(write(tmp_path / "s", *content)).decode()
        assert re.findall("<h2>(.*?)</h2>", found) == shown or content == [line(0, 0, 0)]
        Reader(found.encode())


def test_few_tasks_are_bars_with_names(tmp_path: Path) -> None:
    path = write(tmp_path / "s", line(0, 0, 5), line(1, 1, 3, code=137), line(2, 2, 1, mark=Mark.SUPERSEDED))
    found = timeline(path)
    assert [(bar.row, bar.start, bar.finish, bar.ending) for bar in found.bars] == [
        (0, 0, 5, 0),
        (1, 1, 4, 1),
        (2, 2, 3, 2),
    ]
    words = page(path).decode()
    assert "<title>task 1 on node1: 3.00 s, exit 137 (SIGKILL)</title>" in words
    assert ">attempts that do not count</span>" in words


def test_rows_are_in_the_order_that_people_expect(tmp_path: Path) -> None:
    found = timeline(
        write(tmp_path / "s", *(line(id, node=name) for id, name in enumerate(("n10", "n9", "a"))))
    )
    assert found.labels == [("a", 0, 1), ("n9", 1, 1), ("n10", 2, 1)]


def test_many_tasks_are_shares_of_time(tmp_path: Path) -> None:
    lines = [line(id, id / 100, 0.005, code=int(id >= 900)) for id in range(1000)]
    found = timeline(write(tmp_path / "s", *lines))
    assert (found.what, found.rows, found.bars) == ("slot", 1, [])
    assert all(cell.busy == pytest.approx(0.5, abs=0.2) for cell in found.cells)
    failing = [cell.start for cell in found.cells if cell.failing]
    assert min(failing) == pytest.approx(9, abs=0.1)
    assert max(cell.finish for cell in found.cells) == pytest.approx(9.995)


def test_many_slots_are_nodes(tmp_path: Path) -> None:
    lines = [line(id, 0, 10 if id % 2 else 5, node=f"n{id // 4}") for id in range(4 * 100)]
    found = timeline(write(tmp_path / "s", *lines))
    assert (found.what, found.rows) == ("node", 100)
    first = [cell for cell in found.cells if cell.row == 0]
    assert [first[0].busy, first[-1].busy] == pytest.approx([1, 0.5])


def test_many_nodes_are_neighbours(tmp_path: Path) -> None:
    found = timeline(write(tmp_path / "s", *(line(id, node=f"n{id}") for id in range(1000))))
    assert found.rows <= MOST_ROWS
    assert (found.what, found.labels[0]) == ("5 nodes", ("n0 – n4", 0, 1))
    assert all(cell.busy == pytest.approx(1, abs=1e-3) for cell in found.cells)


def test_the_size_has_a_bound(tmp_path: Path) -> None:
    many = [line(id, id % 997 * 1.0, 1 + id % 13, node=f"n{id % 900}", code=id % 3) for id in range(30_000)]
    assert len(page(write(tmp_path / "s", *many))) < 3_000_000


def test_several_runs_side_by_side(tmp_path: Path) -> None:
    first = write(tmp_path / "1", line(0, 0, 10), line(1, 0, 9))
    second = write(tmp_path / "2", line(0, mark=Mark.SKIPPED), line(2, 1e6, 1))
    found = page(first, second).decode()
    assert "<h2>Runs</h2>" in found
    assert found.count('class="ground"') >= 4
    Reader(found.encode())
