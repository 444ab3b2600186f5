"""Files of tasks: histories of attempts that find each other's files, and what stands where at the end."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Any

import pytest

from disbatch.engine.liveness import DriverLease
from disbatch.engine.output_files import MOST_OPEN, OutputDirectory, prepare
from disbatch.engine.output_writer import Done
from disbatch.model.output import aside, left_out, parse_aside, place
from disbatch.model.pack import End, Piece

TASK = 13999
OUT, ERR = "000/013/000013999.out", "000/013/000013999.err"


class Engine:
    """The directory of one engine; `doubt`: it may have been given up."""

    def __init__(self, directory: Path, name: str = "engine") -> None:
        self.name = name
        self.doubt = False
        self.errors: list[OSError] = []
        self.directory = OutputDirectory(
            os.fsencode(directory), name, lambda begun: not self.doubt, self.errors.append
        )
        self.totals: dict[int, list[int]] = {}

    def print(self, attempt: int, out: bytes = b"", err: bytes = b"") -> None:
        totals = self.totals.setdefault(attempt, [0, 0])
        for stream, data in enumerate((out, err)):
            if data:
                self.directory.write([Piece(TASK, attempt, stream, totals[stream], data)])
                totals[stream] += len(data)

    def end(self, attempt: int, own: bool = True, finish: float = 1234.5) -> None:
        out, err = self.totals.pop(attempt, [0, 0])
        how = End(0.0, finish, 1, 0, 0, out, err)
        self.directory.write([Done(TASK, attempt, how, own, 0.0)])


def files(directory: Path) -> dict[str, bytes]:
    """All files below the directory."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize(
    ("task", "path"),
    [
        (0, "000/000/000000000.out"),
        (13999, "000/013/000013999.out"),
        (999_999, "000/999/000999999.out"),
        (1_000_000, "001/000/001000000.out"),
        (12_345_678_901, "12345/678/12345678901.out"),
    ],
)
def test_places(task: int, path: str) -> None:
    assert place(task, 0) == path
    name = aside(task, 1, "3-ab.c.7", 42)
    assert name == f"{path[:-3]}err.3-ab.c.7.42"
    assert parse_aside(name.rpartition("/")[2]) == (task, 1, "3-ab.c.7", 42)
    assert parse_aside(path.rpartition("/")[2]) is None


def test_a_task_makes_the_files_that_it_needs(tmp_path: Path) -> None:
    engine = Engine(tmp_path)
    engine.end(1)
    assert list(tmp_path.iterdir()) == []
    engine.print(2, out=b"one\n")
    engine.print(2, out=b"two\n")
    assert files(tmp_path) == {OUT: b"one\ntwo\n"}
    engine.end(2)
    assert files(tmp_path) == {OUT: b"one\ntwo\n"}
    assert not engine.errors and not engine.directory._files


A, B = "a", "b"
"""Two engines; attempts are numbered by when they begin."""

HISTORIES: dict[str, tuple[list[tuple[Any, ...]], dict[str, bytes]]] = {
    "a killed attempt's files are replaced at the end of the next one": (
        [(A, "print", b"part", b""), (B, "print", b"whole", b""), (B, "end")],
        {OUT: b"whole"},
    ),
    "until then they stay": (
        [(A, "print", b"part", b""), (B, "print", b"who", b"")],
        {OUT: b"part", OUT + ".b.2": b"who"},
    ),
    "no stderr of one beside the stdout of another": (
        [(A, "print", b"part", b"error"), (B, "print", b"whole", b""), (B, "end")],
        {OUT: b"whole"},
    ),
    "not while it runs either": (
        [(A, "print", b"", b"error"), (B, "print", b"who", b"")],
        {ERR: b"error", OUT + ".b.2": b"who"},
    ),
    "one that prints nothing clears the place": (
        [(A, "print", b"part", b"error"), (B, "end")],
        {},
    ),
    "both streams change at once": (
        [(A, "print", b"x", b"y"), (B, "print", b"X", b"Y"), (B, "end")],
        {OUT: b"X", ERR: b"Y"},
    ),
    "what is ended by order replaces nothing": (
        [(A, "print", b"whole", b""), (A, "end"), (B, "print", b"part", b"e"), (B, "ordered")],
        {OUT: b"whole", OUT + ".b.2": b"part", ERR + ".b.2": b"e"},
    ),
    "but stays, if it is all there is": (
        [(A, "print", b"part", b""), (A, "ordered")],
        {OUT: b"part"},
    ),
    "the second of two at once counts, the first ends before it": (
        [
            (A, "print", b"a1", b""),
            (A, "doubt"),
            (B, "print", b"b", b""),
            (A, "print", b"a2", b""),
            (A, "end"),
            (B, "end"),
        ],
        {OUT: b"b"},
    ),
    "the first ends after it, and writes into nothing": (
        [
            (A, "print", b"a1", b""),
            (A, "doubt"),
            (B, "print", b"b", b""),
            (B, "end"),
            (A, "print", b"a2", b""),
            (A, "end"),
        ],
        {OUT: b"b"},
    ),
    "the first prints only after the second did": (
        [(A, "doubt"), (B, "print", b"b", b""), (A, "print", b"a", b""), (B, "end"), (A, "end")],
        {OUT: b"b", OUT + ".a.1": b"a"},
    ),
    "the first prints to stderr after the second is over": (
        [
            (A, "print", b"", b""),
            (A, "doubt"),
            (B, "print", b"b", b""),
            (B, "end"),
            (A, "print", b"", b"a"),
            (A, "end"),
        ],
        {OUT: b"b", ERR + ".a.1": b"a"},
    ),
    "the first prints nothing, and must not clear the place": (
        [(A, "doubt"), (B, "print", b"b", b""), (B, "end"), (A, "end")],
        {OUT: b"b"},
    ),
    "the first comes back and counts after all, the second is ended": (
        [
            (A, "print", b"a1", b""),
            (A, "doubt"),
            (B, "print", b"b", b""),
            (B, "ordered"),
            (A, "print", b"a2", b""),
            (A, "end"),
        ],
        {OUT: b"a1a2", OUT + ".b.2": b"b"},
    ),
}


