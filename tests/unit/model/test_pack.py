"""The pack: what was written is read again, whatever was torn off, damaged or printed by the tasks."""

from __future__ import annotations

import json
import os
import random
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from disbatch.engine.output_packs import PackWriter
from disbatch.engine.output_writer import Done
from disbatch.model import pack
from disbatch.model.output import left_out
from disbatch.model.pack import About, End, Header, Piece
from disbatch.rundir.saved_packs import Pack

ABOUT = About("/home/me/run", "node1.example", "0-0123456789abcdef")
HOW = End(5.25, 6.5, 99, 3, 0, 0, 0)


def stem(directory: Path) -> Path:
    (path,) = directory.glob("*.pack")
    return path


class Written:
    """Attempts written through the engine's own code; what each printed, by attempt and stream."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        self.directory = directory
        self.errors: list[OSError] = []
        self.packs = PackWriter(os.fsencode(directory), ABOUT, self.errors.append)
        self.printed: dict[int, list[bytes]] = {}

    def print(self, attempt: int, stream: int, data: bytes) -> Piece:
        """The next piece of that attempt, whose task's number is ten times the attempt's."""
        streams = self.printed.setdefault(attempt, [b"", b""])
        piece = Piece(attempt * 10, attempt, stream, len(streams[stream]), data)
        streams[stream] += data
        return piece

    def end(self, attempt: int) -> Done:
        out, err = self.printed.setdefault(attempt, [b"", b""])
        how = HOW._replace(pid=attempt, out_bytes=len(out), err_bytes=len(err))
        return Done(attempt * 10, attempt, how, True, 0.0)

    def path(self) -> Path:
        self.packs.close()
        return stem(self.directory)


def read(path: Path, attempt: int, stream: int) -> tuple[bytes, End | None]:
    """What the reader makes of it."""
    opened = Pack.open(path)
    assert opened is not None
    try:
        found = opened.find({attempt * 10})
        if (attempt * 10, attempt) not in found:
            return b"", None
        known = opened.attempt(found[attempt * 10, attempt])
        assert known is not None
        return b"".join(known.printed(stream).blocks()), known.end
    finally:
        opened.close()


def test_what_was_written_is_read(tmp_path: Path) -> None:
    written = Written(tmp_path)
    big = random.Random(1).randbytes(70_000)
    w = written
    w.packs.write([w.print(1, 0, b"one\n"), w.print(1, 1, b"err\n"), w.end(1)])
    w.packs.write([w.print(2, 0, b"a" * 70_000), w.print(3, 1, big)])
    w.packs.write([w.end(3), w.print(2, 0, b"b"), w.end(2), w.end(4)])
    path = w.path()
    assert not written.errors
    for attempt, streams in written.printed.items():
        for stream in (0, 1):
            data, end = read(path, attempt, stream)
            assert data == streams[stream]
            assert end is not None and end.pid == attempt
    assert path.name == "node1.example_0-0123456789abcdef.pack"
    assert path.read_bytes().startswith(b"disbatch output pack 1\n{")
    assert path.with_suffix(".index").read_bytes().startswith(b"disbatch output index 1\n")
    # 70,000 times the same letter take next to nothing, random bytes what they are.
    assert 70_000 < path.stat().st_size < 72_500


def test_an_attempt_that_goes_on_is_read_as_far_as_it_is(tmp_path: Path) -> None:
    w = Written(tmp_path)
    w.packs.write([w.print(1, 0, b"first\n")])
    w.packs.write([w.print(2, 0, b"other\n"), w.end(2)])
    path = stem(tmp_path)
    assert read(path, 1, 0) == (b"first\n", None)
    w.packs.write([w.print(1, 0, b"second\n")])
    assert read(path, 1, 0) == (b"first\nsecond\n", None)
    w.packs.close()


def test_nothing_is_made_before_there_is_something(tmp_path: Path) -> None:
    w = Written(tmp_path)
    w.packs.sync()
    w.packs.close()
    assert list(tmp_path.iterdir()) == []


def test_gaps_are_told_of(tmp_path: Path) -> None:
    w = Written(tmp_path)
    w.packs.write([Piece(10, 1, 0, 5, b"middle"), Piece(10, 1, 0, 20, b"end")])
    w.packs.write([Done(10, 1, HOW._replace(out_bytes=30, err_bytes=7), True, 0.0)])
    path = w.path()
    expected = left_out(5) + b"middle" + left_out(9) + b"end" + left_out(7)
    assert read(path, 1, 0)[0] == expected
    assert read(path, 1, 1)[0] == left_out(7)


LIFE = st.lists(
    st.tuples(st.integers(1, 4), st.sampled_from(["out", "err", "end", "big"]), st.booleans()), max_size=20
)


def live(directory: Path, life: list[tuple[int, str, bool]], seed: int) -> Written:
    """Carry out a history of pieces and ends, some of them written together."""
    written, chance, ended = Written(directory), random.Random(seed), set()
    work: list[Piece | Done] = []
    for attempt, what, together in life:
        if attempt in ended:
            continue
        if what == "end":
            ended.add(attempt)
            work.append(written.end(attempt))
        else:
            size = 5000 if what == "big" else chance.randrange(1, 30)
            data = chance.randbytes(size) if together else bytes(size)
            work.append(written.print(attempt, 1 if what == "err" else 0, data))
        if not together:
            written.packs.write(work)
            work = []
    written.packs.write([*work, written.print(9, 0, b"last")])
    return written


@settings(max_examples=60, deadline=None)
@given(life=LIFE, seed=st.integers(0, 1000), cut=st.floats(0, 1), index=st.floats(0, 1))
def test_any_cut_leaves_what_is_whole(
    tmp_path_factory: pytest.TempPathFactory,
    life: list[tuple[int, str, bool]],
    seed: int,
    cut: float,
    index: float,
) -> None:
    directory = tmp_path_factory.mktemp("pack")
    written = live(directory, life, seed)
    path = written.path()
    whole = path.read_bytes()
    begin = pack.parse_beginning(whole)
    assert begin is not None
    size = begin[1] + int(cut * (len(whole) - begin[1]))
    os.truncate(path, size)
    entries = path.with_suffix(".index")
    os.truncate(entries, int(index * entries.stat().st_size))
    for attempt, streams in written.printed.items():
        for stream in (0, 1):
            data, end = read(path, attempt, stream)
            known = list(records(whole[:size], begin[1], attempt))
            pieces = [h.length for h in known if h.kind == pack.PIECE and h.stream == stream]
            assert data == streams[stream][: sum(pieces)]
            assert (end is not None) == any(h.kind == pack.END for h in known)


def records(data: bytes, begin: int, attempt: int) -> Iterator[Header]:
    """The whole records of an attempt, by a walk from the first one on."""
    at = begin
    while at + pack.HEADER_SIZE <= len(data):
        header = pack.parse_header(data[at : at + pack.HEADER_SIZE], at)
        assert header is not None
        if at + header.size > len(data):
            return
        if header.attempt == attempt:
            yield header
        at += header.size


@settings(max_examples=60, deadline=None)
@given(
    life=LIFE,
    seed=st.integers(0, 1000),
    damages=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=80)), min_size=1, max_size=4),
    in_index=st.booleans(),
)
def test_damage_is_never_shown_as_output(
    tmp_path_factory: pytest.TempPathFactory,
    life: list[tuple[int, str, bool]],
    seed: int,
    damages: list[tuple[float, bytes]],
    in_index: bool,
) -> None:
    directory = tmp_path_factory.mktemp("pack")
    written = live(directory, life, seed)
    path = written.path()
    victim = path.with_suffix(".index") if in_index else path
    data = bytearray(victim.read_bytes())
    begin = pack.parse_beginning(bytes(data))
    first = len(pack.INDEX_LINE) if begin is None else begin[1]
    for where, what in damages:
        at = first + int(where * (len(data) - first))
        data[at : at + len(what)] = what
    victim.write_bytes(data)
    for attempt, streams in written.printed.items():
        for stream in (0, 1):
            found, _ = read(path, attempt, stream)
            if in_index:
                assert found == streams[stream], "the pack itself has all of it"
            else:
                assert_is_made_of(found, streams[stream])


def assert_is_made_of(found: bytes, printed: bytes) -> None:
    """Parts of what was printed, in order, and words for what is missing between them."""
    at = 0
    for part in found.split(b"\n[disbatch: "):
        text = part.partition(b" bytes left out]\n")[2] if b" bytes left out]\n" in part else part
        where = printed.find(text, at)
        assert where >= 0, (found, printed)
        at = where + len(text)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_are_no_danger(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "any.pack"
    for content in (data, pack.PACK_LINE + data, pack.beginning(ABOUT) + pack.MARK + data):
        path.write_bytes(content)
        path.with_suffix(".index").write_bytes(pack.INDEX_LINE + data)
        opened = Pack.open(path)
        if opened is not None:
            assert opened.find(range(100)) == {}
            opened.close()


def test_a_pack_that_a_task_printed_is_not_taken_for_one(tmp_path: Path) -> None:
    """The very bytes of other records are inside of a piece; the piece's own header is destroyed."""
    other = Written(tmp_path / "other")
    other.packs.write([other.print(7, 0, b"false\n"), other.end(7)])
    w = Written(tmp_path / "own")
    w.packs.write([w.print(1, 0, other.path().read_bytes()), w.end(1)])
    path = w.path()
    data = bytearray(path.read_bytes())
    at = len(pack.beginning(ABOUT))
    data[at] ^= 1
    path.write_bytes(data)
    path.with_suffix(".index").unlink()
    opened = Pack.open(path)
    assert opened is not None
    assert set(opened.find(range(1000))) == {(10, 1)}
    opened.close()


