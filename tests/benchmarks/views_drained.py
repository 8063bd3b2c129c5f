"""How fast page views reach Postgres: while they come, and when many wait.

while they come     64 tasks send views, and the flusher of the same process flushes them; what still waits at the end
                    of a turn was not drained in it
when many wait      the table is locked until a turn's views wait; then they are let through
the usual loop      one UPDATE and one XACK for each stream entry
"""

import asyncio
import time
from collections.abc import Awaitable
from datetime import timedelta
from statistics import median
from typing import cast

import asyncpg
from redis.asyncio import Redis

from app.wiring import Resources
from tests.benchmarks import pages
from tests.benchmarks.measurement import (
    Bar,
    Chart,
    Goal,
    Result,
    Sample,
    Table,
    Variant,
    WrongAnswer,
    interleave,
    spread,
)
from tests.benchmarks.stage import Stage, library
from tests.benchmarks.tasks import hammer
from tests.benchmarks.views_accepted import arrived, warm
from tests.conftest import empty

QUESTION = "How fast do page views reach Postgres?"
EVERYSEC, ALWAYS = "fourways, AOF everysec", "fourways, AOF always"
BACKLOG, LOOP = "fourways, when many wait", "one UPDATE and one XACK an entry"
ENTRIES = 2_000
LOOK = timedelta(milliseconds=10)


async def measure(stage: Stage) -> Result:
    """Measures accepted and drained views in the same turns; then a backlog, and the usual loop."""
    await empty(stage.endpoints)
    viewed = pages.views(100_000)
    drained: dict[str, list[float]] = {EVERYSEC: [], ALWAYS: []}
    behind: dict[str, list[float]] = {EVERYSEC: [], ALWAYS: []}
    async with Redis.from_url(stage.endpoints.redis_url) as redis, library(stage) as resources:
        await warm(resources, viewed)

        def add(page: str) -> Awaitable[int | None]:
            return resources.page_views.add(page, 1)

        def while_they_come(name: str, fsync: str) -> Variant:
            async def turn() -> Sample:
                await redis.config_set("appendfsync", fsync)
                before = await pages.counted(stage.endpoints)
                # Accepted, and the total is known.
                sample = await hammer(add, viewed, lambda _, views: bool(views), tasks=64, turn=stage.size.turn)
                in_time = await pages.counted(stage.endpoints) - before
                began = time.perf_counter()
                await _all_there(stage, before + sample.done)
                drained[name].append(in_time / sample.done)
                behind[name].append((time.perf_counter() - began) * 1000)
                await redis.config_set("appendfsync", "everysec")
                return sample

            return Variant(name, turn)

        async def backlog() -> Sample:
            return await _drain(stage, resources, viewed)

        async def loop() -> Sample:
            return await _usual_loop(stage, redis, viewed[:ENTRIES])

        coming = await interleave(
            [while_they_come(EVERYSEC, "everysec"), while_they_come(ALWAYS, "always")], stage.size.rounds, stage.report
        )
        waiting = await interleave([Variant(LOOP, loop), Variant(BACKLOG, backlog)], stage.size.rounds, stage.report)
    rows = [
        [
            name,
            f"{median(coming.values(name, lambda sample: sample.rate)):,.0f}",
            # The first one is the warm-up.
            spread(drained[name][1:]),
            f"{median(behind[name][1:]):.0f}",
        ]
        for name in coming.samples
    ]
    drains = [
        [name, f"{median(waiting.values(name, lambda sample: sample.rate)):,.0f}", spread(waiting.ratio(name, LOOP))]
        for name in waiting.samples
    ]
    return Result(
        "views_drained",
        QUESTION,
        [
            Goal("drained by accepted, in the same turn", drained[EVERYSEC][1:], 0.9),
            Goal("views/s of a backlog, times the usual loop", waiting.ratio(BACKLOG, LOOP), 40),
            Goal("accepted with AOF always, by everysec", coming.ratio(ALWAYS, EVERYSEC), 0.5),
        ],
        [
            Table("While they come", ["", "accepted/s", "drained by accepted", "ms until all are there"], rows),
            Table("When many wait", ["", "views/s", f"times {LOOP}"], drains),
        ],
        Chart(
            "Views that reach Postgres, views/s",
            [Bar(name, waiting.values(name, lambda sample: sample.rate)) for name in waiting.samples],
        ),
        {"while they come": coming, "when many wait": waiting},
    )


