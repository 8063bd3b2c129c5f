"""Write-behind, as page views are counted: Redis accepts a count now, and a flusher writes it to the table soon.

read    the total, with what is pending
write   adds one, in Redis
flush   a round of the flusher
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app import caching
from app.caching import Flusher
from app.lab.strategy import Holds


class WriteBehind:
    """Write-behind. In both stores, its keys begin with `prefix`."""

    holds = Holds.COUNTS

    def __init__(self, counters: caching.WriteBehind, flusher: Flusher, prefix: str = "") -> None:
        self._counters, self._flusher, self._prefix = counters, flusher, prefix

    async def read(self, key: str) -> int | None:
        """The total, with what is pending."""
        return (await self._counters.get(self._prefix + key)).amount

    async def write(self, key: str, value: int) -> None:
        """Adds one, in Redis."""
        await self._counters.add(self._prefix + key, 1)

    async def flush(self) -> int:
        """A round of the flusher. Answers how many entries it had."""
        return await self._flusher.round()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The counters, and the flusher."""
        async with self._counters, self._flusher:
            yield
