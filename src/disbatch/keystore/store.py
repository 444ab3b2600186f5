"""The protocol of all key stores: under each key a queue of values, and waiting for a value to arrive."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

Pair = tuple[bytes, bytes]
"""A key and a value."""


class KeyStore(Protocol):
    """Under each key a queue of values, oldest first; a key without values does not exist.

    Keys and values are any bytes, within limits: UsageError beyond them. `timeout` in seconds: TimeoutError
    if no value came; None waits as long as it takes; 0 asks what is there now, and waits for the answer
    alone. A call that is cancelled has done nothing or all. StoreError if the store cannot be reached, or
    holds under the key what is no such queue.
    """

    async def put(self, pairs: Sequence[Pair]) -> None:
        """Append each value to its key's queue, all at once. Waits for room in a store that is full."""

    async def offer(self, pairs: Sequence[Pair]) -> None:
        """As `put`, but StoreError if the store has no room now."""

    async def give_back(self, key: bytes, values: Sequence[bytes]) -> None:
        """Make these the oldest of the key again, in this order: they were taken, and nobody used them."""

    async def replace(self, key: bytes, value: bytes) -> None:
        """Make this the only value of the key."""

    async def get(self, key: bytes, timeout: float | None = None) -> bytes:
        """Take the oldest value out of the key's queue, when there is one."""

    async def take(self, key: bytes, most: int, timeout: float | None = None) -> list[bytes]:
        """Take the oldest values, at least one and at most so many, when there is one."""

    async def view(self, key: bytes, timeout: float | None = None) -> bytes:
        """The oldest value, which stays there, when there is one."""

    async def close(self) -> None:
        """Let go of it; values that were taken for nobody go back."""
