"""rundir/statusfile.py: whole lines in blocks, forwards and backwards, and what is no status file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disbatch.model.errors import ResumeError, UsageError
from disbatch.rundir import statusfile
from disbatch.rundir.statusfile import OpenStatusFile, blocks, blocks_before

LINES = st.lists(st.binary(max_size=30).map(lambda line: line.replace(b"\n", b".") + b"\n"), max_size=20)


@pytest.fixture
def descriptor(tmp_path: Path) -> Iterator[int]:
    opened = os.open(tmp_path / "s", os.O_RDWR | os.O_CREAT)
    yield opened
    os.close(opened)


@given(lines=LINES, torn=st.binary(max_size=9), size=st.integers(1, 50))
def test_every_line_once_from_both_ends(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], torn: bytes, size: int
) -> None:
    path = tmp_path_factory.mktemp("s") / "s"
    torn = torn.replace(b"\n", b".")
    whole = b"".join(lines)
    path.write_bytes(whole + torn)
    with OpenStatusFile(str(path), "") as file:
        found = list(file.blocks(size=size))
        assert b"".join(block for _, block in found) == whole and file.torn is bool(torn)
        assert all(whole[at : at + len(block)] == block for at, block in found)
        assert all(block.endswith(b"\n") for _, block in found)
        assert [line + b"\n" for _, line in file.lines()] == lines
        assert all(whole.startswith(line + b"\n", at) for at, line in file.lines())
        back = list(blocks_before(file.descriptor, len(whole + torn), size))
        assert b"".join(block for _, block in reversed(back)) == whole + torn
        starts = {0, *(at + 1 for at, byte in enumerate(whole) if byte == 10)}
        assert all(block for _, block in back)
        assert all(at in starts and (whole + torn)[at : at + len(block)] == block for at, block in back)


def test_a_part_of_a_file(descriptor: int) -> None:
    os.write(descriptor, b"one\ntwo\nthree\n")
    assert list(blocks(descriptor, 4, 8)) == [(4, b"two\n")]
    assert list(blocks(descriptor, 4, 10)) == [(4, b"two\n")]
    assert list(blocks(descriptor, 8)) == [(8, b"three\n")]
    assert list(blocks(descriptor, 14)) == []
    assert list(blocks_before(descriptor, 8)) == [(0, b"one\ntwo\n")]


class Text(bytes):
    """Counts the bytes that are copied when it is cut or searched."""

    seen = 0

    def __getitem__(self, at: object) -> bytes:
        part = super().__getitem__(at)  # type: ignore[index]
        Text.seen += len(part) if isinstance(part, bytes) else 1
        return part

    def find(self, *args: object) -> int:
        Text.seen += len(self)
        return super().find(*args)  # type: ignore[arg-type]

    def rfind(self, *args: object) -> int:
        Text.seen += len(self)
        return super().rfind(*args)  # type: ignore[arg-type]


@pytest.mark.parametrize("walk", ["forwards", "backwards"])
def test_a_very_long_line_is_read_once(monkeypatch: pytest.MonkeyPatch, walk: str) -> None:
    """64 MiB in 64 kB: joined at each read it would be copied 500 times."""
    size, step = 64 << 20, 1 << 16
    line = memoryview(b"x" * (size - 1) + b"\n")
    reads: list[int] = []

    class Os:
        @staticmethod
        def pread(descriptor: int, count: int, at: int) -> bytes:
            text = Text(line[at : at + count])
            reads.append(len(text))
            return text

    monkeypatch.setattr(statusfile, "os", Os)
    monkeypatch.setattr(Text, "seen", 0)
    found = blocks(0, size=step) if walk == "forwards" else blocks_before(0, size, step)
    assert [(at, len(block)) for at, block in found] == [(0, size)]
    assert sum(reads) == size, "each byte is read once"
    assert Text.seen <= 3 * size, "searched once, and cut where the line ends"


def test_a_line_that_never_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statusfile, "LONGEST_LINE", 100)
    (tmp_path / "s").write_bytes(b"one\n" + bytes(200) + b"\ntwo\n")
    with (
        OpenStatusFile(str(tmp_path / "s"), "", ResumeError) as file,
        pytest.raises(ResumeError, match=r"s: is not a status file: a line of it never ends$"),
    ):
        list(file.blocks(size=10))
    with OpenStatusFile(str(tmp_path / "s"), "") as file:
        back = list(blocks_before(file.descriptor, 209, 10))
    assert back[0] == (205, b"two\n") and back[-1][1].startswith(b"one\n")
    assert max(len(block) for _, block in back) <= 120


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, words in (
        ("none", "none: cannot be read: no such file or directory"),
        ("", "is a directory; a purpose"),
        ("pipe", "pipe: is not a regular file; a purpose"),
    ):
        with pytest.raises(UsageError, match=words):
            OpenStatusFile(str(tmp_path / name), "a purpose")
