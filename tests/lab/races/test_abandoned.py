"""The leftovers of a killed exploration are removed by the next one, and nothing else is."""

import asyncpg
from redis.asyncio import Redis

from app.embedded import Endpoints
from app.lab.races.abandoned import remove_abandoned
from app.lab.races.schema import schema


async def test_leftovers_of_a_killed_exploration_are_removed_and_what_is_in_use_stays(
    endpoints: Endpoints, redis: Redis, sql: asyncpg.Connection
) -> None:
    await sql.execute("CREATE SCHEMA fourways_races_0badcafe CREATE TABLE rows (key text)")
    await sql.execute("CREATE SCHEMA fourways_races_of_mine")
    try:
        async with schema(endpoints.database_url) as used:
            for key in ("races:fourways_races_0badcafe:k", "races:fourways_races_0badfeed:queue"):
                await redis.set(key, 1)
            kept = {f"races:{used}:k".encode(), b"races:mine"}
            for name in kept:
                await redis.set(name, 1)
            await remove_abandoned(redis, endpoints.database_url)
            assert set(await redis.keys("*")) == kept
            left = await sql.fetch("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'fourways_races%'")
            assert {name for (name,) in left} == {used, "fourways_races_of_mine"}
    finally:
        await sql.execute("DROP SCHEMA fourways_races_of_mine")
