"""The pack format: the output of all tasks of one engine in one append-only file, and its index.

docs/output.md describes it byte by byte. Numbers are little-endian.

* pack: the version line, a line of JSON (`About`), then records;
* record: a header of 56 bytes, then its payload, which is a piece of a stream or the end of an attempt;
* index: the version line, then entries of 32 bytes, which hold the offsets of attempts' records.

Theory of operation
-------------------
Each record holds the offset of the previous record of the same attempt, so the last record of an attempt
leads to all of them; the index holds the offset of that last record. The engine writes records first and
their index entries after them. If it is killed between the two, or if the index is damaged, the records that
the index does not cover are found by scanning the pack. The checksum of a header includes the header's own
offset, so neither a torn record nor a copy of a pack inside a task's output is mistaken for a record.

Changing the format: raise the number in the version line; the reader must keep reading all earlier versions.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import msgspec

from disbatch.model.task import Outcome

PACK_LINE = b"disbatch output pack 1\n"
INDEX_LINE = b"disbatch output index 1\n"
PACK_END = ".pack"
INDEX_END = ".index"
LONGEST_ABOUT = 16384

MARK = b"\xdbOut"
_HEADER = struct.Struct("<4sBBBBQQQQIII")
_CHECK = struct.Struct("<I")
_END = struct.Struct("<ddQiIQQ")
_ENTRY = struct.Struct("<QQQI")
_PLACE = struct.Struct("<Q")
HEADER_SIZE = _HEADER.size + _CHECK.size
ENTRY_SIZE = _ENTRY.size + _CHECK.size
END_SIZE = _END.size

PIECE, END = 1, 2
"""Kinds of records."""
PLAIN, DEFLATED = 0, 1
"""How the bytes of a piece are stored."""
MOST_PIECE = 1 << 20
"""The most bytes of a stream in one record."""
MOST_STORED = MOST_PIECE + 4096
_BLOCK = 65536
DEFLATE_FROM = 4096
"""Pieces of at least this many bytes are compressed, if that makes them smaller."""
LEVEL = 1

Read = Callable[[int, int], bytes]
"""`read(offset, size)`: `size` bytes from there, fewer at the end of the file."""


class About(msgspec.Struct, frozen=True):
    """The owner of a pack: `run` is the prefix of the run's files, `node` the node's name in the status file,
    `engine` the engine's id."""

    run: str
    node: str
    engine: str


class Header(NamedTuple):
    """A record without its payload. `previous`: the offset of the attempt's previous record, 0 for the first;
    `position`: of a piece's first byte in its stream; `length` bytes, of which `stored` are in the pack, with
    the checksum `check`."""

    kind: int
    stream: int
    coding: int
    task: int
    attempt: int
    previous: int
    position: int
    length: int
    stored: int
    check: int

    @property
    def size(self) -> int:
        """Bytes of the whole record."""
        return HEADER_SIZE + self.stored


class Piece(NamedTuple):
    """Bytes of a task's stdout (`stream` 0) or stderr (1), MOST_PIECE at most; `position`: the position of
    the first of them in the stream."""

    task: int
    attempt: int
    stream: int
    position: int
    data: bytes


class End(NamedTuple):
    """How an attempt ended, as in `model.task.Outcome`; `out_bytes` and `err_bytes` count everything that the
    task printed, kept or not."""

    start: float
    finish: float
    pid: int
    return_code: int
    ending: int
    out_bytes: int
    err_bytes: int

    @classmethod
    def of(cls, outcome: Outcome) -> End:
        """The part of an outcome that the pack stores."""
        o = outcome
        return cls(o.start, o.finish, o.pid, o.return_code, o.ending, o.out_bytes, o.err_bytes)


class Entry(NamedTuple):
    """An entry of the index: the last record of the attempt so far is at `offset`. `covers`: if not 0, all
    records up to that many bytes after `offset` can be found through the entries up to this one."""

    task: int
    attempt: int
    offset: int
    covers: int


# ---- writing ----


def beginning(about: About) -> bytes:
    """The beginning of a pack."""
    return PACK_LINE + msgspec.json.encode(about) + b"\n"


def piece_record(at: int, previous: int, piece: Piece) -> bytes:
    """The record of a piece, at offset `at` of the pack."""
    task, attempt, stream, position, data = piece
    stored, coding = data, PLAIN
    if len(data) >= DEFLATE_FROM:
        deflated = zlib.compress(data, LEVEL)
        if len(deflated) < len(data):
            stored, coding = deflated, DEFLATED
    return _record(at, (PIECE, stream, coding, 0, task, attempt, previous, position, len(data)), stored)


def end_record(at: int, previous: int, task: int, attempt: int, how: End) -> bytes:
    """The record of an attempt's end, at offset `at`."""
    return _record(at, (END, 0, PLAIN, 0, task, attempt, previous, 0, END_SIZE), _END.pack(*how))


