"""The connections of one process: to Redis, where a part of the work must not wait behind the rest, and to Postgres.

    cache         requests, the relay
    waiting       the flusher, which waits for entries: a read that waits holds a connection
    database      requests
    background    the relay, the flusher and the parking: behind requests, caches would rot, and views would pile up

What can go wrong: a store is away. Neither need be up here: both are connected to when they are used.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from redis.asyncio import Redis

from app.caching import Cache, open_cache, open_redis
from app.database import Database, open_database
from app.metrics import Metrics
from app.settings import Settings


@dataclass(frozen=True, slots=True)
class Stores:
    """Those that are open."""

    cache: Cache
    waiting: Redis
    database: Database
    background: Database


@asynccontextmanager
async def open_stores(settings: Settings, metrics: Metrics) -> AsyncIterator[Stores]:
    """Opens the stores that `settings` names, and closes them at the end."""
    if settings.redis_url is None or settings.database_url is None:
        raise ValueError("The settings name no stores.")
    async with (
        open_cache(
            settings.redis_url,
            prefix=settings.prefix,
            timeout=settings.redis_timeout,
            connections=settings.redis_connections,
            # Without Redis, reads may take half of the connections to the database: writers need some, too.
            bypassing=settings.database_connections // 2,
            observe=metrics.observe,
            changed=metrics.observe_breaker,
            relayed=True,
        ) as cache,
        open_redis(
            settings.redis_url,
            timeout=settings.redis_timeout + timedelta(seconds=2),  # As long as a read waits, and some more.
            connections=2,
            breaker=cache.breaker,
            marker=f"{settings.prefix}run",
        ) as waiting,
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
    ):
        yield Stores(cache, waiting, database, background)