@pytest.mark.parametrize(("history", "left"), HISTORIES.values(), ids=list(HISTORIES))
def test_attempts_that_find_each_other(
    history: list[tuple[Any, ...]], left: dict[str, bytes], tmp_path: Path
) -> None:
    engines = {A: Engine(tmp_path, A), B: Engine(tmp_path, B)}
    attempts = {A: 1, B: 2}
    for who, what, *data in history:
        engine, attempt = engines[who], attempts[who]
        if what == "print":
            engine.print(attempt, *data)
        elif what == "doubt":
            engine.doubt = True
        else:
            engine.end(attempt, own=what == "end")
    assert files(tmp_path) == left
    assert not engines[A].errors and not engines[B].errors


def test_what_stays_aside_bears_the_time_of_its_end(tmp_path: Path) -> None:
    engine = Engine(tmp_path)
    engine.print(1, out=b"first")
    engine.end(1)
    engine.doubt = True
    engine.print(2, out=b"second")
    engine.end(2, finish=1700000000.123456)
    assert (tmp_path / (OUT + ".engine.2")).stat().st_mtime_ns == 1700000000_123456000
    assert (tmp_path / OUT).read_bytes() == b"first"


def test_gaps_are_marked(tmp_path: Path) -> None:
    engine = Engine(tmp_path)
    engine.directory.write([Piece(TASK, 1, 0, 0, b"head"), Piece(TASK, 1, 0, 100, b"tail")])
    engine.directory.write([Done(TASK, 1, End(0, 1, 1, 0, 0, 110, 0), True, 0.0)])
    assert files(tmp_path) == {OUT: b"head" + left_out(96) + b"tail" + left_out(6)}


def test_a_place_that_cannot_be_made_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    engine = Engine(tmp_path)
    (tmp_path / "000").write_bytes(b"a file of the user's")
    engine.print(1, out=b"lost")
    engine.end(1)
    assert [error.strerror for error in engine.errors[:1]] == ["is no directory"]
    engine.directory.write([Piece(1_000_000, 2, 0, 0, b"kept")])
    engine.directory.close()
    assert files(tmp_path) == {"000": b"a file of the user's", "001/000/001000000.out": b"kept"}


@pytest.mark.parametrize("level", ["000", "000/013"])
def test_a_directory_that_leads_elsewhere(tmp_path: Path, level: str) -> None:
    """Nothing is made, replaced or removed there."""
    theirs, directory = tmp_path / "theirs", tmp_path / "directory"
    (theirs / "013").mkdir(parents=True)
    before = {"013/000013999.out": b"kept", "000013999.out": b"kept"}
    for name, text in before.items():
        (theirs / name).write_bytes(text)
    (directory / level).parent.mkdir(parents=True)
    (directory / level).symlink_to(theirs)
    engine = Engine(directory)
    engine.print(1, out=b"lost", err=b"lost")
    engine.end(1)
    engine.end(2)
    engine.directory.close()
    assert {error.strerror for error in engine.errors} == {"is no directory"}
    assert files(theirs) == before


def test_a_link_that_somebody_laid_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    path = tmp_path / "dir" / OUT
    path.parent.mkdir(parents=True)
    path.symlink_to(victim)
    engine = Engine(tmp_path / "dir")
    engine.print(1, out=b"new")
    engine.end(1)
    assert victim.read_bytes() == b"precious"
    assert not path.is_symlink() and path.read_bytes() == b"new"


MANY = 200


