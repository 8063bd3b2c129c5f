"""Renews the trust in Redis where no relay does: it asks Redis whether it is there, and tells it again what failed.

    every 100 ms    tell Redis of the writes that it could not be told of → ask whether it answers → trust it for 350 ms

A process does not believe Redis while it owes it an invalidation of its own: so it reads what it has written.

What is weaker than with a relay:

    a write past the cache (in SQL, by another program) is seen when the entry's time is over
    an invalidation that failed is told again by this process alone: others may read the old value until then, and until
    the entry's time is over when this process dies before
    a Redis that restarts without telling so (no INFO) may bring back what it was told to forget

What can go wrong: Redis is away for long, and ever more keys are owed. They are kept in memory, one version a key.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

from redis.asyncio import Redis

from .breaker import Breaker
from .errors import CacheUnavailable, NotInvalidated
from .moment import Moment
from .repeating import Repeating

logger = logging.getLogger(__name__)

EVERY = timedelta(milliseconds=100)


class Renewal:
    """What one process owes Redis, and the task that pays it and renews the trust."""

    def __init__(self, redis: Redis, breaker: Breaker) -> None:
        self._redis, self._breaker = redis, breaker
        self._owed: dict[tuple[str, Hashable], tuple[int, Callable[[], Awaitable[None]]]] = {}
        self._repeating = Repeating("renewal of the trust in Redis", self.renew, lambda: None)

    @property
    def owed(self) -> int:
        """Of how many keys Redis has still to be told."""
        return len(self._owed)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Renews while the block lasts. A Redis that is away at its beginning is asked again and again."""
        try:
            await self.renew()
        except CacheUnavailable as error:
            logger.warning("%s Reads ask the database until it answers.", error)
        async with self._repeating.running():
            yield
        if self._owed:
            with suppress(CacheUnavailable):  # What is still owed is said below.
                await self.renew()
        if self._owed:
            logger.error(
                "Redis was not told that %d keys have changed: others may read old values until these expire.",
                self.owed,
            )

    def owe(
        self, region: str, key: Hashable, version: int, invalidate: Callable[[], Awaitable[None]]
    ) -> NotInvalidated:
        """Redis could not be told of this version of a key: it is told later, and not believed until then. Answers what
        to raise."""
        if version >= self._owed.get((region, key), (version,))[0]:
            self._owed[region, key] = version, invalidate
        self._breaker.open("it could not be told of a change")
        return NotInvalidated(f"Redis could not be told that {region} {key} has changed; it is told again.")

    async def renew(self) -> timedelta:
        """One round; answers when the next one is due. Raises CacheUnavailable."""
        # What is owed from here on opens the breaker after this look: then this round does not close it.
        losses, began = self._breaker.losses, Moment.now()
        await self._breaker.probe(self._redis, self._redis.ping)
        failed: CacheUnavailable | None = None
        for key, (version, invalidate) in list(self._owed.items()):
            try:
                await invalidate()
            except CacheUnavailable as error:  # The others are told all the same.
                failed = error
                continue
            if self._owed[key][0] == version:
                del self._owed[key]
        if failed is not None:
            raise failed
        self._breaker.close(losses, began)
        return EVERY
