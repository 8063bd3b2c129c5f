"""What an older version has left in the stores is carried once, and nothing of it is believed that could be wrong.

What stands in Redis is written here byte by byte, as that version wrote it: its entries, keys and values are a format.
"""

import asyncio
import time
import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest
from redis.asyncio import Redis

from app.caching import Outcome
from app.caching.write_behind.batch_id import ulid
from app.caching.write_behind.shard import number
from app.embedded import Endpoints
from app.metrics import Metrics
from app.page_views.models import hour_of
from app.schema import migrate
from app.settings import Settings
from app.wiring import open_resources
from tests.eventually import eventually
from tests.faults.another_redis import another_redis
from tests.fresh_database import fresh_database
from tests.terminal import terminal

HOUR = timedelta(hours=1)


async def test_a_backlog_and_warm_values_of_the_schema_before_the_epochs_lose_and_double_nothing(
    endpoints: Endpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three entries wait: the first was counted, and its flusher died before the acknowledgement; it had the second in
    hand, and nobody has the third. One view has come with an idempotency key. A value is warm, and is not what Postgres
    has.
    """
    monkeypatch.setattr("app.caching.write_behind.gathering.ABANDONED", timedelta(seconds=1))
    stream = f"views:{{{number('home')}}}"
    now = datetime.now(UTC)
    counted, in_hand, waiting = (ulid(now.timestamp() * 1000) for _ in range(3))
    async with another_redis() as redis_url, fresh_database(endpoints.database_url) as database_url:
        async with terminal(tmp_path / "older", "alembic", "upgrade", "0003", DATABASE_URL=database_url) as alembic:
            assert await alembic.code() == 0, alembic.screen
        sql = await asyncpg.connect(database_url)
        user = await sql.fetchrow("INSERT INTO users (name, email) VALUES ('Ada', 'ada@example.com') RETURNING *")
        assert user is not None
        await sql.execute("INSERT INTO page_views VALUES ('home', 1)")
        hour = hour_of(now)
        await sql.execute(
            f"CREATE TABLE applied_{hour:%Y%m%d%H} PARTITION OF applied FOR VALUES FROM ('{hour}') TO ('{hour + HOUR}')"
        )
        await sql.execute("INSERT INTO applied VALUES ($1, $2)", hour, counted)
        async with Redis.from_url(redis_url) as redis:
            for batch, views in ((counted, 1), (in_hand, 20), (waiting, 300)):
                words = ("XADD", stream, "*", "batch", batch, "deltas", f'{{"home":{views}}}', "views", views)
                await redis.execute_command(*words)  # type: ignore[no-untyped-call]
                await redis.set(f"{stream}:guard:{batch}", f"1-1 {views}", px=600_000)
            await redis.set(f"{stream}:backlog", 321)
            await redis.set(f"{stream}:bytes", 36)
            await redis.set(f"{stream}:key:paid home", waiting, px=86_400_000)
            await redis.xgroup_create(stream, "flushers", "0")
            await redis.xreadgroup("flushers", "died", {stream: ">"}, count=2)
            old = b'{"id":%d,"name":"Eve"}' % user["id"]
            header = b"0a1b2c3d %d %d 300000 1 %08x " % (user["version"], time.time() * 1000, zlib.crc32(old))
            await redis.set(f"users:{{{user['id']}}}", header + old, px=300_000)
            await redis.set(f"users:{{{user['id']}}}:floor", user["version"], px=10_000)
        await asyncio.to_thread(migrate, database_url)
        settings = Settings(_env_file=None, redis_url=redis_url, database_url=database_url)

        async def all_is_counted() -> bool:
            return bool(await sql.fetchval("SELECT views FROM page_views WHERE page = 'home'") == 1 + 20 + 300)

        async def is_hit() -> bool:
            reading = await resources.users.get(user["id"])
            assert reading.value is not None
            assert reading.value.name == "Ada"
            return reading.outcome is Outcome.HIT

        async with open_resources(settings, Metrics()) as resources:
            await eventually(is_hit)
            await eventually(all_is_counted)
            await resources.page_views.add("home", 1, idempotency_key="paid")
            assert (await resources.page_views.get("home")).amount == 321
        assert await all_is_counted()
        assert await sql.fetchval("SELECT count(*) FROM dead_letters") == 0
        await sql.close()
