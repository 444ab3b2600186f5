"""A run's keys and the file that tells them to those who may know."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from disbatch.model.errors import UsageError
from disbatch.wire.connect import ConnectFile, RunKeys


def connect_file() -> ConnectFile:
    keys = RunKeys.generate()
    return ConnectFile(
        1,
        "J1",
        "here",
        7,
        1.5,
        ["ipc:///x"],
        keys.server_key,
        keys.server_secret,
        keys.client_key,
        keys.client_secret,
        "/status",
        "/work",
    )


def test_keys_are_fresh_and_not_shown() -> None:
    one, two = RunKeys.generate(), RunKeys.generate()
    values = {one.server_key, one.server_secret, one.client_key, one.client_secret, two.client_secret}
    assert len(values) == 5 and {len(value) for value in values} == {40}
    assert not any(value in repr(one) for value in values)


def test_comes_back_as_written_and_is_nobody_elses(tmp_path: Path) -> None:
    path, file = tmp_path / "connect.json", connect_file()
    file.write(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert ConnectFile.read(path) == file


def test_overwrites_nothing(tmp_path: Path) -> None:
    path = tmp_path / "connect.json"
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        connect_file().write(path)
    assert not (tmp_path / "elsewhere").exists()


def test_a_named_pipe_is_no_connect_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "connect.json")
    with pytest.raises(UsageError, match=r"connect.json: is not a regular file"):
        ConnectFile.read(tmp_path / "connect.json")
    writer = os.open(tmp_path / "connect.json", os.O_RDWR)
    with pytest.raises(UsageError, match=r"connect.json: "):
        ConnectFile.read(tmp_path / "connect.json")
    os.close(writer)


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff\xfe", b'{"protocol": "x"}', b"[" * 100_000])
def test_what_is_no_connect_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "connect.json"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"connect.json: not a connect file"):
        ConnectFile.read(path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        ConnectFile.read(tmp_path / "none")
