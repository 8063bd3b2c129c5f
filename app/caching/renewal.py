"""Renews the trust in Redis where no relay does: it asks Redis what it is, and retries failed invalidations.

    every 100 ms    ask Redis what it is → retry the invalidations that failed → trust Redis for 350 ms

A process does not believe Redis while it owes it an invalidation. So it reads its own writes.

What is weaker than with a relay:

    a write that bypasses the cache (in SQL, by another program) is seen only when the entry expires
    a failed invalidation is retried by this process alone: until then, others may read the old value; if this process
    dies first, they may read it until the entry expires
    a Redis that does not report restarts (no INFO) may bring back invalidated values
    nobody notices that the database was restored, or created anew: old values stay until they expire

What can go wrong: Redis is down for a long time, and ever more keys are owed (`owed.py`).
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager
from datetime import timedelta

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from .breaker import Breaker
from .errors import CacheUnavailable, NotInvalidated
from .identity import Identity
from .moment import Moment
from .owed import Owed
from .repeating import Repeating
from .trust import Trust

logger = logging.getLogger(__name__)

EVERY = timedelta(milliseconds=100)


class Renewal:
    """The task that retries the invalidations that this process owes Redis, and renews the trust in it."""

    def __init__(self, redis: Redis, trust: Trust, breaker: Breaker, identity: Identity) -> None:
        self._redis, self._trust, self._breaker, self._identity = redis, trust, breaker, identity
        self._owed = Owed()
        self._repeating = Repeating("renewal of the trust in Redis", self.renew, lambda: None)

    @property
    def owed(self) -> int:
        """How many keys still have to be invalidated."""
        return len(self._owed)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Renews the trust while the block lasts. If Redis is down at the start, it is retried."""
        try:
            await self.renew()
        except CacheUnavailable as error:
            logger.warning("%s Reads query the database until it answers.", error)
        try:
            async with self._repeating.running():
                yield
        finally:
            await self._owed.give_up()

    def owe(
        self, region: str, key: Hashable, version: int, invalidate: Callable[[], Awaitable[None]]
    ) -> NotInvalidated:
        """Records a failed invalidation. It is retried, and Redis is not believed before it succeeds. Returns the
        exception to raise."""
        failed = self._owed.add(region, key, version, invalidate)
        self._trust.lose("an invalidation failed")
        return failed

    async def renew(self) -> timedelta:
        """Makes one round, and returns the time until the next one. Raises CacheUnavailable."""
        # An invalidation owed from here on raises `losses` again: then this round does not grant trust.
        losses, began = self._trust.losses, Moment.now()
        said = await self._breaker.probe(self._redis, self._replication)
        if said is not None:
            self._trust.lose(said)
            raise CacheUnavailable(f"Redis is not believed: {said}.")
        await self._owed.retry()
        self._trust.grant(losses, began)
        return EVERY

    async def _replication(self) -> str | None:
        """Returns why Redis may not be what it was when the connections in use were made, None if it is:

            the primary X becomes a replica of Y     a value is invalidated on Y, which dies before X has heard of it
            X is the primary again                   connections to X never broke, and X has the old value of its run

        Once trust is lost, the next round connects anew, and learns the run."""
        try:
            told = await self._redis.info("replication")
        except ResponseError:  # INFO is not permitted or not supported.
            await self._redis.ping()
            return None
        run, replication = self._identity.run or "", str(told.get("master_replid", ""))[:8]
        if told.get("role") == "slave":
            return "it is a replica"
        if "-" in run and replication and not run.endswith(replication):
            return "it was a replica, and is a primary again"
        return None
