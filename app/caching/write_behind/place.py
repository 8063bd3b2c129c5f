"""Where shards are. The shards of one place share calls, and so wait for each other. Those of other places do not.

one Redis    has all shards (`redis_place.py`)
a cluster    each shard is in one slot, and a place of its own, wherever that slot moves (`cluster_place.py`)
"""

from collections.abc import Sequence
from typing import Protocol

from redis.asyncio import Redis

from ..identity import Identity
from .batch_clock import Clock
from .life import Life
from .shard import Shard


class Place(Protocol):
    """Some shards, and what this process knows of the Redis that has them now."""

    @property
    def shards(self) -> Sequence[Shard]:
        """The shards that are there."""

    @property
    def redis(self) -> Redis:
        """The client for commands about these shards."""

    @property
    def draining(self) -> Redis:
        """The same for what is pending: it is also read and removed where nothing may be written any more."""

    @property
    def clock(self) -> Clock:
        """The clock for ids, and for how old entries are."""

    @property
    def life(self) -> Life:
        """The present life."""

    @property
    def identity(self) -> Identity:
        """Which Redis it is. Raises CacheUnavailable if that is not known."""

    @property
    def writable(self) -> bool:
        """Whether Redis answers and may be written to."""

    def refuses(self, *, drains: bool) -> str | None:
        """Returns why Redis is not asked, None if it is. With `drains`, one that is no longer believed is asked."""

    async def totals(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        """Returns the cached totals of keys of these shards. Raises CacheUnavailable."""
