"""Three processes of the service on a Redis Cluster of three primaries and three replicas, and on a Postgres."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Self

import asyncpg
from redis.crc import REDIS_CLUSTER_HASH_SLOTS as SLOTS

from tests.eventually import eventually
from tests.faults.redis_cluster import HASTY, RedisCluster
from tests.faults.stores import Stores
from tests.histories.identity.state import State
from tests.histories.identity.views import Views
from tests.outages.cluster.slots import SHARDS, keys_in, of_key
from tests.outages.instance import PATIENT
from tests.service import FOURWAYS, Service, serving

INSTANCES, ROWS, PRIMARIES = 3, 4, 3
PIECES = 1_000_000
SETTINGS = {**PATIENT, "FOURWAYS_DATABASE_TIMEOUT": "10"}
"""A busy machine makes Postgres slow, and is not the subject here."""


class Deployment:
    """The stores, the processes, and the rows that are read and written."""

    @classmethod
    @asynccontextmanager
    async def started(cls) -> AsyncIterator[Self]:
        """Starts everything, with some rows. It ends with the block."""
        async with AsyncExitStack() as stack:
            stores = await asyncio.to_thread(lambda: stack.enter_context(Stores.started()))
            database_url = stores.endpoints.database_url
            begun = RedisCluster.started(PRIMARIES, replicas=1, node_timeout=HASTY, partitions=True, persistent=True)
            cluster = await stack.enter_async_context(begun)
            sql = await asyncpg.connect(database_url)
            stack.push_async_callback(sql.close)
            for number in range(ROWS):
                await sql.execute("INSERT INTO users (name, email) VALUES ($1, $1)", f"u{number}@example.com")
                await sql.execute("INSERT INTO products (sku, name, price) VALUES ($1, $1, '1')", f"P{number}")
            deployment = cls(cluster, sql, sorted((await State.of(sql)).rows))
            for sku in deployment.probes.values():
                await sql.execute("INSERT INTO stock (sku, quantity) VALUES ($1, $2)", sku, PIECES)
            served = (
                serving(
                    cluster.url,
                    database_url,
                    command=FOURWAYS,
                    workers=1,
                    **SETTINGS,
                )
                for _ in range(INSTANCES)
            )
            deployment.services = await asyncio.gather(*map(stack.enter_async_context, served))
            yield deployment

    def __init__(self, cluster: RedisCluster, sql: asyncpg.Connection, rows: Sequence[str]) -> None:
        self.cluster, self.rows, self._sql = cluster, rows, sql
        self.services: Sequence[Service] = ()
        in_each = range(SLOTS // PRIMARIES // 2, SLOTS, SLOTS // PRIMARIES)
        self.skus = list(keys_in(in_each, "S").values())
        """The stock that clients read and change: some in each primary."""
        self.slots = {*SHARDS.values(), *map(of_key, self.skus), *(of_key(row.split("/")[1]) for row in rows)}
        """The slots of all that the clients read and change."""
        self.probes = keys_in(self.slots, "probe-")
        """For each of these slots the SKU of a stock that no client changes."""

    async def state(self) -> State:
        """Returns what is in Postgres now."""
        return await State.of(self._sql)

    async def counted(self, views: Views) -> State:
        """Returns what is in Postgres when it lacks no view that was answered, or after a long time."""
        with suppress(AssertionError):  # The check says which ones are missing.
            await eventually(lambda: self._has_all(views))
        return await self.state()

    async def _has_all(self, views: Views) -> bool:
        return not views.lacking(await self.state())
