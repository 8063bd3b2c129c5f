"""Limits how many reads bypass the cache at the same time, so that the database is not flooded while Redis is down.

    a turn becomes free    the read queries the database
    none becomes free      `Overloaded`, after a short wait: the database is fully loaded

(Nygard, "Release It!")

What can go wrong: the limit is per process. Ten processes query the database ten times as much.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from .errors import Overloaded

TURN = timedelta(milliseconds=500)
"""How long a reader waits for its turn."""


class Bulkhead:
    """The turns of one process: at most `most` at the same time."""

    def __init__(self, most: int = 8) -> None:
        self._turns = asyncio.Semaphore(most)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Holds a turn to bypass the cache. Raises Overloaded if none becomes free in time."""
        try:
            await asyncio.wait_for(self._turns.acquire(), TURN.total_seconds())
        except TimeoutError:
            raise Overloaded("Too many reads already query the database past the cache.") from None
        try:
            yield
        finally:
            self._turns.release()
