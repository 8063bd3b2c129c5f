"""The invalidations that this process owes. Each failed after its write was committed, and is retried.

What can go wrong: Redis is down for a long time, and ever more keys are owed. They are kept in memory, with one version
each. If this process dies first, others may read the old values until these expire.
"""

import logging
from collections.abc import Awaitable, Callable, Hashable
from contextlib import suppress

from .errors import CacheUnavailable, NotInvalidated

logger = logging.getLogger(__name__)


class Owed:
    """Failed invalidations, by region and key."""

    def __init__(self) -> None:
        self._owed: dict[tuple[str, str], tuple[int, Callable[[], Awaitable[None]]]] = {}

    def __len__(self) -> int:
        return len(self._owed)

    def includes(self, region: str, key: Hashable) -> bool:
        """Returns whether an invalidation of this key is owed."""
        return (region, f"{key}") in self._owed

    def add(
        self, region: str, key: Hashable, version: int, invalidate: Callable[[], Awaitable[None]]
    ) -> NotInvalidated:
        """Records a failed invalidation. Returns the exception to raise."""
        name = region, f"{key}"  # As in Redis, where 1 and "1" are one entry.
        if version >= self._owed.get(name, (version,))[0]:
            self._owed[name] = version, invalidate
        return NotInvalidated(
            f"The write of {region} {key} is committed, so do not repeat it. Its invalidation failed, and is retried."
        )

    async def retry(self) -> None:
        """Retries them all. Raises CacheUnavailable if some failed again."""
        failed: CacheUnavailable | None = None
        for key, (version, invalidate) in list(self._owed.items()):
            try:
                await invalidate()
            except CacheUnavailable as error:  # The other keys are still invalidated.
                failed = error
                continue
            if self._owed[key][0] == version:
                del self._owed[key]
        if failed is not None:
            raise failed

    async def give_up(self) -> None:
        """Retries them a last time, and logs how many are left."""
        with suppress(CacheUnavailable):  # What is left is logged.
            await self.retry()
        if self._owed:
            logger.error(
                "%d keys were not invalidated in Redis: others may read old values until these expire.", len(self._owed)
            )
