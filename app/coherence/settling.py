"""How a write whose invalidation failed learns that nobody reads the old value any more.

    A commits, and cannot reach Redis       wait until another instance's relay has carried the change
                                            or `SETTLED` has passed: then no instance believes a Redis without it,
                                            unless one is busy with thousands of changes that came before

What can go wrong: it takes about `SETTLED`, also when the database is gone as well. Behind a bulk change it takes
longer, and is given up after `PATIENCE`.
"""

import asyncio
import time
from datetime import timedelta

from app.caching import SETTLED
from app.coherence.outbox import Outbox
from app.errors import DatabaseUnavailable

PAUSE = timedelta(milliseconds=40)
PATIENCE = timedelta(seconds=5)


class Settling:
    """Waits for changes to be carried."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    async def wait(self, resource: str, key: str) -> None:
        """Returns when nobody reads a value of `key` that is older than what is committed now."""
        began = time.monotonic()
        while True:
            undone, busy = await self._waits(resource, key)
            left = (PATIENCE if busy else SETTLED).total_seconds() - (time.monotonic() - began)
            if not undone or left <= 0:
                return
            await asyncio.sleep(min(left, PAUSE.total_seconds()))

    async def _waits(self, resource: str, key: str) -> tuple[bool, bool]:
        try:
            return await self._outbox.waits(resource, key, SETTLED)
        except DatabaseUnavailable:
            return True, False  # Nobody knows, and nobody can be busy with it.
