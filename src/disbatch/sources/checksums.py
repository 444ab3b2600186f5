"""Checksums of a file's blocks: what is read again must be what was there."""

from __future__ import annotations

import zlib
from array import array

BLOCK = 1 << 20
"""Bytes of a block."""


class Checksums:
    """Of a text that is added from its beginning on; `size` in bytes."""

    def __init__(self) -> None:
        self.size = 0
        self._whole = array("I")
        self._last = 0

    def add(self, data: bytes) -> None:
        """The next bytes."""
        rest = memoryview(data)
        while rest:
            part = rest[: BLOCK - self.size % BLOCK]
            self._last = zlib.crc32(part, self._last)
            self.size += len(part)
            rest = rest[len(part) :]
            if self.size % BLOCK == 0:
                self._whole.append(self._last)
                self._last = 0

    def at(self, end: int) -> int:
        """The checksum of the block that ends at `end`, which is the end of the text or of a whole block."""
        return self._last if end % BLOCK else self._whole[end // BLOCK - 1]


class Verifier:
    """Compares a text with `checksums`, which may still grow, as it is read from its beginning on."""

    def __init__(self, checksums: Checksums) -> None:
        self._checksums = checksums
        self._at = 0
        self._sum = 0

    @property
    def room(self) -> int:
        """How many bytes to read next: never beyond a block, or what is known; 0 at the end of that."""
        return min(BLOCK - self._at % BLOCK, self._checksums.size - self._at)

    def accept(self, data: bytes) -> bool:
        """True if these are the next `room` bytes."""
        if len(data) != self.room:
            return False
        self._sum = zlib.crc32(data, self._sum if self._at % BLOCK else 0)
        self._at += len(data)
        return self._sum == self._checksums.at(self._at)
