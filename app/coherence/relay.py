"""The relay: carries every committed change from the outbox to the caches, whoever made it.

    poll    take undone rows (FOR UPDATE SKIP LOCKED) → invalidate each → mark them done → COMMIT

The application invalidates by itself right after its writes; the relay is for all others: a row changed in psql, a
process that died between COMMIT and invalidation, a Redis that was away. Every instance runs one, and they share
the rows.

What can go wrong: Redis or Postgres away. The rows stay undone, and are tried again every `SLOWEST` at the latest.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta

from app.coherence.outbox import BATCH, Outbox

logger = logging.getLogger(__name__)

POLL = timedelta(milliseconds=200)
SLOWEST = timedelta(seconds=2)
SWEEP = timedelta(seconds=10)
STUCK = timedelta(seconds=15)
"""Without a poll that ended, well or badly, for this long, the relay counts as stuck."""

Invalidate = Callable[[str, int], Awaitable[None]]
"""Forgets what is older than a version under a key, given as text. Raises CacheUnavailable."""


class Relay:
    """One task that polls the outbox. `invalidate` has the cache of each table; `counted` is told how many were
    carried, and how many polls failed."""

    def __init__(
        self, outbox: Outbox, invalidate: Mapping[str, Invalidate], *, counted: Callable[[int, int], None]
    ) -> None:
        self._outbox, self._invalidate, self._counted = outbox, invalidate, counted
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._last_poll = time.monotonic()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Polls while the block lasts. At the end the poll under way is finished, and not cancelled."""
        self._task = asyncio.create_task(self._run(), name="relay")
        try:
            yield
        finally:
            self._stop.set()
            await self._task

    @property
    def alive(self) -> bool:
        """Whether the task runs and its polls end."""
        running = self._task is not None and not self._task.done()
        return running and time.monotonic() - self._last_poll < STUCK.total_seconds()

    async def poll(self) -> int:
        """Carries one batch, and answers how many changes it had. Raises CacheUnavailable and DatabaseUnavailable."""
        async with self._outbox.taken() as changes:
            # Stock has triggers, and no cache yet: what nobody caches is done.
            cached = [change for change in changes if change.resource in self._invalidate]
            # Made in one tick, they are one script call for each region.
            await asyncio.gather(*(self._invalidate[change.resource](change.key, change.version) for change in cached))
        self._counted(len(changes), 0)
        return len(changes)

    async def _run(self) -> None:
        wait, swept = POLL, time.monotonic()
        while not self._stop.is_set():
            try:
                carried = await self.poll()
                if time.monotonic() - swept > SWEEP.total_seconds():
                    await self._outbox.sweep()
                    swept = time.monotonic()
                # A full batch means that there is more: do not wait.
                wait = POLL if carried < BATCH else timedelta(0)
            except Exception as error:  # noqa: BLE001  # Without this task, caches rot: it outlives whatever it meets.
                self._counted(0, 1)
                wait = min(max(wait, POLL) * 2, SLOWEST)
                logger.warning("The outbox was not carried, next try in %g s: %r", wait.total_seconds(), error)
            self._last_poll = time.monotonic()
            try:
                await asyncio.wait_for(self._stop.wait(), wait.total_seconds())
            except TimeoutError:
                continue
