"""Flush: the other half of write-behind. It writes accepted batches to the database, each one once (`flushing.py`).

Any number of flushers share the work. If one dies, the others claim its entries. If it dies after COMMIT, the ledger
already knows them.

On one Redis, one task flushes all shards together. In a cluster each shard has its own: a node that is silent, and a
slot that moves, delay the other shards in nothing.

What can go wrong: Redis or the database is down. The flusher waits, and continues by itself.
"""

import asyncio
import os
import secrets
import socket
from datetime import timedelta
from typing import Self

from redis.asyncio import Redis

from ..cache import Cache
from ..cluster import Cluster
from ..observing import ObserveFlow, unobserved
from .flushing import Flushing
from .places import places
from .target import Target

INTERVAL = timedelta(milliseconds=200)


class Flusher:
    """Flushes within its `async with`: when `amount` has gathered, or when the first entry is `interval` old, at each
    place. A read that waits for entries holds a connection, so under load the flusher of one Redis needs its own
    `redis`. In a cluster it takes the connections of the nodes: one for each shard. There, the target's functions are
    called for several shards at the same time."""

    def __init__(
        self,
        cache: Cache | Cluster,
        name: str,
        target: Target,
        *,
        redis: Redis | None = None,
        amount: int = 1000,
        interval: timedelta = INTERVAL,
        observe: ObserveFlow = unobserved,
    ) -> None:
        consumer = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._flushings = [
            Flushing(place, target, consumer, amount=amount, interval=interval, observe=observe)
            for place in places(cache, name, redis)
        ]

    async def __aenter__(self) -> Self:
        for each in self._flushings:
            await each.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        """Flushes the remaining entries for at most `DRAIN`. The rest stays in Redis, for other flushers or the next
        start."""
        await asyncio.gather(*(each.__aexit__(*error) for each in self._flushings))

    @property
    def alive(self) -> bool:
        """Whether all tasks run and their rounds end."""
        return all(each.alive for each in self._flushings)

    @property
    def trouble(self) -> Exception | None:
        """Why it repeatedly flushes nothing or not everything, None if all is well."""
        return next((each.trouble for each in self._flushings if each.trouble is not None), None)

    async def round(self) -> int:
        """Gathers, flushes and forgets once at each place, and returns how many entries there were. It also flushes a
        Redis that was replaced by another one, but not a Redis of another deployment: those entries are not ours.
        Raises CacheUnavailable, when all other places are done."""
        counts = await asyncio.gather(*(each.round() for each in self._flushings), return_exceptions=True)
        for failed in counts:
            if isinstance(failed, BaseException):
                raise failed
        return sum(count for count in counts if isinstance(count, int))
