"""The protocol of all key stores: under each key a queue of values, and waiting for a value to arrive."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

Pair = tuple[bytes, bytes]
"""A key and a value."""


class KeyValues(Protocol):
    """Under each key a queue of values, oldest first; a key without values does not exist.

    Keys and values are any bytes, within limits: UsageError beyond them. `timeout` in seconds: TimeoutError
    if no value arrives in time; None waits without limit; 0 returns what is there now, and waits only for the
    answer. A cancelled call has done nothing or everything. StoreError if the store cannot be reached, or
    holds something else under the key.
    """

    async def put(self, pairs: Sequence[Pair]) -> None:
        """Append each value to its key's queue, all at once."""

    async def get(self, key: bytes, timeout: float | None = None) -> bytes:
        """Take the oldest value from the key's queue, once there is one."""

    async def view(self, key: bytes, timeout: float | None = None) -> bytes:
        """The oldest value, which stays in the queue, once there is one."""


class KeyStore(KeyValues, Protocol):
    """A key store with what the run itself needs. `put` waits for room in a full store."""

    async def offer(self, pairs: Sequence[Pair]) -> None:
        """As `put`, but StoreError if the store has no room now."""

    async def give_back(self, key: bytes, values: Sequence[bytes]) -> None:
        """Put these back as the oldest values of the key, in this order: they were taken, and not used."""

    async def replace(self, key: bytes, value: bytes) -> None:
        """Make this the only value of the key."""

    async def take(self, key: bytes, most: int, timeout: float | None = None) -> list[bytes]:
        """Take the oldest values, at least one and at most `most`, once there is one. Only for the run's task
        source: it must repeat a cancelled call before any other."""

    async def close(self) -> None:
        """Close it; values that were popped for a cancelled call go back."""
