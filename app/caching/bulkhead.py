"""How many reads may bypass the cache at the same time, so that the database is not flooded when Redis is away.

    a turn comes      the read asks the database
    none comes        `Overloaded`, after a short wait: the database has all that it can do

(Nygard, "Release It!")

What can go wrong: the limit is of one process. Ten processes ask the database ten times as much.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from .errors import Overloaded

TURN = timedelta(milliseconds=500)
"""How long a reader waits for its turn."""


class Bulkhead:
    """The turns of one process: `most` at the same time."""

    def __init__(self, most: int = 8) -> None:
        self._turns = asyncio.Semaphore(most)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """A turn to bypass the cache. Raises Overloaded when it does not come."""
        try:
            await asyncio.wait_for(self._turns.acquire(), TURN.total_seconds())
        except TimeoutError:
            raise Overloaded("Too many reads ask the database already, past the cache.") from None
        try:
            yield
        finally:
            self._turns.release()