def test_a_chain_never_leads_to_another_attempt(tmp_path: Path) -> None:
    begin = pack.beginning(ABOUT)
    first = pack.piece_record(len(begin), 0, Piece(1, 1, 0, 0, b"of another"))
    second = pack.piece_record(len(begin) + len(first), len(begin), Piece(2, 2, 0, 0, b"own"))
    path = tmp_path / "x.pack"
    path.write_bytes(begin + first + second)
    opened = Pack.open(path)
    assert opened is not None
    known = opened.attempt(opened.find({2})[2, 2])
    assert known is not None and list(known.printed(0).blocks()) == [b"own"]
    opened.close()


@pytest.mark.parametrize(
    "header",
    [
        Header(pack.PIECE, 0, pack.DEFLATED, 1, 1, 0, 0, pack.MOST_PIECE + 1, 10, 0),
        Header(pack.PIECE, 0, pack.PLAIN, 1, 1, 0, 0, 5, 6, 0),
        Header(pack.PIECE, 2, pack.PLAIN, 1, 1, 0, 0, 5, 5, 0),
        Header(pack.PIECE, 0, 2, 1, 1, 0, 0, 5, 5, 0),
        Header(3, 0, pack.PLAIN, 1, 1, 0, 0, 5, 5, 0),
        Header(pack.END, 0, pack.PLAIN, 1, 1, 0, 0, 5, 5, 0),
        Header(pack.PIECE, 0, pack.PLAIN, 1, 1, 1000, 0, 5, 5, 0),
    ],
)
def test_headers_that_make_no_sense_are_none(header: Header) -> None:
    kind, stream, coding, task, attempt, previous, position, length, stored, check = header
    fields = (kind, stream, coding, 0, task, attempt, previous, position, length, stored, check)
    head = pack._HEADER.pack(pack.MARK, *fields)
    data = head + pack._CHECK.pack(pack._check_of(head, 1000))
    assert pack.parse_header(data, 1000) is None