def test_many_tasks_that_run_need_few_descriptors(tmp_path: Path) -> None:
    engine = Engine(tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    for turn in range(3):
        for attempt in range(MANY):
            engine.directory.write([Piece(attempt, attempt, 0, turn * 2, b"%d\n" % turn)])
            assert len(os.listdir("/proc/self/fd")) <= before + MOST_OPEN + 1
    for attempt in range(MANY):
        engine.directory.write([Done(attempt, attempt, End(0, 1, 1, 0, 0, 6, 0), True, 0.0)])
    assert len(os.listdir("/proc/self/fd")) == before
    assert files(tmp_path) == {place(task, 0): b"0\n1\n2\n" for task in range(MANY)}
    assert not engine.errors


def test_a_file_that_was_closed_and_replaced_is_not_written_into(tmp_path: Path) -> None:
    """Its attempt was given up, and the later one has taken the place meanwhile."""
    engine, other = Engine(tmp_path, "a"), Engine(tmp_path, "b")
    engine.print(1, out=b"first")
    engine.doubt = True
    for attempt in range(MOST_OPEN + 1):
        engine.directory.write([Piece(attempt, 100 + attempt, 0, 0, b"x")])
    other.print(2, out=b"other")
    other.end(2)
    engine.print(1, out=b" and more")
    engine.end(1)
    assert (tmp_path / OUT).read_bytes() == b"other"
    assert not engine.errors
    engine.directory.close()


def test_without_descriptors_output_is_kept_all_the_same(tmp_path: Path) -> None:
    engine = Engine(tmp_path)
    engine.print(1, out=b"one")
    engine.directory.write([Piece(5, 5, 0, 0, b"five")])
    taken: list[int] = []
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 50, limits[1]))
    try:
        with pytest.raises(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        engine.print(1, out=b" and two")
        engine.print(1, err=b"error")
        engine.directory.write([Piece(7, 7, 0, 0, b"seven"), Done(7, 7, End(0, 1, 1, 0, 0, 5, 0), True, 0.0)])
        engine.directory.write([Piece(5, 5, 0, 10, b"end")])
        engine.end(1)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for descriptor in taken:
            os.close(descriptor)
    assert not engine.errors
    assert files(tmp_path) == {
        OUT: b"one and two",
        ERR: b"error",
        place(7, 0): b"seven",
        place(5, 0): b"five" + left_out(6) + b"end",
    }
    engine.directory.close()


def test_prepare(tmp_path: Path) -> None:
    prepare(os.fsencode(tmp_path / "a" / "b"), "me")
    assert list((tmp_path / "a" / "b").iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(OSError):
        prepare(os.fsencode(tmp_path / "file"), "me")


# ---- doubt ----


class Clock:
    """Time, and when the driver was last heard."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.heard = 1000.0

    def lease(self) -> DriverLease:
        return DriverLease(lambda: self.now, lambda: self.now - self.heard)

    def live(self, lease: DriverLease, seconds: float, *, heard: bool = True) -> None:
        """A while with a heartbeat of 3 s."""
        end = self.now + seconds
        while self.now + 3 <= end:
            self.now += 3
            if heard:
                self.heard = self.now
            lease.tick()
        self.now = end


def test_no_doubt_while_the_driver_answers() -> None:
    clock = Clock()
    lease = clock.lease()
    assert lease.certain(clock.now)
    lease.welcomed(15.0, 3.0)
    clock.live(lease, 1000)
    assert lease.certain(999.0) and lease.certain(clock.now)


@pytest.mark.parametrize(("silence", "certain"), [(6, True), (9, True), (12, False), (30, False)])
def test_silence_makes_doubt_of_what_ran_meanwhile(silence: int, certain: bool) -> None:
    clock = Clock()
    lease = clock.lease()
    lease.welcomed(15.0, 3.0)
    begun = clock.now
    clock.live(lease, silence, heard=False)
    assert lease.certain(begun) == certain
    clock.live(lease, 30)
    assert lease.certain(begun) == certain, "for good"
    assert lease.certain(clock.now)


def test_a_short_break_makes_no_doubt_unless_the_driver_has_forgotten_us() -> None:
    clock = Clock()
    lease = clock.lease()
    lease.welcomed(15.0, 3.0)
    begun = clock.now
    clock.live(lease, 3)
    clock.live(lease, 6, heard=False)
    clock.heard = clock.now
    lease.welcomed(15.0, 3.0)
    assert lease.certain(begun)
    lease.forgotten()
    lease.welcomed(15.0, 3.0)
    assert not lease.certain(begun)
    clock.live(lease, 3)
    assert lease.certain(clock.now)


def test_a_greeting_after_the_process_was_stopped_makes_doubt() -> None:
    clock = Clock()
    lease = clock.lease()
    lease.welcomed(15.0, 3.0)
    begun = clock.now
    clock.now += 60
    clock.heard = clock.now
    lease.welcomed(15.0, 3.0)
    assert not lease.certain(begun)


def test_an_engine_that_was_stopped_is_in_doubt_before_its_next_heartbeat() -> None:
    clock = Clock()
    lease = clock.lease()
    lease.welcomed(15.0, 3.0)
    begun = clock.now
    clock.now += 60
    clock.heard = clock.now  # what had come before is read first
    assert not lease.certain(begun)
    lease.tick()
    assert not lease.certain(begun)
    clock.live(lease, 6)
    assert lease.certain(clock.now)
