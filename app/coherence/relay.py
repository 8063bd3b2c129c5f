"""The relay: carries every committed change from the outbox to the caches, whoever made it.

    poll    take undone rows (FOR UPDATE SKIP LOCKED) → invalidate each → mark them done → COMMIT

The application invalidates by itself right after its writes; the relay is for all others: a row changed in psql, a
process that died between COMMIT and invalidation, a Redis that was away. Every instance runs one, and they share
the rows.

What can go wrong: Redis or Postgres away. The rows stay undone, and are tried again.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta

from app.caching.repeating import Repeating
from app.coherence.outbox import BATCH, Outbox

POLL = timedelta(milliseconds=200)
SWEEP = timedelta(seconds=10)

Invalidate = Callable[[str, int], Awaitable[None]]
"""Forgets what is not of a version under a key, given as text. Raises CacheUnavailable."""


class Relay:
    """One task that polls the outbox. `invalidate` has the cache of each table; `counted` is told how many were
    carried, and how many polls failed."""

    def __init__(
        self, outbox: Outbox, invalidate: Mapping[str, Invalidate], *, counted: Callable[[int, int], None]
    ) -> None:
        self._outbox, self._invalidate, self._counted = outbox, invalidate, counted
        self._repeating = Repeating("relay", self._repeat, lambda: counted(0, 1))
        self._swept = time.monotonic()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Polls while the block lasts. At the end the poll under way is finished, and not cancelled."""
        async with self._repeating.running():
            yield

    @property
    def alive(self) -> bool:
        """Whether it polls."""
        return self._repeating.alive

    async def poll(self) -> int:
        """Carries one batch, and answers how many changes it had. Raises CacheUnavailable and DatabaseUnavailable."""
        async with self._outbox.taken() as changes:
            # Stock has triggers, and no cache yet: what nobody caches is done.
            cached = [change for change in changes if change.resource in self._invalidate]
            # Made in one tick, they are one script call for each region.
            await asyncio.gather(*(self._invalidate[change.resource](change.key, change.version) for change in cached))
        self._counted(len(changes), 0)
        return len(changes)

    async def _repeat(self) -> timedelta:
        carried = await self.poll()
        if time.monotonic() - self._swept > SWEEP.total_seconds():
            await self._outbox.sweep()
            self._swept = time.monotonic()
        # A full batch means that there is more: do not wait.
        return POLL if carried < BATCH else timedelta(0)
