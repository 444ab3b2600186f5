"""Where the record of a run is, and which run a record belongs to, once something else has taken its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from disbatch.cli.run_process import write_script
from disbatch.rundir.paths import RunFiles
from disbatch.rundir.resume import unrecorded
from disbatch.rundir.runscript import RunCommand, prefix_of, status_file


def run(prefix: Path, status: Path) -> None:
    status.write_text("")
    write_script(RunFiles(prefix, prefix), RunCommand(str(prefix.parent), str(status), "", ""))


@pytest.mark.parametrize("place", ["there", "there/", "./there", ""])
@pytest.mark.parametrize("number", ["-2", "-2-2"])
def test_run_whose_record_has_another_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, number: str
) -> None:
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path if place else tmp_path / "there")
    here = f"{place}/" if place else ""
    run(tmp_path / "there/P", tmp_path / "there/P_status.txt")
    run(tmp_path / "there/P", tmp_path / f"there/P{number}_status.txt")  # as its driver does
    assert Path(status_file(f"{here}P")) == Path(f"{here}P{number}_status.txt")
    assert Path(prefix_of(f"{here}P{number}_status.txt")) == Path(f"{here}P")
    left = tmp_path / "there" / "P_here_unrecorded.txt"
    left.touch()
    assert [path.name for path in unrecorded(Path(f"{here}P{number}_status.txt"))] == [left.name]
    (tmp_path / "there" / f"P{number}_status.txt").unlink()
    assert status_file(f"{here}P") == f"{here}P_status.txt"


def test_run_of_its_own_with_a_number(tmp_path: Path) -> None:
    one, two = tmp_path / "P", tmp_path / "P-2"
    run(one, tmp_path / "P-2_status.txt")
    run(two, tmp_path / "P-2_status.txt")  # the record that had this name was removed before
    assert status_file(str(one)) == f"{one}_status.txt"
    assert status_file(str(two)) == f"{two}_status.txt"
    assert prefix_of(f"{two}_status.txt") == str(two)


@pytest.mark.parametrize("name", ["Q-2_status.txt", "P-2", "P-x_status.txt", "../P-2_status.txt"])
def test_script_that_names_something_else(tmp_path: Path, name: str) -> None:
    (tmp_path / "d").mkdir()
    run(tmp_path / "d/P", tmp_path / "d" / name)
    assert status_file(str(tmp_path / "d/P")) == str(tmp_path / "d/P_status.txt")


def test_run_without_a_script(tmp_path: Path) -> None:
    assert status_file(str(tmp_path / "P")) == str(tmp_path / "P_status.txt")
    assert prefix_of(str(tmp_path / "P-2_status.txt")) == str(tmp_path / "P-2")
