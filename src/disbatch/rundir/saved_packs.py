"""Read packs: which attempts of a task are in the packs of a directory, and what they printed."""

from __future__ import annotations

import os
from array import array
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from disbatch.model import pack
from disbatch.model.output import left_out
from disbatch.model.pack import About, End
from disbatch.wire.ownfile import open_own

_BEGINNING = len(pack.PACK_LINE) + pack.LONGEST_ABOUT
_ENTRIES = pack.ENTRY_SIZE << 15
"""Bytes of an index read at a time."""


class Pack:
    """One pack, open for reading, and what it says of itself."""

    def __init__(
        self, path: Path, descriptor: int, about: About, begin: int, trusted: int | None = None
    ) -> None:
        self.path = path
        self._trusted = trusted
        self.about = about
        self._descriptor = descriptor
        self._begin = begin
        self.is_damaged = False
        """The index tells of records that are not in the pack: it was cut, or this was overwritten."""

    @classmethod
    def open(cls, path: Path, *, trusted: int | None = None) -> Pack | None:
        """None if that is no pack of a version that is known here. OSError if it cannot be read, or is not
        ours, or of `trusted`."""
        descriptor = open_own(path, os.O_RDONLY, trusted=trusted)
        try:
            found = pack.parse_beginning(os.pread(descriptor, _BEGINNING, 0))
        except OSError:
            os.close(descriptor)
            raise
        if found is None:
            os.close(descriptor)
            return None
        return cls(path, descriptor, *found, trusted)

    def close(self) -> None:
        """Nothing can be read any more."""
        os.close(self._descriptor)

    def read(self, at: int, size: int) -> bytes:
        """So many bytes from there."""
        return os.pread(self._descriptor, size, at)

    def find(self, tasks: Collection[int]) -> dict[tuple[int, int], int]:
        """Where the last record is of each attempt of these tasks: by task and attempt."""
        found, covered = self._indexed(tasks)
        size = os.fstat(self._descriptor).st_size
        if covered > size or any(self._header(last) is None for last in found.values()):
            self.is_damaged = True  # what is left of it is found without the index
            found, covered = {}, self._begin
        for offset, header in pack.scan(self.read, covered, size):
            if header.task in tasks:
                found[header.task, header.attempt] = offset
        return found

    def _indexed(self, tasks: Collection[int]) -> tuple[dict[tuple[int, int], int], int]:
        """What the index has of these tasks, and how far into the pack it goes."""
        found: dict[tuple[int, int], int] = {}
        covered = self._begin
        for entry in self._entries():
            if entry.covers:
                covered = max(covered, entry.offset + entry.covers)
            if entry.task in tasks:
                found[entry.task, entry.attempt] = entry.offset
        return found, covered

    def _entries(self) -> Iterator[pack.Entry]:
        """What the index has; it may lack the last of them, or all."""
        try:
            index = open_own(self.path.with_suffix(pack.INDEX_END), os.O_RDONLY, trusted=self._trusted)
            with os.fdopen(index, "rb") as file:
                if file.read(len(pack.INDEX_LINE)) != pack.INDEX_LINE:
                    return
                while data := file.read(_ENTRIES):
                    entries = list(pack.parse_entries(data))
                    yield from entries
                    if len(entries) * pack.ENTRY_SIZE < len(data):
                        return
        except OSError:
            return

    def _header(self, at: int) -> pack.Header | None:
        return pack.parse_header(self.read(at, pack.HEADER_SIZE), at)

    def attempt(self, last: int) -> Attempt | None:
        """The attempt whose last record is at `last`; None if nothing of it can be read."""
        header = self._header(last)
        if header is None:
            return None
        end = None
        if header.kind == pack.END:
            end = pack.parse_end(header, pack.payload(self.read, last, header))
        return Attempt(self, last, header.attempt, end)


class Attempt(NamedTuple):
    """One attempt of a task in a pack; `end` is None as long as it runs, and if it was killed with its
    engine."""

    pack: Pack
    last: int
    number: int
    end: End | None

    def printed(self, stream: int) -> Printed:
        """What it printed to that stream, as far as it was kept."""
        offsets, before = array("Q"), 0
        for at, header in pack.chain(self.pack.read, self.last):
            before = header.previous
            if header.kind == pack.PIECE and header.stream == stream:
                offsets.append(at)
        total = None if self.end is None else (self.end.out_bytes, self.end.err_bytes)[stream]
        return Printed(self.pack, offsets, total, is_damaged=before != 0)


class Printed:
    """One stream of an attempt: where its pieces are, the last first; `total`: how many bytes the task
    printed, None if it has not ended. `is_damaged`: some of it cannot be read, as far as is known; the whole
    of it is known when all `blocks` have been read. `size`: bytes of it that these had."""

    def __init__(self, pack: Pack, offsets: array[int], total: int | None, *, is_damaged: bool) -> None:
        self.pack = pack
        self.offsets = offsets
        self.total = total
        self.is_damaged = is_damaged
        self.size = 0

    def blocks(self) -> Iterator[bytes]:
        """The bytes, and words for what is missing of them."""
        reached = 0
        for at in reversed(self.offsets):
            position, data = self._piece(at)
            self.is_damaged |= data is None
            if not data or position < reached:
                continue
            if position > reached:
                yield left_out(position - reached)
            self.size += len(data)
            yield data
            reached = position + len(data)
        if self.total is not None and self.total > reached:
            yield left_out(self.total - reached)

    def end(self, size: int, _expected: int = 0) -> bytes | None:
        """The last `size` bytes; None if they are damaged. Fewer, if something is missing before them."""
        end = b""
        reached = self.total
        for at in self.offsets:
            position, data = self._piece(at)
            if data is None or (reached is not None and position + len(data) < reached):
                break
            end, reached = data + end, position
            if len(end) >= size:
                break
        return end[-size:] if end or self.total == 0 else None

    def _piece(self, at: int) -> tuple[int, bytes | None]:
        """Where it stands in its stream, and what it is; None if it is damaged."""
        try:
            header = pack.parse_header(self.pack.read(at, pack.HEADER_SIZE), at)
            if header is None:
                return 0, None
            return header.position, pack.parse_piece(header, pack.payload(self.pack.read, at, header))
        except OSError:
            return 0, None
