"""What every strategy needs from one Redis: the client, what this process knows of it, and the prefix of its names.

    async with open_cache("redis://127.0.0.1:6379") as cache, Region(cache, "orders", Order) as region:
        orders = CacheAside(region)

If you run a relay (an outbox in the database, and triggers that no write bypasses), open the cache with `relayed=True`:
then only the relay renews the trust in Redis. Without one, the cache renews it; `renewal.py` says what is weaker.

What can go wrong: `relayed=True` without a relay. Then every read queries the database, and the log says so after 5 s.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from redis.asyncio import Redis

from .breaker import Breaker
from .bulkhead import Bulkhead
from .clock import RedisClock
from .connection import open_redis
from .identity import Identity
from .observing import Event, Observe
from .renewal import Renewal
from .trust import Trust

logger = logging.getLogger(__name__)

PATIENCE = timedelta(seconds=5)


def unobserved(region: str, event: Event, took: timedelta, times: int) -> None:
    """Ignores the event."""


@dataclass(frozen=True, slots=True, eq=False)
class Cache:
    """One Redis, as this process knows it. `renewal` renews the trust in it where no relay does."""

    redis: Redis
    clock: RedisClock
    trust: Trust
    breaker: Breaker
    identity: Identity
    prefix: str = ""
    observe: Observe = unobserved
    renewal: Renewal | None = None
    bulkhead: Bulkhead = field(default_factory=Bulkhead)
    names: dict[str, str] = field(default_factory=dict)
    """The kind of data kept under each name."""

    @property
    def caches(self) -> "Sequence[Cache]":
        """Itself: a cluster has several (`cluster/cluster.py`)."""
        return [self]

    def place(self, name: str) -> "Cache | None":
        """Returns the cache that has this name in Redis: itself."""
        return self

    @property
    def writable(self) -> bool:
        """Whether Redis answers and may be written to."""
        return self.breaker.reachable and self.identity.refused is None

    @property
    def renews(self) -> bool:
        """Whether this process renews the trust by itself. Otherwise a relay has to."""
        return self.renewal is not None

    def claim(self, name: str, kind: str) -> str:
        """Reserves a name for one kind of data, and returns its prefix in Redis. Raises ValueError if the name belongs
        to another kind."""
        return self.prefix + claimed(self.names, name, kind)


def claimed(names: dict[str, str], name: str, kind: str) -> str:
    """Reserves a name for one kind of data, and returns it. Raises ValueError if it belongs to another kind: values and
    counters under one name would overwrite each other."""
    if names.setdefault(name, kind) != kind:
        raise ValueError(f"{name} is already the name of {names[name]}: choose another one for {kind}.")
    return name


@asynccontextmanager
async def open_cache(
    url: str,
    *,
    prefix: str = "",
    timeout: timedelta = timedelta(seconds=1),
    connections: int = 16,
    bypassing: int = 8,
    observe: Observe = unobserved,
    changed: Callable[[bool], None] = lambda is_open: None,
    relayed: bool = False,
) -> AsyncIterator[Cache]:
    """Opens the cache at `url` (`redis_url.py` says what it may be), which need not be up, and closes it at the end.
    Raises ValueError for a URL that it cannot use as it is.

    `prefix` begins all names in Redis. `timeout` bounds each answer of Redis and each wait for a connection. While
    Redis may not be believed, at most `bypassing` reads query the database at the same time. `observe` is called for
    each event in a region. `changed` is called with True when Redis is bypassed, and False when it is believed again.
    `relayed` says that a relay renews the trust.
    """
    clock, trust = RedisClock(), Trust(changed=changed)
    breaker, identity = Breaker(trust), Identity(trust)
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(
            open_redis(
                url,
                timeout=timeout,
                connections=connections,
                clock=clock,
                identity=identity,
                marker=f"{prefix}run",
            )
        )
        if relayed:
            renewal = None
            warning = asyncio.get_running_loop().call_later(PATIENCE.total_seconds(), _warn, trust)
            stack.callback(warning.cancel)
        else:
            renewal = Renewal(redis, trust, breaker, identity)
            await stack.enter_async_context(renewal.running())
        yield Cache(redis, clock, trust, breaker, identity, prefix, observe, renewal, Bulkhead(bypassing))


def _warn(trust: Trust) -> None:
    if trust.lost and not trust.losses:
        logger.warning(
            "Nothing has renewed the trust in Redis for %d s, so every read queries the database. Is a relay running? "
            "Without one, open the cache without `relayed`.",
            PATIENCE.total_seconds(),
        )
