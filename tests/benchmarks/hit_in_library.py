"""What a hit costs in the library, without HTTP: one call beside redis-py's GET, cashews and aiocache.

The first four answer bytes, the others objects: what they decode is part of the price.
"""

import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiocache import RedisCache
from redis.asyncio import Redis

from app.caching import Outcome, Reading
from app.products.models import Product
from tests.benchmarks.catalogue import fill
from tests.benchmarks.measurement import Goal, Result, Rounds, Sample, Variant, WrongAnswer, compared, interleave, rates
from tests.benchmarks.peers.cashews_cache import cache_at, cached
from tests.benchmarks.stage import Stage, library
from tests.benchmarks.tasks import hammer

QUESTION = "How many hits does the library answer in a process, beside a bare GET?"
BASE, CASHEWS, OURS = "redis-py GET", "cashews", "fourways"
CASHEWS_DECODED, AIOCACHE, OURS_DECODED = "cashews, decoded", "aiocache, decoded", "fourways, decoded"


async def measure(stage: Stage) -> Result:
    """64 tasks, and one."""
    products = await fill(stage.endpoints)
    skus = list(products)
    rows = {sku: json.loads(payload) for sku, payload in products.items()}
    models = {sku: Product.model_validate_json(payload) for sku, payload in products.items()}
    cashews = cache_at(stage.endpoints.redis_url)
    # Its own constructor knows no unix socket.
    aiocache = RedisCache()
    aiocache.client = Redis.from_url(stage.endpoints.redis_url)
    loads = 0

    @cached(cashews, "bytes:{sku}")
    async def load(sku: str) -> bytes:
        nonlocal loads
        loads += 1
        return products[sku]

    @cached(cashews, "row:{sku}")
    async def load_row(sku: str) -> dict[str, Any]:
        nonlocal loads
        loads += 1
        row: dict[str, Any] = rows[sku]
        return row

    async with Redis.from_url(stage.endpoints.redis_url) as redis, library(stage) as resources:

        def hit(sku: str, reading: Reading[Product]) -> Reading[Product]:
            if reading.outcome is not Outcome.HIT:
                raise WrongAnswer(f"{sku} was no hit, but {reading.outcome}.")
            return reading

        async def get(sku: str) -> None:
            _check(sku, await redis.get(f"plain:{sku}"), products[sku])

        async def get_from_cashews(sku: str) -> None:
            _check(sku, await load(sku), products[sku])

        async def get_row_from_cashews(sku: str) -> None:
            _check(sku, await load_row(sku), rows[sku])

        async def get_row_from_aiocache(sku: str) -> None:
            _check(sku, await aiocache.get(sku), rows[sku])

        async def get_from_ours(sku: str) -> None:
            _check(sku, hit(sku, await resources.products.get(sku)).payload, products[sku])

        async def get_model_from_ours(sku: str) -> None:
            _check(sku, hit(sku, await resources.products.get(sku)).value, models[sku])

        for sku in skus:
            await resources.products.get(sku)
            await load(sku)
            await load_row(sku)
            await aiocache.set(sku, rows[sku])
        warm = loads

        def variant(name: str, call: Callable[[str], Awaitable[None]], tasks: int) -> Variant:
            async def turn() -> Sample:
                return await hammer(call, skus, tasks=tasks, turn=stage.size.turn / 2)

            return Variant(name, turn)

        async def rounds(tasks: int) -> Rounds:
            variants = [
                variant(BASE, get, tasks),
                variant(CASHEWS, get_from_cashews, tasks),
                variant(OURS, get_from_ours, tasks),
                variant(CASHEWS_DECODED, get_row_from_cashews, tasks),
                variant(AIOCACHE, get_row_from_aiocache, tasks),
                variant(OURS_DECODED, get_model_from_ours, tasks),
            ]
            return await interleave(variants, stage.size.rounds, lambda text: stage.report(f"{tasks} tasks, {text}"))

        at_64, at_1 = await rounds(64), await rounds(1)
        if loads != warm:
            raise WrongAnswer(f"cashews loaded {loads - warm} times what it had: those were no hits.")
    await cashews.close()
    await aiocache.client.aclose()
    return Result(
        "hit_in_library",
        QUESTION,
        [
            Goal("hits/s at 64 tasks, times redis-py GET", at_64.ratio(OURS, BASE), 7),
            Goal("hits/s at 64 tasks, times cashews (bytes)", at_64.ratio(OURS, CASHEWS), 20),
            Goal("hits/s at 64 tasks, times cashews (decoded)", at_64.ratio(OURS_DECODED, CASHEWS_DECODED), 12),
            Goal("hits/s at 1 task, times redis-py GET", at_1.ratio(OURS, BASE), 0.9),
        ],
        [
            compared("64 tasks", at_64, BASE, unit="hits/s"),
            compared("1 task", at_1, BASE, unit="hits/s"),
        ],
        rates("Hits in the library, hits/s of one process at 64 tasks", at_64),
        {"64 tasks": at_64, "1 task": at_1},
    )


def _check(sku: str, found: object, expected: object) -> None:
    if found != expected:
        raise WrongAnswer(f"{sku} was answered with {found!r}, and not {expected!r}.")
