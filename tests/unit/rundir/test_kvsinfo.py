"""rundir/kvsinfo.py: what the file is called and holds, and that it goes with the run."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from disbatch.model.errors import UsageError
from disbatch.rundir.kvsinfo import KvsInfo, kvsinfo_path
from disbatch.rundir.paths import RunFiles


@pytest.mark.parametrize(
    ("prefix", "name"),
    [
        ("Tasks_77", "disBatch_77_kvsinfo.txt"),
        ("Tasks_77-3", "disBatch_77-3_kvsinfo.txt"),
        ("mine", "mine_kvsinfo.txt"),
        ("Tasks_777", "Tasks_777_kvsinfo.txt"),
    ],
)
def test_names(prefix: str, name: str) -> None:
    files = RunFiles(Path("/some") / prefix, Path("/else/log"))
    assert kvsinfo_path(files, "Tasks", "77") == Path("/some") / name


def test_it_tells_and_goes(tmp_path: Path) -> None:
    info = KvsInfo(tmp_path / "a_kvsinfo.txt")
    info.write(["redis://host:1/0", "prefix some prefix: "], again=False)
    assert info.path.read_text() == "redis://host:1/0\nprefix some prefix: \n"
    assert stat.S_IMODE(info.path.stat().st_mode) == 0o600
    assert (info.told("prefix"), info.told("connect")) == ("some prefix: ", None)
    info.remove(print)
    assert list(tmp_path.iterdir()) == []
    assert info.told("prefix") is None


def test_another_runs_file_stays(tmp_path: Path) -> None:
    first, second = KvsInfo(tmp_path / "a_kvsinfo.txt"), KvsInfo(tmp_path / "a_kvsinfo.txt")
    first.write(["one"], again=False)
    second.remove(print)
    second.write(["two"], again=False)
    assert second.path.name == "a-2_kvsinfo.txt"
    second.remove(print)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["one\n"]
    later = KvsInfo(first.path)
    later.write(["three"], again=True)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["three\n"]
    first.remove(print)  # it was replaced, and has not known
    assert [path.read_text() for path in tmp_path.iterdir()] == ["three\n"]
    later.remove(print)
    assert list(tmp_path.iterdir()) == []


def test_no_such_place(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be created"):
        KvsInfo(tmp_path / "none" / "a_kvsinfo.txt").write(["one"], again=False)
