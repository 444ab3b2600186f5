"""`dbutil check`: what it says of task files."""

from __future__ import annotations

from pathlib import Path

import pytest

from disbatch.cli.dbutil import main


def check(folder: Path, capsys: pytest.CaptureFixture[str], **files: str) -> tuple[int, list[str], list[str]]:
    """The exit code, and the lines of standard output and standard error, without the folder's name."""
    for name, text in files.items():
        (folder / name).write_text(text)
    code = main(["check", *(str(folder / name) for name in files)])
    said = capsys.readouterr()
    out, err = (text.replace(f"{folder}/", "").splitlines() for text in (said.out, said.err))
    return code, out, err


def test_every_wrong_directive_has_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "#DISBATCH FOO\na\n#DISBATCH REPEAT x\n#DISBATCH PERENGINE START b\n"
    code, out, err = check(tmp_path, capsys, One=text, Two="a\n", Three="#DISBATCH\n")
    assert (code, out) == (2, ["Two: 1 task"])
    assert [line.split(": ")[:2] for line in err] == [
        ["dbutil", where] for where in ("One:1", "One:3", "One:4", "Three:1")
    ]


def test_warnings_are_shown_beside_wrong_directives(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "echo a \\\n b\n#DISBATCH FOO\n# DISBATCH BARRIER\nc\\\n#DISBATCH REPEAT x\n"
    code, out, err = check(tmp_path, capsys, One=text, Nul="a\\\n\0\n")
    assert code == 2
    assert [line.split(": ")[0] for line in out] == ["One:1", "One:4", "One:5", "Nul:1"]
    assert [line.split(": ")[1] for line in err] == ["One:3", "One:6", "Nul:2"]


def test_many_wrong_directives_are_all_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = check(tmp_path, capsys, Tasks="#DISBATCH FOO\n" * 300)
    assert (code, out) == (2, [])
    assert [line.split(": ")[1] for line in err] == [f"Tasks:{number}" for number in range(1, 301)]


def test_a_line_that_seems_to_go_on_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, (held, warning), err = check(tmp_path, capsys, Tasks="echo a \\\n  b\n")
    assert (code, held, err) == (0, "Tasks: 2 tasks", [])
    assert warning.startswith("Tasks:1: ends in a backslash")
