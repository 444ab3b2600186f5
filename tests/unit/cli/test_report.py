"""dbutil report: what it prints and writes, and what it refuses."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

import msgspec
import pytest
from report_lines import line, write

from disbatch.cli.dbutil import main
from disbatch.rundir.lock import hold
from disbatch.watch.report import figures
from disbatch.watch.report.page import MARK

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "report.md"
TAKEN = "is there and is no report; it is not overwritten: name another file"
ROWS = [line(0), line(1, code=3), line(2, 2, 1)]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def status(here: Path) -> str:
    write(here / "run_status.txt", *ROWS)
    return "run_status.txt"


def test_text(status: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", status]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("run_status.txt\n\n  tasks       3: 2 succeeded, 1 failed\n")
    assert "\x1b" not in out
    assert err == ""


def test_json(status: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--json", status]) == 0
    out, err = capsys.readouterr()
    report = msgspec.json.decode(out, type=figures.Report, strict=True)
    assert (report.format, report.tasks.known, report.tasks.failed, err) == (1, 3, 1, "")
    assert json.loads(out)["failures"][0]["tasks"] == [1]


def test_both(status: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", status, "--html", "r.html", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["format"] == 1
    assert Path("r.html").read_bytes().startswith(MARK)


def test_the_run_of_its_own_script(status: str, capsys: pytest.CaptureFixture[str]) -> None:
    for prefix in ("run", "run_status.txt", "run_dbUtil.sh"):
        assert main(["--run", prefix, "report"]) == 0
    write(Path("other"), line(7))
    assert main(["--run", "run", "report", "other"]) == 0
    out = capsys.readouterr().out
    assert out.count("run_status.txt\n\n") == 3
    assert out.endswith("disbatch -r other TASKFILE\n")


def test_a_live_run(status: str, capsys: pytest.CaptureFixture[str]) -> None:
    with open(status, "ab") as file:
        file.write(line(9)[:20])
        file.flush()
        assert hold(file.fileno())
        assert main(["report", status]) == 0
    note = "  note        run_status.txt: a run is still writing it: running tasks are not in it yet\n"
    assert note in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "task_file", "found"),
    [
        ("Tasks_260301101500_4711_status.txt", "Tasks", True),
        ("Tasks_260301101500_4711-2_status.txt", "Tasks", True),
        ("my_jobs_123456_status.txt", "my_jobs", True),
        ("Tasks_260301101500_4711_status.txt", "Other", False),
        ("Tasks_status.txt", "Tasks", False),
    ],
)
def test_the_task_file(name: str, task_file: str, found: bool, capsys: pytest.CaptureFixture[str]) -> None:
    write(Path(name), line(0))
    Path(task_file).touch()
    assert main(["report", name]) == 0
    expected = task_file if found else "TASKFILE"
    assert f"    disbatch -r {name} {expected}\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "others", "command"),
    [
        ("Tasks_12", ["Tasks", "Tasks_12_tasks.txt"], "cat Tasks Tasks_12_tasks.txt | disbatch -r {} -"),
        ("STREAM_12", ["STREAM_12_tasks.txt"], "disbatch -r {} STREAM_12_tasks.txt"),
        ("STREAM_12", [], "disbatch -r {} TASKFILE"),
        ("mine", ["mine_tasks.txt"], "cat TASKFILE mine_tasks.txt | disbatch -r {} -"),
    ],
)
def test_tasks_that_were_handed_in(
    name: str, others: list[str], command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status = f"{name}_status.txt"
    write(Path(status), line(0))
    for other in others:
        Path(other).write_text("true\n")
    assert main(["report", status]) == 0
    assert f"    {command.format(status)}\n" in capsys.readouterr().out


def test_strange_names(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = os.fsdecode(b"a \x1b[1m'\xff_status.txt")
    write(Path(name), *ROWS)
    assert main(["report", name]) == 0
    assert main(["report", name, "--html", name + ".html"]) == 0
    assert "\x1b" not in capsys.readouterr().out
    assert main(["report", name, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["files"][0]["name"] == "a \x1b[1m'\\xff_status.txt"


def test_a_terminal_without_blocks(status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for encoding in ("ascii", "latin-1"):
        plain = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        monkeypatch.setattr(sys, "stdout", plain)
        assert main(["report", status]) == 0
        plain.flush()
        assert b"  tasks             ####" in plain.buffer.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing"], "nothing: cannot be read: no such file or directory"),
        (["."], ".: is a directory; a report needs a status file"),
        (["Tasks"], "Tasks: is not a status file: line 1 is not a line of one"),
        (["run_status.txt", "Tasks"], "Tasks: is not a status file: line 1 is not a line of one"),
        ([], "report: name the status file of a run; see dbutil report --help"),
        (["run_status.txt", "--html", "."], ".: is a directory; name a file in it"),
        (["run_status.txt", "--html", "no/r.html"], "no/r.html: there is no directory no"),
        (["run_status.txt", "--html", "Tasks"], f"Tasks: {TAKEN}"),
        (["run_status.txt", "--html", "run_status.txt"], f"run_status.txt: {TAKEN}"),
        (["run_status.txt", "--html", "pipe"], f"pipe: {TAKEN}"),
        (["--wrong"], "unrecognized arguments: --wrong; see dbutil report --help"),
    ],
)  # fmt: skip
def test_what_is_refused(
    status: str, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("Tasks").write_text("echo 1\n")
    os.mkfifo("pipe")
    before = {name: Path(name).read_bytes() for name in ("Tasks", status)}
    assert main(["report", *arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"dbutil: {said}\n")
    assert {name: Path(name).read_bytes() for name in before} == before


def test_a_former_report_is_replaced(status: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("link.html").symlink_to("r.html")
    Path("r.html").touch()
    assert main(["report", status, "--html", "link.html"]) == 0
    first = Path("r.html").read_bytes()
    write(Path(status), *ROWS, line(3))
    assert main(["report", status, "--html", "link.html"]) == 0
    assert Path("link.html").is_symlink()
    second = Path("r.html").read_bytes()
    assert second.startswith(MARK)
    assert second != first
    assert capsys.readouterr().out.startswith("link.html: written, ")
    assert sorted(os.listdir()) == ["link.html", "r.html", status]


def test_its_mode_is_that_of_any_new_file(status: str) -> None:
    former = os.umask(0o027)
    try:
        assert main(["report", status, "--html", "r.html"]) == 0
    finally:
        os.umask(former)
    assert Path("r.html").stat().st_mode & 0o777 == 0o640


def test_a_full_disk_leaves_the_former_report(
    status: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", status, "--html", "r.html"]) == 0
    before = Path("r.html").read_bytes()
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    capsys.readouterr()
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        assert main(["report", status, "--html", "r.html"]) == 3
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert capsys.readouterr().err == "dbutil: r.html: cannot be written: File too large\n"
    assert Path("r.html").read_bytes() == before
    assert sorted(os.listdir()) == ["r.html", status]


def test_every_figure_is_documented() -> None:
    """In docs/report.md: each struct's table has each field, and no other."""
    text = DOCUMENT.read_text()
    structs = [
        each for each in vars(figures).values() if isinstance(each, type) and issubclass(each, msgspec.Struct)
    ]
    known = {field for struct in structs for field in struct.__struct_fields__}
    schema = text[text.index("## JSON") :]
    documented = set()
    for row in schema.splitlines():
        if row.startswith("| `"):
            documented |= set(row.split("|")[1].replace("`", "").replace(",", " ").split())
    assert documented == known
