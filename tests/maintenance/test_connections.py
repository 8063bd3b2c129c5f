"""How many connections to the stores a process opens: what an operator must allow."""

import asyncio

import asyncpg
from redis.asyncio import Redis

from app.embedded import Endpoints
from tests.faults.another_redis import another_redis
from tests.maintenance.fleet import Fleet
from tests.migrated_database import migrated_database

READERS, OWN = 40, 1
POSTGRES, REDIS = 8 + 3, 16 + 2
"""The settings' defaults, and what is added for background tasks."""


async def test_a_process_opens_no_more_connections_than_the_page_says(servers: Endpoints) -> None:
    async with (
        another_redis() as redis_url,
        migrated_database(servers.database_url) as database_url,
        Fleet.of(1, Endpoints(redis_url, database_url)) as fleet,
        Redis.from_url(redis_url) as redis,
    ):
        async with fleet.members[0].service.client(READERS) as client:
            paths = [f"/{resource}/{number}" for number in range(1, READERS) for resource in ("users", "inventory")]
            await asyncio.gather(
                *(client.get(path) for path in paths),
                *(client.post(f"/page-views/{number}") for number in range(READERS)),
            )
        sql = await asyncpg.connect(database_url)
        opened = await sql.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'fourways'"
        )
        await sql.close()
        assert 3 < opened <= POSTGRES
        assert 3 < (await redis.info("clients"))["connected_clients"] - OWN <= REDIS
