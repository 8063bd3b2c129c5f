"""How fast page views are accepted, while the flusher of the same process flushes them to Postgres.

In the library beside redis-py's INCRBY and MULTI, over HTTP beside MULTI and an upsert in Postgres, and by the thousand
in one call. After each turn the views that have arrived are counted: none is lost, and in the library, where each view
is known, none is counted twice.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

import asyncpg
from redis.asyncio import Redis

from app.wiring import Resources
from tests.benchmarks import pages
from tests.benchmarks.load import Ask, drive
from tests.benchmarks.measurement import Goal, Result, Rounds, Sample, Variant, WrongAnswer, compared, interleave, rates
from tests.benchmarks.stage import Server, Stage, library, peer, service
from tests.benchmarks.tasks import hammer
from tests.conftest import empty
from tests.eventually import eventually
from tests.keep_alive import KeepAlive

QUESTION = "How many page views are taken on in a second?"
OURS = "fourways"
INCRBY, MULTI = "redis-py INCRBY", "redis-py MULTI(INCR, XADD)"
HTTP_MULTI, HTTP_UPSERT = "FastAPI + MULTI", "FastAPI + asyncpg upsert"
BATCH = 1_000
BATCHES = 20
CALLERS = 4
AT_ONCE = 100


async def measure(stage: Stage) -> Result:
    """Measures with 64 tasks, with 64 connections, and with 4 connections that send a thousand views in each call."""
    in_library = await _in_library(stage)
    over_http = await _over_http(stage)
    in_batches = await _in_batches(stage)
    return Result(
        "views_accepted",
        QUESTION,
        [
            Goal("views/s at 64 tasks, times redis-py INCRBY", in_library.ratio(OURS, INCRBY), 10),
            Goal("views/s at 64 tasks, times redis-py MULTI", in_library.ratio(OURS, MULTI), 20),
            Goal("POST /page-views/{page}, times FastAPI + MULTI", over_http.ratio(OURS, HTTP_MULTI), 1.8),
            Goal("POST /page-views/{page}, times FastAPI + upsert", over_http.ratio(OURS, HTTP_UPSERT), 1),
            Goal("views/s of one process, by the thousand", _views(in_batches), 50_000),
        ],
        [
            compared("In the library, 64 tasks", in_library, INCRBY, unit="views/s"),
            compared("Over HTTP, 64 connections, a view each", over_http, HTTP_MULTI, unit="requests/s"),
            compared(f"Over HTTP, {CALLERS} connections, {BATCH:,} views each", in_batches, OURS, unit="requests/s"),
        ],
        rates("Views taken on in the library, views/s of one process at 64 tasks", in_library),
        {"library": in_library, "HTTP": over_http, "batches": in_batches},
    )


def _views(rounds: Rounds) -> tuple[float, ...]:
    return tuple(rate * BATCH for rate in rounds.values(OURS, lambda sample: sample.rate))


async def _in_library(stage: Stage) -> Rounds:
    await empty(stage.endpoints)
    viewed = pages.views(100_000)
    async with Redis.from_url(stage.endpoints.redis_url) as redis, library(stage) as resources:
        await warm(resources, viewed)

        def add(page: str) -> Awaitable[int | None]:
            return resources.page_views.add(page, 1)

        def incrby(page: str) -> Awaitable[int]:
            return redis.incrby(f"incrby:{page}", 1)

        async def multi(page: str) -> int:
            async with redis.pipeline(transaction=True) as pipeline:
                pipeline.incr(f"multi:{page}")
                pipeline.xadd("multi-stream", {"page": page})
                views, _entry = await pipeline.execute()
            return int(views)

        def variant(
            name: str, call: Callable[[str], Awaitable[int | None]], counted: Callable[[], Awaitable[int]]
        ) -> Variant:
            async def turn() -> Sample:
                before = await counted()
                sample = await hammer(call, viewed, lambda _, views: bool(views), tasks=64, turn=stage.size.turn / 2)
                if (found := await arrived(counted, before + sample.done)) != before + sample.done:
                    raise WrongAnswer(f"{sample.done} views were taken on by {name}, and {found - before} arrived.")
                return sample

            return Variant(name, turn)

        async def counted_by_incrby() -> int:
            return await _sum(redis, "incrby", viewed)

        async def counted_by_multi() -> int:
            if await redis.xlen("multi-stream") != await _sum(redis, "multi", viewed):
                raise WrongAnswer("The stream and the counters do not tell the same.")
            return await _sum(redis, "multi", viewed)

        return await interleave(
            [
                variant(INCRBY, incrby, counted_by_incrby),
                variant(MULTI, multi, counted_by_multi),
                variant(OURS, add, lambda: pages.counted(stage.endpoints)),
            ],
            stage.size.rounds,
            lambda text: stage.report(f"library, {text}"),
        )


async def _over_http(stage: Stage) -> Rounds:
    await empty(stage.endpoints)
    viewed = pages.views(20_000)
    asks = [
        Ask(f"/page-views/{page}", f'{{"page":"{page}","views":', method="POST", status=202, open=True)
        for page in viewed
    ]
    async with (
        Redis.from_url(stage.endpoints.redis_url) as redis,
        peer(stage, "multi") as multi,
        peer(stage, "upsert") as upsert,
        service(stage) as ours,
    ):
        await _warm_over_http(ours, viewed)

        async def upserted() -> int:
            connection = await asyncpg.connect(stage.endpoints.database_url)
            try:
                return int(await connection.fetchval("SELECT coalesce(sum(views), 0)::bigint FROM upserted"))
            finally:
                await connection.close()

        def variant(name: str, server: Server, counted: Callable[[], Awaitable[int]]) -> Variant:
            async def turn() -> Sample:
                before = await counted()
                sample = await drive(server, asks, connections=64, turn=stage.size.turn)
                # Those of the warm-up are counted in addition.
                await arrived(counted, before + sample.done)
                return sample

            return Variant(name, turn)

        return await interleave(
            [
                variant(HTTP_MULTI, multi, lambda: _sum(redis, "multi", viewed)),
                variant(HTTP_UPSERT, upsert, upserted),
                variant(OURS, ours, lambda: pages.counted(stage.endpoints)),
            ],
            stage.size.rounds,
            lambda text: stage.report(f"HTTP, {text}"),
        )


async def _in_batches(stage: Stage) -> Rounds:
    await empty(stage.endpoints)
    viewed = pages.views(BATCH * BATCHES)
    asks = [
        Ask(
            "/page-views",
            f'{{"accepted":{BATCH}}}',
            method="POST",
            content=json.dumps({"views": [{"page": page} for page in viewed[start : start + BATCH]]}),
            status=202,
        )
        for start in range(0, len(viewed), BATCH)
    ]
    async with service(stage) as ours:

        async def turn() -> Sample:
            before = await pages.counted(stage.endpoints)
            sample = await drive(ours, asks, connections=CALLERS, turn=stage.size.turn)
            await arrived(lambda: pages.counted(stage.endpoints), before + sample.done * BATCH)
            return sample

        return await interleave([Variant(OURS, turn)], stage.size.rounds, lambda text: stage.report(f"batches, {text}"))


async def warm(resources: Resources, viewed: Sequence[str]) -> None:
    """Puts the totals into the cache, as those of viewed pages are: each page gets a view, and is read."""
    pages_ = list(dict.fromkeys(viewed))
    for start in range(0, len(pages_), AT_ONCE):
        some = pages_[start : start + AT_ONCE]
        await resources.page_views.add_many(dict.fromkeys(some, 1))
        await asyncio.gather(*map(resources.page_views.get, some))


async def _warm_over_http(server: Server, viewed: Sequence[str]) -> None:
    """Does the same in a service."""
    distinct = list(dict.fromkeys(viewed))

    async def some(these: Sequence[str]) -> None:
        connection = await KeepAlive.to(server.url)
        for page in these:
            await connection.ask(f"/page-views/{page}", method="POST")
            answer = await connection.ask(f"/page-views/{page}")
            if answer.status != 200:
                raise WrongAnswer(f"The views of {page} were answered with {answer}.")
        await connection.close()

    await asyncio.gather(*(some(distinct[start::16]) for start in range(16)))


async def arrived(counted: Callable[[], Awaitable[int]], least: int) -> int:
    """Returns how many views there are, when all accepted ones have arrived, and no more come."""
    seen = -1

    async def all_of_them() -> bool:
        nonlocal seen
        before, seen = seen, await counted()
        return seen >= least and seen == before

    await eventually(all_of_them)
    return seen


async def _sum(redis: Redis, prefix: str, viewed: Sequence[str]) -> int:
    found = await redis.mget([f"{prefix}:{page}" for page in Counter(viewed)])
    return sum(int(views) for views in found if views is not None)