def test_a_piece_that_inflates_to_more_than_it_says_is_damaged() -> None:
    record = pack.piece_record(100, 0, Piece(1, 1, 0, 0, bytes(50_000)))
    header = pack.parse_header(record[: pack.HEADER_SIZE], 100)
    assert header is not None and header.coding == pack.DEFLATED
    stored = record[pack.HEADER_SIZE :]
    assert pack.parse_piece(header, stored) == bytes(50_000)
    assert pack.parse_piece(header._replace(length=49_999), stored) is None
    assert pack.parse_piece(header._replace(length=50_001), stored) is None
    assert pack.parse_piece(header, stored[:-1]) is None


def test_a_pack_of_the_first_version() -> None:
    """As it was written by the first program that wrote one; whatever comes, this is read."""
    opened = Pack.open(Path(__file__).parents[1] / "data" / "output-1.pack")
    assert opened is not None
    assert opened.about == About("/home/me/Tasks_4711", "node32", "0-0123456789abcdef")
    found = opened.find({314, 315})
    first, second = opened.attempt(found[314, 42]), opened.attempt(found[315, 43])
    assert first is not None and second is not None
    assert first.end == End(1458660919.780, 1458660929.829, 8016, -15, 0, 9, 9)
    assert [b"".join(first.printed(stream).blocks()) for stream in (0, 1)] == [b"from 314\n", b"an error\n"]
    assert second.end is None
    assert b"".join(second.printed(0).blocks()) == (
        b"0123456789abcdef" * 500 + b"\n[disbatch: 92000 bytes left out]\n" + b"the end\n"
    )
    opened.close()


