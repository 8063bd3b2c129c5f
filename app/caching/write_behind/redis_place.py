"""All shards in one Redis.

What can go wrong: it does not answer, or is not believed: `CacheUnavailable`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from ..cache import Cache
from ..clock import RedisClock
from ..errors import REDIS_DOWN, CacheUnavailable
from ..identity import Identity
from ..words import unavailable
from .life import Life
from .scripts import ASKED
from .shard import Shard, number


@dataclass(frozen=True, slots=True)
class RedisPlace:
    """One Redis, as `cache` knows it. Commands are sent by `redis`."""

    cache: Cache
    shards: Sequence[Shard]
    redis: Redis

    @property
    def draining(self) -> Redis:
        """The client for what is pending."""
        return self.redis

    @property
    def clock(self) -> RedisClock:
        """Its clock."""
        return self.cache.clock

    @property
    def life(self) -> Life:
        """Its present life."""
        return Life(self.cache.identity.life)

    @property
    def identity(self) -> Identity:
        """Which Redis it is."""
        return self.cache.identity

    @property
    def writable(self) -> bool:
        """Whether it answers and may be written to."""
        return self.cache.writable

    def refuses(self, *, drains: bool) -> str | None:
        """Returns why it is not asked, None if it is."""
        asked = self.cache.breaker.reachable if drains else self.cache.writable
        return None if asked else f"Redis is not asked for {ASKED}: {self.cache.trust.why}"

    async def totals(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        """Returns the cached totals of keys: one MGET. Raises CacheUnavailable."""
        if refused := self.refuses(drains=False):
            raise CacheUnavailable(f"{refused}.")
        life = self.cache.identity.life
        try:
            totals: list[Any] = await self.redis.mget([self.shards[number(key)].total(key, life) for key in keys])
        except REDIS_DOWN as error:
            raise unavailable(error, ASKED) from error
        if life != self.cache.identity.life:  # These totals are of a life that is over.
            return [None] * len(keys)
        return totals
