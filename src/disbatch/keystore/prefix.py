"""What the keys of one run begin with, so that many runs share one server: no two at a time the same.

The prefix is a run's as long as PREFIX.driver says so: a random word that its driver renews, and which the
server forgets by itself if that is killed.
"""

from __future__ import annotations

import secrets

from disbatch.keystore.external import ExternalStore
from disbatch.keystore.server import Server
from disbatch.model.errors import UsageError

OWNER = b".driver"
OWNED_FOR = 60
"""Seconds after the last renewal."""
RENEW = 20.0
"""Seconds between two."""
MOST_PREFIXES = 1000


class Lease:
    """A store whose prefix is ours."""

    def __init__(self, store: ExternalStore, prefix: str) -> None:
        self.store = store
        self.prefix = prefix
        self._word = secrets.token_hex(8).encode()

    async def take(self, *, by_force: bool = False) -> bool:
        """True if nobody else had it, or `by_force`."""
        return await self.store.claim(OWNER, self._word, OWNED_FOR, renew=by_force)

    async def renew(self) -> None:
        """We are still here."""
        await self.store.claim(OWNER, self._word, OWNED_FOR, renew=True)

    async def end(self) -> None:
        """Another run may have it."""
        await self.store.remove(OWNER)


async def find_prefix(server: Server, jobid: str, wanted: str, former: str | None) -> Lease:
    """A prefix for the run `jobid`: `wanted`, if that is not empty, else disbatch:JOBID:, with a number if
    need be. `former` is what a driver had that we replace. UsageError if it is another run's."""
    if former is not None:
        lease = Lease(ExternalStore(server, former.encode("utf-8", "surrogateescape")), former)
        await lease.take(by_force=True)
        return lease
    if wanted:
        names = [wanted]
    else:
        names = [f"disbatch:{jobid}{'' if n == 1 else f'-{n}'}:" for n in range(1, MOST_PREFIXES)]
    for name in names:
        lease = Lease(ExternalStore(server, name.encode("utf-8", "surrogateescape")), name)
        if await lease.take():
            return lease
    raise UsageError(
        f"key store: another run has the prefix {names[0]}, or had until {OWNED_FOR} s ago; "
        "set DISBATCH_KVS_PREFIX to another"
    )