async def _all_there(stage: Stage, views: int) -> None:
    found = await arrived(lambda: pages.counted(stage.endpoints), views)
    if found != views:
        raise WrongAnswer(f"There are {found} views, and {views} were taken on.")


async def _drain(stage: Stage, resources: Resources, viewed: list[str]) -> Sample:
    """Lets a turn's views pile up, then lets them through. The time is from the last poll that saw none to the first
    that saw all."""

    def add(page: str) -> Awaitable[int | None]:
        return resources.page_views.add(page, 1)

    before = await pages.counted(stage.endpoints)
    connection = await asyncpg.connect(stage.endpoints.database_url)
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE page_views, parked_views IN EXCLUSIVE MODE")
            sample = await hammer(add, viewed, lambda *_: True, tasks=64, turn=stage.size.turn / 2)
    finally:
        await connection.close()
    looker = await asyncpg.connect(stage.endpoints.database_url)
    cpu, began, found = time.process_time(), time.perf_counter(), before
    limit = began + 60
    while found < before + sample.done:
        if time.perf_counter() > limit:
            raise WrongAnswer(f"Of {sample.done} views that waited, {found - before} have arrived after a minute.")
        found = int(await looker.fetchval("SELECT coalesce(sum(views), 0)::bigint FROM page_views"))
        if found == before:
            cpu, began = time.process_time(), time.perf_counter()
        await asyncio.sleep(LOOK.total_seconds())
    ended, used = time.perf_counter(), time.process_time() - cpu
    await looker.close()
    await _all_there(stage, before + sample.done)
    return Sample(sample.done, timedelta(seconds=ended - began), timedelta(seconds=used))


async def _usual_loop(stage: Stage, redis: Redis, viewed: list[str]) -> Sample:
    """Runs the loop with which write-behind on a stream is usually shown."""
    connection = await asyncpg.connect(stage.endpoints.database_url)
    await connection.execute("CREATE TABLE IF NOT EXISTS looped (page text PRIMARY KEY, views bigint NOT NULL)")
    await connection.execute("TRUNCATE looped")
    await connection.executemany("INSERT INTO looped VALUES ($1, 0)", [(page,) for page in set(viewed)])
    await redis.delete("looped")
    await redis.xgroup_create("looped", "writer", "0", mkstream=True)
    async with redis.pipeline(transaction=False) as pipeline:
        for page in viewed:
            pipeline.xadd("looped", {"page": page})
        await pipeline.execute()
    cpu, began, done = time.process_time(), time.perf_counter(), 0
    while done < len(viewed):
        answer = await redis.xreadgroup("writer", "one", {"looped": ">"}, count=50)
        for _stream, entries in cast("list[tuple[bytes, list[tuple[bytes, dict[bytes, bytes]]]]]", answer):
            for entry, fields in entries:
                await connection.execute(
                    "UPDATE looped SET views = views + 1 WHERE page = $1", fields[b"page"].decode()
                )
                await redis.xack("looped", "writer", entry)
                done += 1
    took, used = time.perf_counter() - began, time.process_time() - cpu
    found = await connection.fetchval("SELECT sum(views)::bigint FROM looped")
    await connection.close()
    if found != len(viewed):
        raise WrongAnswer(f"The loop has counted {found} views, and there were {len(viewed)}.")
    return Sample(done, timedelta(seconds=took), timedelta(seconds=used))
