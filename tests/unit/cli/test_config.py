"""The user's configuration file and --fix-paths."""

from __future__ import annotations

import os
import sys
import tomllib
from pathlib import Path

import pytest

from disbatch.cli.config import Config, config_path, fix_paths, read_config
from disbatch.engine.search_path import package_path
from disbatch.model.errors import UsageError


def test_where_it_is() -> None:
    assert config_path({"HOME": "/h"}) == Path("/h/.config/disbatch/config.toml")
    assert config_path({"HOME": "/h", "XDG_CONFIG_HOME": "/x"}) == Path("/x/disbatch/config.toml")
    assert config_path({"HOME": "/h", "XDG_CONFIG_HOME": "x"}) == Path("/h/.config/disbatch/config.toml")
    assert config_path({"HOME": "/h", "XDG_CONFIG_HOME": "/x", "DISBATCH_CONFIG": "/c"}) == Path("/c")


def _environ(tmp_path: Path, text: str | None) -> dict[str, str]:
    path = tmp_path / "config.toml"
    if text is not None:
        path.write_text(text)
    return {"DISBATCH_CONFIG": str(path)}


def test_no_file_is_no_configuration(tmp_path: Path) -> None:
    assert read_config({"HOME": str(tmp_path)}) == Config()
    with pytest.raises(UsageError, match="no such file"):
        read_config(_environ(tmp_path, None))


def test_a_home_of_somebody_else_is_no_configuration(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert read_config({"HOME": str(tmp_path / "file")}) == Config()
    home = tmp_path / "home"
    home.mkdir(mode=0)
    me = os.geteuid()
    try:
        if me == 0:
            os.seteuid(65534)
        assert read_config({"HOME": str(home)}) == Config()
        with pytest.raises(UsageError, match="denied"):
            read_config({"DISBATCH_CONFIG": str(home / "config.toml")})
    finally:
        os.seteuid(me)


def test_reading(tmp_path: Path) -> None:
    assert read_config(_environ(tmp_path, "python = '/p'\n")) == Config("/p", None)
    assert read_config(_environ(tmp_path, "package_path = '/q'\n")) == Config(None, "/q")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("pyhton = '/p'\n", "unknown key 'pyhton'; the keys are python, package_path"),
        ("[python]\nx = 1\n", "python must be an absolute path"),
        ("python = 3\n", "python must be an absolute path"),
        ("python = 'python3'\n", "python must be an absolute path"),
        ("python = \n", "config.toml: "),
        ("x" * (1 << 20) + "x", "too large"),
    ],
)
def test_wrong_files_give_one_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_config(_environ(tmp_path, text))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="not UTF-8"):
        read_config({"DISBATCH_CONFIG": str(tmp_path / "config.toml")})
    with pytest.raises(UsageError, match="directory"):
        read_config({"DISBATCH_CONFIG": str(tmp_path)})


def test_fixing_paths_in_a_new_file(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path)}
    lines = fix_paths(environ)
    path = tmp_path / ".config" / "disbatch" / "config.toml"
    assert lines[0] == f"wrote {path}:"
    assert sys.executable in lines[1]
    assert read_config(environ) == Config(sys.executable, package_path())
    assert path.stat().st_mode & 0o777 == 0o644
    assert os.listdir(path.parent) == ["config.toml"]


def test_fixing_paths_keeps_the_rest(tmp_path: Path) -> None:
    text = "# mine\nother = 1\npython = '/old'  # once\n\n[table]\npython = 'mine too'\n"
    environ = _environ(tmp_path, text)
    fix_paths(environ)
    after = (tmp_path / "config.toml").read_text()
    assert tomllib.loads(after) == {
        "other": 1,
        "python": sys.executable,
        "package_path": package_path(),
        "table": {"python": "mine too"},
    }
    assert "# mine\n" in after
    fix_paths(environ)
    assert (tmp_path / "config.toml").read_text() == after


def test_fixing_paths_keeps_a_link(tmp_path: Path) -> None:
    (tmp_path / "dotfile").write_text("")
    (tmp_path / "config.toml").symlink_to("dotfile")
    fix_paths({"DISBATCH_CONFIG": str(tmp_path / "config.toml")})
    assert (tmp_path / "config.toml").is_symlink()
    assert "python" in (tmp_path / "dotfile").read_text()


@pytest.mark.parametrize("text", ["python = '''\n/a'''\n", 'x = """\npython = "/b"\n"""\n', "= broken"])
def test_files_that_cannot_be_changed_safely_stay_as_they_are(tmp_path: Path, text: str) -> None:
    environ = _environ(tmp_path, text)
    with pytest.raises(UsageError):
        fix_paths(environ)
    assert (tmp_path / "config.toml").read_text() == text
    assert os.listdir(tmp_path) == ["config.toml"]


def test_no_place_to_write(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError):
        fix_paths({"DISBATCH_CONFIG": str(tmp_path / "file" / "config.toml")})
