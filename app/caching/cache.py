"""What every strategy needs of one Redis: the client, its clock, whether it may be believed, and what begins its names.

    async with open_cache("redis://127.0.0.1:6379") as cache, Region(cache, "orders", Order) as region:
        orders = CacheAside(region)

Who runs a relay (an outbox in the database, and triggers that no write gets past) opens it with `relayed=True`: then
the relay alone renews the trust in Redis. Without one, the cache does so by itself; `renewal.py` says what is weaker.

What can go wrong: `relayed=True`, and no relay. Then every read asks the database, and the log says so after 5 s.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from redis.asyncio import Redis

from .breaker import Breaker
from .bulkhead import Bulkhead
from .clock import RedisClock
from .connection import open_redis
from .observing import Event, Observe
from .renewal import Renewal

logger = logging.getLogger(__name__)

PATIENCE = timedelta(seconds=5)


def _nobody(region: str, event: Event, took: timedelta, times: int) -> None:
    """Nobody wants to know."""


@dataclass(frozen=True, slots=True)
class Cache:
    """One Redis, as a process knows it. `renewal` renews the trust in it, where no relay does."""

    redis: Redis
    clock: RedisClock
    breaker: Breaker
    prefix: str = ""
    observe: Observe = _nobody
    renewal: Renewal | None = None
    bulkhead: Bulkhead = field(default_factory=Bulkhead)
    names: dict[str, str] = field(default_factory=dict)
    """What is kept under which name."""

    def claim(self, name: str, kind: str) -> str:
        """What begins the names of a kind of things in Redis. Values and counters of one name would overwrite each
        other. Raises ValueError for the second kind."""
        if self.names.setdefault(name, kind) != kind:
            raise ValueError(f"{name} is the name of {self.names[name]} already: choose another one for {kind}.")
        return self.prefix + name


@asynccontextmanager
async def open_cache(
    url: str,
    *,
    prefix: str = "",
    timeout: timedelta = timedelta(seconds=1),
    connections: int = 16,
    bypassing: int = 8,
    observe: Observe = _nobody,
    changed: Callable[[bool], None] = lambda is_open: None,
    relayed: bool = False,
) -> AsyncIterator[Cache]:
    """Opens the cache at `url` (redis://, rediss:// or unix://), which need not be up, and closes it at the end.

    `prefix` begins all names in Redis. `timeout` bounds each answer of Redis, and each wait for a connection.
    At most `bypassing` reads ask the database at the same time while Redis may not be believed. `observe` is told what
    happens in the regions, and `changed` whether Redis is bypassed now. `relayed` says that a relay renews the trust.
    """
    clock, breaker = RedisClock(), Breaker(changed=changed)
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(
            open_redis(
                url,
                timeout=timeout,
                connections=connections,
                clock=clock,
                breaker=breaker,
                marker=f"{prefix}run",
            )
        )
        if relayed:
            renewal = None
            warning = asyncio.get_running_loop().call_later(PATIENCE.total_seconds(), _warn, breaker)
            stack.callback(warning.cancel)
        else:
            renewal = Renewal(redis, breaker)
            await stack.enter_async_context(renewal.running())
        yield Cache(redis, clock, breaker, prefix, observe, renewal, Bulkhead(bypassing))


def _warn(breaker: Breaker) -> None:
    if breaker.is_open and not breaker.losses:
        logger.warning(
            "Nobody has renewed the trust in Redis for %d s, so every read asks the database. Is a relay running? "
            "Without one, open the cache without `relayed`.",
            PATIENCE.total_seconds(),
        )
