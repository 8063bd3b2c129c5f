"""How a write whose invalidation failed waits until nobody reads the old value.

    A commits, and cannot reach Redis       A waits until another instance's relay has delivered the change, or until
                                            `SETTLED` has passed: then no instance trusts a Redis that lacks it

What can go wrong: an instance whose relay gets no answer from the database, or is busy with thousands of changes, keeps
trusting Redis. Its hits are marked as unverified.
"""

import asyncio
import time
from datetime import timedelta

from app.caching import SETTLED
from app.coherence.outbox import Outbox
from app.errors import DatabaseUnavailable

PAUSE = timedelta(milliseconds=40)


class Settling:
    """Waits until changes have been delivered."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    async def wait(self, resource: str, key: str) -> None:
        """Returns when nobody reads a verified value of `key` older than what is committed now. Takes at most `SETTLED`
        and the time of one query of the outbox."""
        deadline = time.monotonic() + SETTLED.total_seconds()
        while await self._waits(resource, key):
            left = deadline - time.monotonic()
            if left <= 0:
                return  # By now no instance trusts a Redis without the change.
            await asyncio.sleep(min(left, PAUSE.total_seconds()))

    async def _waits(self, resource: str, key: str) -> bool:
        try:
            return await self._outbox.waits(resource, key)
        except DatabaseUnavailable:
            return True  # Unknown, so assume that one is.
