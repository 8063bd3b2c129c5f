"""Clients of a Redis, or of a cluster, as with redis-cli."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import cast

from redis.asyncio import Redis, RedisCluster

from app.caching.redis_url import names_cluster, node_url, read_redis_url


@asynccontextmanager
async def by_hand(redis_url: str) -> AsyncIterator[Redis]:
    """Yields a client. In a cluster, each command goes to the node that has its key."""
    if not names_cluster(redis_url):
        async with Redis.from_url(redis_url, protocol=2) as redis:
            yield redis
        return
    seed, *_ = read_redis_url(redis_url)["nodes"]
    async with RedisCluster.from_url(node_url(redis_url, seed), protocol=2) as cluster:
        yield cast("Redis", cluster)  # They have no common type.


@asynccontextmanager
async def each_by_hand(redis_url: str) -> AsyncIterator[list[Redis]]:
    """Yields a client of each node that the URL names: of a single one, unless it names a cluster."""
    nodes = read_redis_url(redis_url).get("nodes")
    urls = [redis_url] if nodes is None else [node_url(redis_url, node) for node in nodes]
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(Redis.from_url(url, protocol=2)) for url in urls]