def test_a_pack_is_read_as_the_page_says() -> None:
    """docs/output.md, followed with nothing but its tables."""
    folder = Path(__file__).parents[1] / "data"
    data, index = (folder / "output-1.pack").read_bytes(), (folder / "output-1.index").read_bytes()
    lines = data.split(b"\n", 2)
    assert lines[0] == b"disbatch output pack 1" and json.loads(lines[1])["node"] == "node32"
    at, pieces, places = len(lines[0]) + len(lines[1]) + 2, [], []
    while at < len(data):
        head = data[at : at + 56]
        assert head[:4] == bytes.fromhex("DB4F7574")
        kind, stream, coding = head[4:7]
        task, attempt, previous, position = struct.unpack("<4Q", head[8:40])
        length, stored, check, own = struct.unpack("<4I", head[40:56])
        body = data[at + 56 : at + 56 + stored]
        assert zlib.crc32(body) == check and zlib.crc32(struct.pack("<Q", at) + head[:52]) == own
        assert previous == max((place for place, of in places if of == attempt), default=0)
        places.append((at, attempt))
        body = zlib.decompress(body) if coding else body
        assert len(body) == length
        pieces.append((kind, stream, task, attempt, position, body))
        at += 56 + stored
    assert at == len(data)
    assert [piece[:5] for piece in pieces] == [
        *((1, 0, 314, 42, 0), (1, 0, 315, 43, 0), (1, 1, 314, 42, 0)),
        *((2, 0, 314, 42, 0), (1, 0, 315, 43, 100_000)),
    ]
    end = struct.unpack("<ddQiIQQ", pieces[3][5])
    assert end == (1458660919.780, 1458660929.829, 8016, -15, 0, 9, 9)
    first, entries = index.split(b"\n", 1)
    assert first == b"disbatch output index 1" and len(entries) % 32 == 0
    covered = 0
    for start in range(0, len(entries), 32):
        entry = entries[start : start + 32]
        _, attempt, offset, covers, check = struct.unpack("<QQQII", entry)
        assert check == zlib.crc32(entry[:28]) and (offset, attempt) in places
        covered = max(covered, offset + covers) if covers else covered
    assert covered == len(data)
