"""Status files for programs: each field read, line by line, and as a table."""

from __future__ import annotations

import pickle
import sys
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
import report_lines

from deadline import DEADLINE
from disbatch import TaskFailedError, TaskResult, UsageError, read_status, to_polars
from disbatch.api.compat import _report
from disbatch.model.result import report_of
from disbatch.model.statusline import STATUS_HEADER, Mark, format_line
from disbatch.model.task import LOST_RETURN_CODE, Outcome, Reason

DATA = Path(__file__).parents[1] / "data"


def line(id: int = 0, command: bytes = b"true", code: int = 0, mark: Mark = Mark.TASK) -> bytes:
    outcome = Outcome(1, 0, 4711, code, 0.25, 1700000000.5, 1700000000.75, 3, b"a\xff\n", 6, b"wrong\n")
    return format_line(id, id + 1, -1, command, "node", outcome, mark)


def written(directory: Path, *lines: bytes) -> Path:
    path = directory / "P_status.txt"
    path.write_bytes(b"".join(lines))
    return path


def test_every_field(tmp_path: Path) -> None:
    (result,) = read_status(written(tmp_path, line(3, b"echo \xff \xc3\xa9", 5)))
    assert result == TaskResult(
        id=3,
        line=4,
        repeat=-1,
        node="node",
        pid=4711,
        return_code=5,
        elapsed=0.25,
        start=1700000000.5,
        finish=1700000000.75,
        out_bytes=3,
        out=b"a\xff\n",
        err_bytes=6,
        err=b"wrong\n",
        command="echo \udcff é",
        kind="task",
    )
    assert result.command_bytes == b"echo \xff \xc3\xa9"
    assert (result.ok, result.counts, result.lost) == (False, True, False)
    assert pickle.loads(pickle.dumps(result)) == result


def test_kinds(tmp_path: Path) -> None:
    path = written(tmp_path, *(line(mark=mark) for mark in Mark))
    found = [(result.kind, result.counts) for result in read_status(path)]
    assert found == [
        *(("task", True), ("barrier", False), ("perengine", False), ("skipped", True), ("superseded", False))
    ]


def test_check(tmp_path: Path) -> None:
    good, bad = read_status(written(tmp_path, line(), line(1, b"exit 3", 3)))
    assert good.check() is good
    with pytest.raises(
        TaskFailedError, match=r"^task 1 on node: return code 3, 0.250 s: exit 3 \(wrong\)$"
    ) as raised:
        bad.check()
    assert raised.value.result is bad
    assert pickle.loads(pickle.dumps(raised.value)).result == bad


@pytest.mark.parametrize(
    ("code", "words"), [(-15, "ended by signal 15"), (LOST_RETURN_CODE, "nodes were lost")]
)
def test_words(tmp_path: Path, code: int, words: str) -> None:
    (result,) = read_status(written(tmp_path, line(code=code)))
    assert words in str(result)


def test_header_and_torn_line(tmp_path: Path) -> None:
    path = written(tmp_path, STATUS_HEADER, line(), line(1)[:-7])
    assert [result.id for result in read_status(path)] == [0]


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: no such file"):
        read_status(tmp_path / "none")
    with pytest.raises(UsageError, match=r"P_status.txt:2: not a line of a status file"):
        list(read_status(written(tmp_path, line(), b"what?\n", line())))


@pytest.mark.parametrize("name", ["mixed", "odd", "perengine", "header"])
def test_files_of_the_original(name: str) -> None:
    results = list(read_status(DATA / f"original_3_{name}_status.txt"))
    assert results and all(result.elapsed >= 0 for result in results)


def test_table(tmp_path: Path) -> None:
    path = written(tmp_path, *(line(id, b"\xff x" if id else b"true", id % 2) for id in range(5)))
    table = to_polars(path)
    assert table.columns == list(msgspec.structs.asdict(next(read_status(path))))
    assert table["id"].to_list() == [0, 1, 2, 3, 4]
    assert table["start"][0] == datetime(2023, 11, 14, 22, 13, 20, 500_000, tzinfo=UTC)
    assert table["command"].to_list()[:2] == ["true", "\\xff x"]
    assert table["err"][0] == b"wrong\n"
    assert table.filter(table["return_code"] != 0)["id"].to_list() == [1, 3]
    assert to_polars(read_status(path)).equals(table)
    assert to_polars([]).columns == table.columns


def test_without_polars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(ImportError, match="pip install polars"):
        to_polars(written(tmp_path, line()))


def test_engines_and_the_command_line_import_nothing_of_it() -> None:
    import subprocess

    script = (
        "import sys; import disbatch.engine.engine, disbatch.cli.main, disbatch.cli.run, disbatch.cli.submit;"
        "print([name for name in sys.modules if name.startswith('disbatch.api')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=DEADLINE
    )
    assert done.stdout == "[]\n"


def test_names() -> None:
    import disbatch

    assert {"DisBatch", "read_status"} <= set(dir(disbatch))
    with pytest.raises(AttributeError):
        disbatch.nothing  # type: ignore[attr-defined]


def test_reasons(tmp_path: Path) -> None:
    """Why a task ended, for programs: in words, and in the original's reports as the fifth flag."""
    path = tmp_path / "P_status.txt"
    lines = [report_lines.line(id, code=-15, reason=reason) for id, reason in enumerate(Reason)]
    path.write_bytes(b"".join([*lines, report_lines.line(9, code=-100, reason=Reason.NOT_RUN)]))
    results = list(read_status(path))
    words = ["", "cancelled", "time limit", "memory", "not run", "not run"]
    assert [result.reason for result in results] == words
    assert not results[-1].lost
    assert str(results[1]).startswith("task 1 on node1: cancelled,")
    flags = [_report(result)["Flags"] for result in results]
    assert flags == ["R   ", "R   X", "R   T", "R   M", "R   N", "R   N"]
    told = [report_of(line) for line in path.read_bytes().splitlines()]
    assert [report.flags for report in told if report] == flags
