"""Write-behind, as page views are counted: Redis accepts a count at once, and a flusher writes it to the table soon.

read    the total, including what is pending
write   adds one, in Redis
flush   one round of the flusher
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app import caching
from app.caching import Flusher
from app.lab.strategy import Holds


class WriteBehind:
    """Write-behind. Its keys begin with `prefix` in both stores."""

    holds = Holds.COUNTS

    def __init__(self, counters: caching.WriteBehind, flusher: Flusher, prefix: str = "") -> None:
        self._counters, self._flusher, self._prefix = counters, flusher, prefix

    async def read(self, key: str) -> int | None:
        """Returns the total, including what is pending."""
        return (await self._counters.get(self._prefix + key)).amount

    async def write(self, key: str, value: int) -> None:
        """Adds one, in Redis."""
        await self._counters.add(self._prefix + key, 1)

    async def flush(self) -> int:
        """Runs one round of the flusher and returns how many entries it handled."""
        return await self._flusher.round()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Runs the counters and the flusher."""
        async with self._counters, self._flusher:
            yield
