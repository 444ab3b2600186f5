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
    """One pack, open for reading, with its description."""

    def __init__(
        self, path: Path, descriptor: int, about: About, begin: int, trusted: int | None = None
    ) -> None:
        self.path = path
        self._trusted = trusted
        self.about = about
        self._descriptor = descriptor
        self._begin = begin
        self.is_damaged = False
        """The index names records that are not in the pack: the pack was truncated or overwritten."""

    @classmethod
    def open(cls, path: Path, *, trusted: int | None = None) -> Pack | None:
        """None if it is not a pack of a known version. OSError if it cannot be read, or belongs neither to
        our user nor to `trusted`."""
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
        """Close the pack."""
        os.close(self._descriptor)

    def read(self, at: int, size: int) -> bytes:
        """So many bytes from there."""
        return os.pread(self._descriptor, size, at)

    def find(self, tasks: Collection[int]) -> dict[tuple[int, int], int]:
        """The offset of the last record of each attempt of these tasks: by task and attempt."""
        found, covered = self._indexed(tasks)
        size = os.fstat(self._descriptor).st_size
        if covered > size or any(self._header(last) is None for last in found.values()):
            self.is_damaged = True  # the rest is found without the index
            found, covered = {}, self._begin
        for offset, header in pack.scan(self.read, covered, size):
            if header.task in tasks:
                found[header.task, header.attempt] = offset
        return found

    def _indexed(self, tasks: Collection[int]) -> tuple[dict[tuple[int, int], int], int]:
        """What the index has of these tasks, and how far into the pack it reaches."""
        found: dict[tuple[int, int], int] = {}
        covered = self._begin
        for entry in self._entries():
            if entry.covers:
                covered = max(covered, entry.offset + entry.covers)
            if entry.task in tasks:
                found[entry.task, entry.attempt] = entry.offset
        return found, covered

    def _entries(self) -> Iterator[pack.Entry]:
        """The entries of the index; the last of them, or all, may be missing."""
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
        """The attempt whose last record is at `last`; None if none of it can be read."""
        header = self._header(last)
        if header is None:
            return None
        end = None
        if header.kind == pack.END:
            end = pack.parse_end(header, pack.payload(self.read, last, header))
        return Attempt(self, last, header.attempt, end)


class Attempt(NamedTuple):
    """One attempt of a task in a pack; `end` is None while it runs, and if it was killed with its engine."""

    pack: Pack
    last: int
    number: int
    end: End | None

    def printed(self, stream: int) -> Printed:
        """Its output to that stream, as far as it was kept."""
        offsets, before = array("Q"), 0
        for at, header in pack.chain(self.pack.read, self.last):
            before = header.previous
            if header.kind == pack.PIECE and header.stream == stream:
                offsets.append(at)
        total = None if self.end is None else (self.end.out_bytes, self.end.err_bytes)[stream]
        return Printed(self.pack, offsets, total, is_damaged=before != 0)


class Printed:
    """One stream of an attempt: the offsets of its pieces, last first; `total`: how many bytes the task
    printed, None if it has not ended. `is_damaged`: a part of it cannot be read, as far as is known; certain
    when all `blocks` have been read. `size`: the number of bytes in these."""

    def __init__(self, pack: Pack, offsets: array[int], total: int | None, *, is_damaged: bool) -> None:
        self.pack = pack
        self.offsets = offsets
        self.total = total
        self.is_damaged = is_damaged
        self.size = 0

    def blocks(self) -> Iterator[bytes]:
        """The bytes, with a marker for each missing part."""
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
        """The last `size` bytes; None if they are damaged. Fewer, if a part is missing before them."""
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
        """The position of a piece in its stream, and its bytes; None if they are damaged."""
        try:
            header = pack.parse_header(self.pack.read(at, pack.HEADER_SIZE), at)
            if header is None:
                return 0, None
            return header.position, pack.parse_piece(header, pack.payload(self.pack.read, at, header))
        except OSError:
            return 0, None