def _record(at: int, numbers: tuple[int, ...], stored: bytes) -> bytes:
    head = _HEADER.pack(MARK, *numbers, len(stored), zlib.crc32(stored))
    return head + _CHECK.pack(_check_of(head, at)) + stored


def _check_of(head: bytes, at: int) -> int:
    return zlib.crc32(head, zlib.crc32(_PLACE.pack(at)))


def entry(task: int, attempt: int, offset: int, covers: int) -> bytes:
    """One entry of the index, see `Entry`."""
    body = _ENTRY.pack(task, attempt, offset, covers)
    return body + _CHECK.pack(zlib.crc32(body))


# ---- reading ----


def parse_beginning(data: bytes) -> tuple[About, int] | None:
    """The pack's description of itself, and the offset of its first record; None if it is not a pack of ours.
    `data` are its first bytes, enough for the longest beginning."""
    if not data.startswith(PACK_LINE):
        return None
    after = data.find(b"\n", len(PACK_LINE), len(PACK_LINE) + LONGEST_ABOUT) + 1
    if not after:
        return None
    try:
        return msgspec.json.decode(data[len(PACK_LINE) : after], type=About), after
    except msgspec.DecodeError:
        return None


def parse_header(data: bytes, at: int) -> Header | None:
    """Parse a header from these HEADER_SIZE bytes at offset `at`; None if they are not one."""
    if len(data) != HEADER_SIZE or not data.startswith(MARK):
        return None
    head = data[: _HEADER.size]
    if _CHECK.unpack_from(data, _HEADER.size)[0] != _check_of(head, at):
        return None
    _, kind, stream, coding, _, *rest = _HEADER.unpack(head)
    header = Header(kind, stream, coding, *rest)
    plain = coding == PLAIN and header.stored == header.length
    if kind == END:
        sound = plain and header.length == END_SIZE
    else:
        sound = kind == PIECE and stream in (0, 1) and (plain or coding == DEFLATED)
    bounded = header.length <= MOST_PIECE and header.stored <= MOST_STORED
    return header if sound and bounded and header.previous < at else None


def parse_piece(header: Header, stored: bytes) -> bytes | None:
    """The bytes of the stream; None if damaged."""
    if len(stored) != header.stored or zlib.crc32(stored) != header.check:
        return None
    if header.coding == PLAIN:
        return stored
    inflate = zlib.decompressobj()
    try:
        data = inflate.decompress(stored, header.length + 1)
    except zlib.error:
        return None
    return data if len(data) == header.length and inflate.eof else None


def parse_end(header: Header, stored: bytes) -> End | None:
    """How the attempt ended; None if damaged."""
    if len(stored) != END_SIZE or zlib.crc32(stored) != header.check:
        return None
    return End(*_END.unpack(stored))


def parse_entries(data: bytes) -> Iterator[Entry]:
    """The entries in these bytes, up to the first invalid one."""
    for at in range(0, len(data) - ENTRY_SIZE + 1, ENTRY_SIZE):
        body = data[at : at + _ENTRY.size]
        if zlib.crc32(body) != _CHECK.unpack_from(data, at + _ENTRY.size)[0]:
            return
        yield Entry(*_ENTRY.unpack(body))


def scan(read: Read, at: int, size: int) -> Iterator[tuple[int, Header]]:
    """All complete records from `at` to the end of a pack of `size` bytes, with their offsets; torn and
    damaged ones are skipped. Payloads are not checked."""
    while at + HEADER_SIZE <= size:
        header = parse_header(read(at, HEADER_SIZE), at)
        if header is not None and at + header.size <= size:
            yield at, header
            at += header.size
        else:
            at = _next_mark(read, at + 1, size)


def _next_mark(read: Read, at: int, size: int) -> int:
    """The next offset, at `at` or later, where a record may begin; `size` if there is none."""
    while at < size:
        block = read(at, _BLOCK)
        found = block.find(MARK)
        if found >= 0:
            return at + found
        if len(block) < _BLOCK:
            return size
        at += _BLOCK - len(MARK) + 1
    return size


def chain(read: Read, last: int) -> Iterator[tuple[int, Header]]:
    """The records of one attempt with their offsets, from the one at `last` back to the first; ends early at
    a damaged one."""
    owner: tuple[int, int] | None = None
    while last:
        header = parse_header(read(last, HEADER_SIZE), last)
        if header is None or (owner is not None and owner != (header.task, header.attempt)):
            return
        owner = (header.task, header.attempt)
        yield last, header
        last = header.previous


def payload(read: Read, at: int, header: Header) -> bytes:
    """The payload of the record at `at`."""
    return read(at + HEADER_SIZE, header.stored)
