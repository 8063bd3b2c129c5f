"""The connection pools of one process. Work that must not queue behind other work has a pool to itself.

    cache         Redis: requests and the relay. Of a cluster, each node has such a pool
    waiting       Redis: the flusher, whose blocking reads hold a connection while they wait for entries
    database      Postgres: requests
    background    Postgres: the relay, the flusher and the parking. If they queued behind requests, cached values would
                  go stale and views would pile up.
    poller        Postgres: what the relay and the parking ask all the time, on a connection each

What can go wrong: a store is down. Opening the pools needs neither store: connections are made on first use.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from redis.asyncio import Redis

from app.caching import Cache, open_cache, open_redis
from app.caching.cluster import Cluster, open_cluster
from app.caching.redis_url import names_cluster
from app.database import Database, open_database
from app.metrics import Metrics
from app.poller import Poller, open_poller
from app.settings import Settings


@dataclass(frozen=True, slots=True)
class Stores:
    """The open connection pools."""

    cache: Cache | Cluster
    waiting: Redis | None
    database: Database
    background: Database
    poller: Poller


@asynccontextmanager
async def open_stores(settings: Settings, metrics: Metrics) -> AsyncIterator[Stores]:
    """Opens the stores that `settings` names and closes them when the block ends."""
    if settings.redis_url is None or settings.database_url is None:
        raise ValueError("The settings name no stores.")
    async with (
        _caches(settings.redis_url, settings, metrics) as (cache, waiting),
        open_database(
            settings.database_url,
            connections=settings.database_connections,
            timeout=settings.database_timeout,
            counted=metrics.count_query,
            committed=metrics.count_commit,
        ) as database,
        open_database(
            settings.database_url,
            connections=3,
            timeout=settings.database_timeout,
            within=settings.database_timeout,
            counted=metrics.count_query,
        ) as background,
        open_poller(
            settings.database_url, resources=2, timeout=settings.database_timeout, counted=metrics.count_query
        ) as poller,
    ):
        yield Stores(cache, waiting, database, background, poller)


@asynccontextmanager
async def _caches(
    url: str, settings: Settings, metrics: Metrics
) -> AsyncIterator[tuple[Cache | Cluster, Redis | None]]:
    """Opens the cache, and the connections that wait. In a cluster, they are the nodes' own."""
    # While Redis is down, reads may use half of the database connections. The rest are for writers.
    bypassing, timeout = settings.database_connections // 2, settings.redis_timeout
    opening = partial(open_cluster if names_cluster(url) else open_cache, url, prefix=settings.prefix, relayed=True)
    async with AsyncExitStack() as stack:
        cache: Cache | Cluster = await stack.enter_async_context(
            opening(
                timeout=timeout,
                connections=settings.redis_connections,
                bypassing=bypassing,
                observe=metrics.observe,
                changed=metrics.observe_breaker,
            )
        )
        waiting = None
        if not isinstance(cache, Cluster):
            waiting = await stack.enter_async_context(
                open_redis(
                    url,
                    timeout=timeout + timedelta(seconds=2),  # A blocking read's wait, and some margin.
                    connections=2,
                    identity=cache.identity,
                    marker=f"{settings.prefix}run",
                )
            )
        yield cache, waiting
