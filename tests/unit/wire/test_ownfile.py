"""Files whose names follow from others: regular ones of our own user, and never a wait."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from disbatch.wire.ownfile import NotOwnError, is_foreign, make_own_directory, open_own, read_own

APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT


def link(path: Path) -> None:
    path.with_name("target").write_text("mine\n")
    path.symlink_to("target")


def dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def pipe(path: Path) -> None:
    os.mkfifo(path)


def directory(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR, APPEND])
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (link, "is a symbolic link"),
        (dangling, "is a symbolic link"),
        (pipe, "is not a regular file"),
        (directory, "is not a regular file|Is a directory"),
    ],
)
def test_what_is_no_file(tmp_path: Path, make: Callable[[Path], None], says: str, flags: int) -> None:
    make(tmp_path / "name")
    with pytest.raises(OSError, match=says):
        open_own(tmp_path / "name", flags)
    assert not (tmp_path / "nowhere").exists()
    assert make is not link or (tmp_path / "target").read_text() == "mine\n"


def test_our_own(tmp_path: Path) -> None:
    for text in (b"a", b"b"):
        with os.fdopen(open_own(tmp_path / "name", APPEND), "wb") as file:
            file.write(text)
    assert read_own(tmp_path / "name", 10) == b"ab" and read_own(tmp_path / "name", 1) == b"a"
    assert not is_foreign(tmp_path / "name")
    with pytest.raises(FileNotFoundError):
        open_own(tmp_path / "other", os.O_RDONLY)


def another_user(path: Path) -> int:
    """Give the file to somebody else, if we may."""
    if os.geteuid():
        pytest.skip("not root") if os.environ.get("CI") != "true" else pytest.fail("not root")
    os.chown(path, 65534, -1)
    return 65534


@pytest.mark.parametrize("mode", [0o600, 0o666])
def test_another_users(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "name"
    path.write_text("theirs")
    path.chmod(mode)
    owner = another_user(path)
    for flags in (os.O_RDONLY, APPEND):
        with pytest.raises(NotOwnError, match="belongs to another user"):
            open_own(path, flags)
    assert is_foreign(path) and not is_foreign(path, trusted=owner)
    assert read_own(path, 10, trusted=owner) == b"theirs"
    assert [each.name for each in tmp_path.iterdir()] == ["name"]


def test_directories(tmp_path: Path) -> None:
    make_own_directory(bytes(tmp_path / "a"))
    make_own_directory(bytes(tmp_path / "a"))
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(NotOwnError, match="is no directory"):
        make_own_directory(bytes(tmp_path / "b"))
    another_user(tmp_path / "a")
    with pytest.raises(NotOwnError, match="belongs to another user"):
        make_own_directory(bytes(tmp_path / "a"))
    os.chown(tmp_path, 65534, -1)  # whose the directory around it is, too, which we were told to use
    make_own_directory(bytes(tmp_path / "a"))
