"""Names of a run's files, and the claim that nobody else's are taken."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from disbatch.model.errors import UsageError
from disbatch.rundir.paths import ClaimedFiles, claim, working_directory


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def claimed(prefix: str | None = None, log: str | None = None) -> ClaimedFiles:
    files = claim(prefix, "Tasks", "J1", log)
    for descriptor in (files.status_descriptor, files.log_descriptor):
        assert not os.get_inheritable(descriptor)
        os.close(descriptor)
    return files


@pytest.mark.parametrize(
    ("prefix", "status", "log"),
    [
        (None, "Tasks_J1_status.txt", "disBatch_J1_driver.txt"),
        ("run", "run_status.txt", "run_driver.txt"),
        ("folder", "folder/Tasks_J1_status.txt", "folder/disBatch_J1_driver.txt"),
        ("folder/", "folder/Tasks_J1_status.txt", "folder/disBatch_J1_driver.txt"),
        ("folder/run", "folder/run_status.txt", "folder/run_driver.txt"),
    ],
)
def test_names(here: Path, prefix: str | None, status: str, log: str) -> None:
    (here / "folder").mkdir()
    files = claimed(prefix).files
    assert (files.status, files.log) == (here / status, here / log)
    assert files.engine_log("a/b").parent == files.status.parent


@pytest.mark.parametrize("taken", ["status.txt", "connect.json", "dbUtil.sh", "driver.txt"])
def test_taken_names_are_passed_over_whole(here: Path, taken: str) -> None:
    (here / f"run_{taken}").write_text("theirs")
    files = claimed("run").files
    assert files.status.name == "run-2_status.txt" and files.log.name == "run-2_driver.txt"
    assert (here / f"run_{taken}").read_text() == "theirs"
    assert taken == "status.txt" or not (here / "run_status.txt").exists()


def test_dangling_link_is_taken_too(here: Path) -> None:
    (here / "run_status.txt").symlink_to(here / "elsewhere")
    assert claimed("run").files.status.name == "run-2_status.txt"
    assert not (here / "elsewhere").exists()


def test_withdrawn_leaves_nothing_but_a_named_log(here: Path) -> None:
    claimed("run").withdraw()
    assert list(here.iterdir()) == []
    (here / "log").write_text("before\n")
    claimed("run", "log").withdraw()
    assert [path.name for path in here.iterdir()] == ["log"]
    assert (here / "log").read_text() == "before\n"


def test_log_that_cannot_be_opened_leaves_nothing(here: Path) -> None:
    with pytest.raises(UsageError, match=r"none/log: cannot be created: .*; choose another place with -l"):
        claim("run", "Tasks", "J1", "none/log")
    assert list(here.iterdir()) == []


def test_log_that_is_a_pipe_without_a_reader(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match=r"pipe: cannot be created: .*; choose another place with -l"):
        claim(str(tmp_path / "run"), "Tasks", "J", str(tmp_path / "pipe"))
    assert [each.name for each in tmp_path.iterdir()] == ["pipe"]


def test_other_hosts_get_the_name_that_the_user_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real" / "sub").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path / "link")
    monkeypatch.setenv("PWD", f"{tmp_path}/link")
    assert working_directory() == f"{tmp_path}/link"
    files = claimed().files
    assert files.prefix == tmp_path / "real" / "Tasks_J1"
    assert files.elsewhere.connect == tmp_path / "link" / "Tasks_J1_connect.json"
    assert claimed("sub").files.elsewhere.prefix == tmp_path / "link" / "sub" / "Tasks_J1"
    apart = tmp_path / "x"
    assert claimed(str(apart)).files.elsewhere.prefix == apart
    monkeypatch.setenv("PWD", "/nowhere")
    assert claimed().files.elsewhere.prefix == tmp_path / "real" / "Tasks_J1-2"
