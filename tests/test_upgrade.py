"""Views that an older version has left in the stores are counted once, and none of its values that could be wrong is
trusted.

The tests write the contents of Redis byte by byte, as that version wrote them: entries, keys and values are a format.
"""

import ast
import asyncio
import json
import re
import time
import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis

from app.caching import Outcome
from app.caching.write_behind.batch_id import ulid
from app.caching.write_behind.shard import GROUP, Shard, number
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
KEPT = Path(__file__).parent / "caching" / "write_behind" / "kept_in_redis.txt"
"""Everything that some calls leave in Redis, byte by byte, from the version before write-behind had its own package."""
RECORD = "INSERT INTO applied VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING true"
COUNT = """
INSERT INTO page_views AS counted VALUES ($1, $2)
ON CONFLICT (page) DO UPDATE SET views = counted.views + excluded.views
"""
KINDS = re.compile(r"(.+?) (stream|string|hash)(?: for (?:\d+ days?, )?[\d:]+)?: (.*)")


async def test_an_upgrade_from_before_the_epochs_loses_and_doubles_no_view_and_trusts_no_value(
    endpoints: Endpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three entries wait. The first was counted, but its flusher died before the acknowledgement. The second was
    pending at that flusher, and the third was never delivered. One view came with an idempotency key. A cached value
    is warm, but differs from the row in Postgres.
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


async def restore(redis: Redis, batches: str) -> dict[str, int]:
    """Puts the entries that the previous version had accepted into Redis, with batch ids that begin with these letters.
    Returns their sums by page."""
    accepted, _, _flushed = KEPT.read_text().partition("Flushed")
    accepted = accepted.replace("01MCC5RM00", batches).replace("<epoch>", "e" * 16).replace("<id of the entry>", "1-1")
    sums: dict[str, int] = {}
    stream = ""
    for line in accepted.splitlines():
        if entry := line.removeprefix("    ") if line.startswith("    ") else "":
            fields = ast.literal_eval(entry)
            await redis.xadd(stream, fields)
            for page, delta in json.loads(fields[b"deltas"]).items():
                sums[page] = sums.get(page, 0) + delta
        elif found := KINDS.fullmatch(line):
            name, kind, value = found.groups()
            if kind == "stream":
                stream = name
                await redis.xgroup_create(stream, GROUP, "0", mkstream=True)
            elif name.endswith(":keyed"):
                await redis.hset(name, str(int(time.time() // 3600)), value)
            elif kind == "hash":
                await redis.hset(name, mapping=ast.literal_eval(value))
            else:
                await redis.set(name, ast.literal_eval(value))
    return sums


async def test_views_accepted_by_the_previous_version_count_once_while_both_versions_run(
    endpoints: Endpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Entries of the previous version wait in every shard. Its flusher has committed an entry, and dies before it can
    acknowledge it. While this version runs, another flusher of the previous version commits and acknowledges the next
    entry, and the previous version accepts one more. Its clients retry their calls on this version.
    """
    monkeypatch.setattr("app.caching.write_behind.gathering.ABANDONED", timedelta(seconds=1))
    now = datetime.now(UTC)
    hour, of_now = hour_of(now), ulid(now.timestamp() * 1000)[:10]
    home = Shard("views", number("home"))
    async with another_redis() as redis_url, fresh_database(endpoints.database_url) as database_url:
        await asyncio.to_thread(migrate, database_url)
        sql = await asyncpg.connect(database_url)

        async def count(entry: dict[bytes, bytes]) -> None:
            async with sql.transaction():
                await sql.execute("SELECT open_ledger_hour($1)", hour)
                if await sql.fetchval(RECORD, hour, entry[b"batch"].decode()):
                    for page, delta in json.loads(entry[b"deltas"]).items():
                        await sql.execute(COUNT, page, delta)

        async with Redis.from_url(redis_url, protocol=2) as redis:
            sums = await restore(redis, of_now)
            waits: Any = await redis.xreadgroup(GROUP, "older", {home.stream: ">"}, count=2)
            (_, committed), (id_, in_hand) = waits[0][1]
            await count(committed)
            settings = Settings(_env_file=None, redis_url=redis_url, database_url=database_url)
            async with open_resources(settings, Metrics()) as resources:
                views = resources.page_views
                await views.add("news", 2**50, "visit-1")
                await views.add("home", 1, "visit-1")
                await views.add_many({"home": 6, "news": 7, "c": 8, "d": 7}, "call-1")
                await views.add("home", 1000)
                # The previous version continues, with its own commands.
                await count(in_hand)
                more: Any = {b"batch": f"{of_now}{'0' * 15}Z", b"deltas": b'{"home":20000}', b"views": b"20000"}
                async with redis.pipeline() as pipeline:
                    pipeline.xack(home.stream, GROUP, id_)
                    pipeline.xdel(home.stream, id_)
                    pipeline.set(home.generation, "f" * 16)
                    pipeline.decrby(home.backlog, int(in_hand[b"views"]))
                    pipeline.decrby(home.bytes, len(in_hand[b"deltas"]))
                    pipeline.xadd(home.stream, more)
                    pipeline.incrby(home.backlog, 20000)
                    pipeline.incrby(home.bytes, len(more[b"deltas"]))
                    await pipeline.execute()
                sums["home"] += 1000 + 20000

                async def all_is_counted() -> bool:
                    rows = await sql.fetch("SELECT page, views FROM page_views")
                    return {row["page"]: row["views"] for row in rows} == sums

                async def nothing_waits() -> bool:
                    return (await views.backlog()).oldest is None

                await eventually(all_is_counted)
                await eventually(nothing_waits)
                assert {page: (await views.get(page)).amount for page in sums} == sums
            assert await all_is_counted()
            assert not [name async for name in redis.scan_iter("views:*") if name.endswith((b":backlog", b":bytes"))]
        assert await sql.fetchval("SELECT count(*) FROM dead_letters") == 0
        await sql.close()
