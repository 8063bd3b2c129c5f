"""What leads from the service to its stores, in one topology."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Self
from urllib.parse import parse_qs, urlsplit, urlunsplit

from app.embedded import Endpoints
from tests.faults.another_redis import another_redis
from tests.faults.cluster_wire import ClusterWire
from tests.faults.pgbouncer import PgBouncer, pgbouncer
from tests.faults.postgres_wire import PostgresWire
from tests.faults.redis_cluster import RedisCluster
from tests.faults.redis_wire import RedisWire
from tests.faults.sentinel_wire import SentinelWire
from tests.topologies.pooled_wire import PooledWire
from tests.topologies.topology import TOPOLOGIES, RedisKind, Topology

WIRES: Mapping[RedisKind, Callable[[str], RedisWire]] = {
    "redis": RedisWire,
    "sentinel": SentinelWire,
    "cluster": ClusterWire,
}
NODES = 3
"""Primaries of a cluster. They have no replicas: Redis is away when all of them are."""
SESSIONS = 8
"""Sessions of a pooler for each database: fewer than the connections of two instances."""


class Ways:
    """Leads to whichever stores a test names. Whoever looks into a store by hand uses its own URL."""

    @classmethod
    @asynccontextmanager
    async def opened(cls, topology: Topology) -> AsyncIterator[Self]:
        """Yields the ways. What they need is started at the first use, and ends with the block."""
        async with AsyncExitStack() as stack:
            yield cls(topology, stack)

    def __init__(self, topology: Topology, stack: AsyncExitStack) -> None:
        self.topology, self._stack = topology, stack
        self._poolers: dict[str, PgBouncer] = {}
        self._cluster: RedisCluster | None = None
        self._starting = asyncio.Lock()

    async def stores(self, servers: Endpoints) -> Endpoints:
        """Returns the stores of a test that may use those of the session: these, or its emptied cluster."""
        if self.topology.redis != "cluster":
            return servers
        if self._cluster is None:
            self._cluster = await self._stack.enter_async_context(RedisCluster.started(NODES))
        await self._cluster.restore()
        return Endpoints(self._cluster.url, servers.database_url)

    @asynccontextmanager
    async def another_redis(self) -> AsyncIterator[str]:
        """Yields the URL of a Redis, or of a cluster, that belongs to one test. It ends with the block."""
        if self.topology.redis != "cluster":
            async with another_redis() as redis_url:
                yield redis_url
            return
        async with RedisCluster.started(NODES) as cluster:
            yield cluster.url

    def redis(self, redis_url: str) -> RedisWire:
        """Returns a wire to this Redis, for one instance."""
        return WIRES[self.topology.redis](redis_url)

    def postgres(self, database_url: str) -> PostgresWire:
        """Returns a wire to this Postgres, for one instance. Behind their wires, instances share a pooler."""
        if self.topology.database == "direct":
            return PostgresWire(database_url)
        return PooledWire(database_url, self.database)

    async def named(self, stores: Endpoints) -> Endpoints:
        """Returns what the settings of an instance name to reach these stores without wires of its own."""
        redis_url = stores.redis_url
        if self.topology.redis == "sentinel":  # Redis has a socket, and a Sentinel can name only a port.
            redis_url = (await self._stack.enter_async_context(SentinelWire(redis_url))).url
        return Endpoints(redis_url, await self.database(stores.database_url))

    async def database(self, database_url: str) -> str:
        """Returns what they name to reach this database: the database itself, or the pooler of its server."""
        if self.topology.database == "direct":
            return database_url
        parts = urlsplit(database_url)
        (server,) = parse_qs(parts.query)["host"]
        async with self._starting:
            if server not in self._poolers:
                pooler = pgbouncer(database_url, "transaction", sessions=SESSIONS)
                self._poolers[server] = await self._stack.enter_async_context(pooler)
        return urlunsplit(urlsplit(self._poolers[server].url)._replace(path=parts.path))


STRAIGHT = Ways(TOPOLOGIES[0], AsyncExitStack())
"""For tests of one topology."""
