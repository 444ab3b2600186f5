"""The status file's writer: order, marks, and a file that refuses to be written, as injected descriptors."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from deadline import DEADLINE
from disbatch.driver.status_writer import StatusWriter
from disbatch.rundir.paths import Renamed, RunFiles
from disbatch.rundir.takeover import seize
from disbatch.wire.renamed_files import Sight

SOON = DEADLINE


def run(course: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(SOON):
            await course

    asyncio.run(bounded())


class Happenings:
    """What a StatusWriter told, as it told it."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.changed = asyncio.Event()

    def add(self, text: str) -> None:
        self.told.append(text)
        self.changed.set()

    async def until(self, text: str, count: int = 1) -> None:
        while self.told.count(text) < count:
            self.changed.clear()
            await self.changed.wait()


def opened(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def record(happenings: Happenings, descriptor: int, offset: int = 0) -> StatusWriter:
    return StatusWriter(
        asyncio.get_running_loop(),
        descriptor,
        offset,
        trouble=lambda error: happenings.add(errno.errorcode[error.errno or 0]),
        recovered=lambda: happenings.add("recovered"),
    )


def test_lines_and_marks_in_order(tmp_path: Path) -> None:
    path = tmp_path / "status"

    async def course() -> None:
        happenings = Happenings()
        writer = record(happenings, opened(path))
        seen: list[bytes] = []
        for number in range(1000):
            writer.add(b"%d\n" % number)
            if number % 100 == 99:
                writer.mark(lambda: seen.append(path.read_bytes()))
        writer.mark(lambda: happenings.add("all"))
        await happenings.until("all")
        assert len(seen) == 10 and all(text.endswith(b"999\n") for text in seen)
        assert await writer.close() == b""

    run(course())
    assert path.read_bytes() == b"".join(b"%d\n" % number for number in range(1000))


class Kept:
    """A StatusWriter whose file has a name: `path`, its present one. `unknown`: what the system answers."""

    def __init__(
        self, path: Path, happenings: Happenings, note: Callable[[Path], object] = lambda path: None
    ) -> None:
        self.path = path
        self.unknown: int | None = None
        self.taken_over = False
        self._happenings = happenings
        descriptor = opened(path)
        self.record = StatusWriter(
            asyncio.get_running_loop(),
            descriptor,
            path.stat().st_size,
            trouble=lambda error: happenings.add(errno.errorcode[error.errno or 0]),
            recovered=lambda: happenings.add("recovered"),
            path=path,
            is_taken_over=self._is_taken_over,
            taken_over=lambda: happenings.add("taken over"),
            renamed=self._renamed,
            note=note,
        )

    def _is_taken_over(self) -> bool:
        if self.unknown is not None:
            raise OSError(self.unknown, os.strerror(self.unknown))
        return self.taken_over

    def _renamed(self, sight: Sight, path: Path) -> None:
        self.path = path
        self._happenings.add(sight.name)

    async def add(self, line: bytes) -> None:
        """Until it is safe."""
        self.record.add(line)
        self.record.mark(lambda: self._happenings.add(line.decode()))
        await self._happenings.until(line.decode())


def removed(path: Path) -> None:
    path.unlink()


def renamed(path: Path) -> None:
    path.rename(path.with_name("theirs"))


def replaced(path: Path) -> None:
    path.with_name("theirs").write_text("theirs\n")
    path.with_name("theirs").replace(path)


def linked(path: Path) -> None:
    path.with_name("link").symlink_to("nowhere")
    path.with_name("link").replace(path)


@pytest.mark.parametrize("how", [removed, renamed, replaced, linked])
@pytest.mark.parametrize("when", ["line", "look", "end"])
def test_file_that_lost_its_name(tmp_path: Path, how: Callable[[Path], None], when: str) -> None:
    path = tmp_path / "P_status.txt"
    path.write_text("former\n")
    text = b"former\none\n"

    async def course() -> None:
        nonlocal text
        happenings = Happenings()
        kept = Kept(path, happenings)
        await kept.add(b"one\n")
        how(path)
        if when == "line":
            await kept.add(b"two\n")
            text += b"two\n"
        elif when == "look":
            kept.record.look()
        if when != "end":
            await happenings.until("ANOTHER" if how is replaced else "NOTHING")
            assert kept.path.read_bytes() == text
        assert await kept.record.settle() == b""
        assert kept.path.read_bytes() == text
        kept.path.unlink()
        assert await kept.record.close() == b""
        await happenings.until("NOTHING", 1 if how is replaced else 2)
        assert kept.path.read_bytes() == text
        assert kept.path == (path if how in (removed, renamed) else tmp_path / "P-2_status.txt")

    run(course())
    if how is replaced:
        assert path.read_text() == "theirs\n"
    if how is linked:
        assert not (tmp_path / "nowhere").exists()
    assert not list(tmp_path.glob("*.again"))


@pytest.mark.parametrize("how", [removed, renamed, replaced, linked])
def test_new_name_is_noted_before_the_file_has_it(tmp_path: Path, how: Callable[[Path], None]) -> None:
    """So a driver that is killed in between leaves a note and the whole text: who takes the run over ends the
    naming. One that cannot note it gives no name."""
    path = tmp_path / "P_status.txt"
    path.write_text("former\n")
    noted: list[tuple[Path, bool, bytes]] = []

    def note(name: Path) -> None:
        again = name.with_name(name.name + ".again")
        noted.append((name, os.path.lexists(name), again.read_bytes() if again.exists() else b""))
        if len(noted) == 1:
            shutil.copy(again, tmp_path / "left")  # as by a kill at this point
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    async def course() -> None:
        happenings = Happenings()
        kept = Kept(path, happenings, note)
        await kept.add(b"one\n")
        how(path)
        kept.record.look()
        await happenings.until("EIO")
        now = path if how in (removed, renamed) else tmp_path / "P-2_status.txt"
        assert noted == [(now, False, b"former\none\n"), (path, how is replaced or how is linked, b"")]
        await happenings.until("recovered")
        assert noted[2:] == [(now, False, b"former\none\n")] and kept.path == now
        assert await kept.record.close() == b""
        now.unlink()
        (tmp_path / "left").rename(now.with_name(now.name + ".again"))
        descriptor = seize(RunFiles(tmp_path / "P", path, renamed=Renamed(status=now)))
        assert os.pread(descriptor, 100, 0) == now.read_bytes() == b"former\none\n"
        os.close(descriptor)

    run(course())
    assert not list(tmp_path.glob("*.again"))


@pytest.mark.parametrize("text", [b"", b"theirs\n", b"theirs\n" * 100])
def test_file_that_somebody_wrote_over(tmp_path: Path, text: bytes) -> None:
    """Their text stays, and what follows is whole, in another file."""
    path = tmp_path / "P_status.txt"

    async def course() -> None:
        happenings = Happenings()
        kept = Kept(path, happenings)
        await kept.add(b"one\n")
        assert await kept.record.settle() == b""
        path.write_bytes(text)
        await kept.add(b"two\n")
        await happenings.until("OVERWRITTEN")
        await kept.add(b"three\n")
        assert await kept.record.close() == b""
        assert kept.path == tmp_path / "P-2_status.txt"
        assert kept.path.read_bytes() == b"two\nthree\n"
        assert happenings.told.count("OVERWRITTEN") == 1

    run(course())
    assert path.read_bytes() == text


def test_nothing_is_safe_while_the_file_system_does_not_say_whose_the_run_is(tmp_path: Path) -> None:
    path = tmp_path / "P_status.txt"

    async def course() -> None:
        happenings = Happenings()
        kept = Kept(path, happenings)
        await kept.add(b"one\n")
        kept.unknown = errno.EIO
        kept.record.add(b"two\n")
        kept.record.mark(lambda: happenings.add("two is safe"))
        await happenings.until("EIO")
        assert "two is safe" not in happenings.told
        kept.unknown = None
        await happenings.until("recovered")
        await happenings.until("two is safe")
        assert await kept.record.close() == b""
        assert happenings.told == ["one\n", "EIO", "recovered", "two is safe"]

    run(course())
    assert path.read_bytes() == b"one\ntwo\n"


def test_another_driver_has_the_run(tmp_path: Path) -> None:
    path = tmp_path / "P_status.txt"

    async def course() -> None:
        happenings = Happenings()
        kept = Kept(path, happenings)
        await kept.add(b"one\n")
        kept.taken_over = True
        replaced(path)
        kept.record.add(b"two\n")
        kept.record.mark(lambda: happenings.add("two is safe"))
        await happenings.until("taken over")
        assert await kept.record.close() == b""
        assert happenings.told == ["one\n", "taken over"]

    run(course())
    assert path.read_text() == "theirs\n" and len(list(tmp_path.iterdir())) == 1


def test_directory_that_is_gone_is_waited_for_until_nobody_waits(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()

    async def course() -> None:
        happenings = Happenings()
        kept = Kept(folder / "P_status.txt", happenings)
        await kept.add(b"one\n")
        folder.rename(tmp_path / "away")
        kept.record.add(b"two\n")
        await happenings.until("ENOENT")
        folder.mkdir()
        await happenings.until("recovered")
        assert kept.path.read_bytes() == b"one\ntwo\n"
        folder.rename(tmp_path / "away too")
        kept.record.add(b"three\n")
        await happenings.until("ENOENT", 2)
        kept.record.abandon()
        assert await kept.record.close() == b""
        await happenings.until("NOTHING", 2)
        assert kept.path.read_bytes() == b"one\ntwo\nthree\n"
        shutil.rmtree(kept.path.parent)

    run(course())


def test_nothing_before_the_offset_is_touched(tmp_path: Path) -> None:
    path = tmp_path / "status"
    path.write_bytes(b"former\ntorn")

    async def course() -> None:
        writer = record(Happenings(), opened(path), len(b"former\n"))
        writer.add(b"new line\n")
        await writer.close()

    run(course())
    assert path.read_bytes() == b"former\nnew line\n"


def test_descriptor_is_closed(tmp_path: Path) -> None:
    descriptor = opened(tmp_path / "status")

    async def course() -> None:
        assert await record(Happenings(), descriptor).close() == b""

    run(course())
    try:
        os.fstat(descriptor)
    except OSError as error:
        assert error.errno == errno.EBADF
    else:
        raise AssertionError("still open")


def refusing_then(path: Path, repair: Callable[[int], None]) -> None:
    """A descriptor that cannot be written until `repair` is called for it; every line must arrive once."""

    async def course() -> None:
        happenings = Happenings()
        path.touch()
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        writer = record(happenings, descriptor)
        writer.add(b"one\n")
        writer.mark(lambda: happenings.add("one is safe"))
        await happenings.until("EBADF")
        writer.add(b"two\n")
        assert "one is safe" not in happenings.told
        repair(descriptor)
        await happenings.until("recovered")
        await happenings.until("one is safe")
        writer.add(b"three\n")
        assert await writer.close() == b""
        assert happenings.told.count("EBADF") == happenings.told.count("recovered") == 1

    run(course())
    assert path.read_bytes() == b"one\ntwo\nthree\n"


def test_goes_on_when_the_file_can_be_written_again(tmp_path: Path) -> None:
    path = tmp_path / "status"

    def repair(descriptor: int) -> None:
        good = opened(path)
        os.dup2(good, descriptor, inheritable=False)
        os.close(good)

    refusing_then(path, repair)


def test_full_file_keeps_the_rest_and_abandons(tmp_path: Path) -> None:
    """/dev/full takes no byte; what it did not take is given back, in order."""

    async def course() -> None:
        happenings = Happenings()
        writer = record(happenings, os.open("/dev/full", os.O_RDWR | os.O_CLOEXEC))
        for number in range(10):
            writer.add(b"%d\n" % number)
        writer.mark(lambda: happenings.add("safe"))
        await happenings.until("ENOSPC")
        closing = asyncio.create_task(writer.close())
        writer.abandon()
        assert await closing == b"".join(b"%d\n" % number for number in range(10))
        assert happenings.told == ["ENOSPC"]

    run(course())


def test_descriptor_that_cannot_be_placed_in() -> None:
    """Somebody made the status file a pipe."""

    async def course() -> None:
        reader, writer_end = os.pipe2(os.O_CLOEXEC)
        happenings = Happenings()
        writer = record(happenings, writer_end)
        writer.add(b"line\n")
        await happenings.until("ESPIPE")
        writer.abandon()
        assert await writer.close() == b"line\n"
        os.close(reader)

    run(course())


def test_file_that_may_not_grow(tmp_path: Path) -> None:
    """A sealed memory file takes what fits and refuses the rest: no byte is lost or doubled."""
    descriptor = os.memfd_create("status", os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, 10)
    watch = os.dup(descriptor)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW)

    async def course() -> None:
        happenings = Happenings()
        writer = record(happenings, descriptor)
        writer.add(b"0123\n5678\n")
        writer.mark(lambda: happenings.add("first"))
        await happenings.until("first")
        writer.add(b"too much\n")
        writer.mark(lambda: happenings.add("second"))
        await happenings.until("EPERM")
        writer.abandon()
        rest = await writer.close()
        assert rest.endswith(b"too much\n") and b"0123\n5678\n".endswith(rest.removesuffix(b"too much\n"))
        assert "second" not in happenings.told

    run(course())
    assert os.pread(watch, 100, 0) == b"0123\n5678\n"
    os.close(watch)


def test_failing_fsync_writes_everything_since_the_last_good_one_again(tmp_path: Path) -> None:
    """/dev/null takes bytes and refuses fsync: as a network file system that threw the data away."""
    path = tmp_path / "status"

    async def course() -> None:
        happenings = Happenings()
        descriptor = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        writer = record(happenings, descriptor)
        for number in range(5):
            writer.add(b"%d\n" % number)
        writer.mark(lambda: happenings.add("written"))
        await happenings.until("written")
        await happenings.until("EINVAL")
        good = opened(path)
        os.dup2(good, descriptor, inheritable=False)
        os.close(good)
        await happenings.until("recovered")
        assert await writer.close() == b""

    run(course())
    assert path.read_bytes() == b"0\n1\n2\n3\n4\n"
