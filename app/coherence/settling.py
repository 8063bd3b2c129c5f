"""How a write whose invalidation failed learns that nobody reads the old value any more.

    A commits, and cannot reach Redis       wait until another instance's relay has carried the change,
                                            or `SETTLED` has passed: then no instance believes a Redis without it

What can go wrong: an instance whose relay gets no answer from the database, or is busy with thousands of changes, goes
on to believe Redis; its hits say that they are not verified.
"""

import asyncio
import time
from datetime import timedelta

from app.caching import SETTLED
from app.coherence.outbox import Outbox
from app.errors import DatabaseUnavailable

PAUSE = timedelta(milliseconds=40)


class Settling:
    """Waits for changes to be carried."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    async def wait(self, resource: str, key: str) -> None:
        """Returns when nobody reads a verified value of `key` that is older than what is committed now: after `SETTLED`
        at the latest, and what one look into the outbox takes."""
        deadline = time.monotonic() + SETTLED.total_seconds()
        while await self._waits(resource, key):
            left = deadline - time.monotonic()
            if left <= 0:
                return  # Time has settled it.
            await asyncio.sleep(min(left, PAUSE.total_seconds()))

    async def _waits(self, resource: str, key: str) -> bool:
        try:
            return await self._outbox.waits(resource, key)
        except DatabaseUnavailable:
            return True  # Nobody knows.
