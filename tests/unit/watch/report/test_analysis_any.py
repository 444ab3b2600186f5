"""Whatever status files hold, a report comes of it, in every form."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest
from html_reader import Reader
from hypothesis import example, given, settings
from hypothesis import strategies as st
from report_lines import write

from disbatch.watch.report.analysis import Analysis
from disbatch.watch.report.page import render_page
from disbatch.watch.report.text import render

numbers = st.one_of(st.integers(0, 5), st.integers(0, (1 << 63) - 1)).map(str)
codes = st.one_of(st.sampled_from(["0", "1", "-9", "-100", "137"]), st.integers(-(10**9), 10**9).map(str))
times = st.one_of(
    st.sampled_from(["0", "1.5", "nan", "inf", "-inf", "1e308", "-1e12", "1458660919.78"]),
    st.floats(0, 100).map(lambda seconds: f"{1e9 + seconds:.6f}"),
)
spans = st.one_of(st.sampled_from(["0", "-1", "nan", "1e300", "1e11"]), st.floats(0, 20).map(str))
words = st.text(st.characters(blacklist_characters="\t\n", codec="utf-8"), max_size=12)
flags = st.text("ROEBCDPSZ ", max_size=5)
lines = st.tuples(
    *(flags, numbers, numbers, numbers, words, numbers, codes, spans, times, times),
    *(numbers, words, numbers, words, words.map(lambda text: text or "x")),
).map(lambda fields: ("\t".join(fields) + "\n").encode())
files = st.lists(st.lists(lines, max_size=12), min_size=1, max_size=3)


def line(elapsed: str) -> bytes:
    """Of a task that took so long."""
    pid, finish = ("0", "0") if elapsed == "0" else ("1", "1.5")
    return f"\t0\t0\t0\t\t{pid}\t0\t{elapsed}\t0\t{finish}\t0\t\t0\t\tx\n".encode()


@settings(deadline=None)
@given(files)
@example([[line("0"), line("5e-324")]])
@example([[b"P\t0\t0\t0\t\t0\t0\tnan\t0\t0\t0\t\t0\t\tx\n"]])
def test_any_lines(contents: list[list[bytes]]) -> None:
    with TemporaryDirectory() as directory:
        paths = [write(Path(directory) / str(at), *content) for at, content in enumerate(contents)]
        analysis = Analysis.of(paths)
        try:
            report = analysis.report(["Tasks"])
            page = render_page(analysis, report)
        finally:
            analysis.close()
    Reader(page)
    msgspec.json.encode(report)
    assert all(line.plain.isprintable() for line in render(report))
    tasks = report.tasks
    assert tasks.known == tasks.succeeded + tasks.failed + tasks.lost
    assert sum(failure.count for failure in report.failures) == tasks.failed + tasks.lost
    assert sum(node.tasks for node in report.nodes) == sum(run.tasks for run in report.runs) <= tasks.known
    if report.utilisation is not None:
        assert report.slot_seconds.whole >= 0
        assert report.utilisation == pytest.approx(report.slot_seconds.tasks / report.slot_seconds.whole)
