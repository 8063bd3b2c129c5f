"""What a hit costs in the library, without HTTP: one call beside redis-py's GET, cashews and aiocache.

The first four return bytes, the others objects: what they decode is part of the price.
"""

import json
from collections.abc import Awaitable, Callable
from typing import TypeVar

from aiocache import RedisCache
from redis.asyncio import Redis

from app.caching import Outcome, Reading
from app.products.models import Product
from tests.benchmarks.catalogue import fill
from tests.benchmarks.measurement import Goal, Result, Rounds, Sample, Variant, WrongAnswer, compared, interleave, rates
from tests.benchmarks.peers.cashews_cache import cache_at, cached
from tests.benchmarks.stage import Stage, library
from tests.benchmarks.tasks import hammer

R = TypeVar("R")

QUESTION = "How many hits does the library answer in a process, beside a bare GET?"
BASE, CASHEWS, OURS = "redis-py GET", "cashews", "fourways"
CASHEWS_DECODED, AIOCACHE, OURS_DECODED = "cashews, decoded", "aiocache, decoded", "fourways, decoded"


async def measure(stage: Stage) -> Result:
    """Measures with 64 tasks, and with one."""
    products = await fill(stage.endpoints)
    skus = list(products)
    rows: dict[str, object] = {sku: json.loads(payload) for sku, payload in products.items()}
    models = {sku: Product.model_validate_json(payload) for sku, payload in products.items()}
    cashews = cache_at(stage.endpoints.redis_url)
    # Its own constructor does not support a unix socket.
    aiocache = RedisCache()
    aiocache.client = Redis.from_url(stage.endpoints.redis_url)
    loads = 0

    @cached(cashews, "bytes:{sku}")
    async def load(sku: str) -> bytes:
        nonlocal loads
        loads += 1
        return products[sku]

    @cached(cashews, "row:{sku}")
    async def load_row(sku: str) -> object:
        nonlocal loads
        loads += 1
        return rows[sku]

    async with Redis.from_url(stage.endpoints.redis_url) as redis, library(stage) as resources:

        def is_payload(sku: str, found: object) -> bool:
            return found == products[sku]

        def is_row(sku: str, found: object) -> bool:
            return found == rows[sku]

        def is_hit(sku: str, reading: Reading[Product]) -> bool:
            return reading.outcome is Outcome.HIT and reading.payload == products[sku]

        def is_model(sku: str, reading: Reading[Product]) -> bool:
            return reading.outcome is Outcome.HIT and reading.value == models[sku]

        for sku in skus:
            await resources.products.get(sku)
            await load(sku)
            await load_row(sku)
            await aiocache.set(sku, rows[sku])
        warm = loads

        def variant(
            name: str, call: Callable[[str], Awaitable[R]], is_right: Callable[[str, R], bool], tasks: int
        ) -> Variant:
            async def turn() -> Sample:
                return await hammer(call, skus, is_right, tasks=tasks, turn=stage.size.turn / 2)

            return Variant(name, turn)

        async def rounds(tasks: int) -> Rounds:
            variants = [
                variant(BASE, lambda sku: redis.get(f"plain:{sku}"), is_payload, tasks),
                variant(CASHEWS, load, is_payload, tasks),
                variant(OURS, resources.products.get, is_hit, tasks),
                variant(CASHEWS_DECODED, load_row, is_row, tasks),
                variant(AIOCACHE, aiocache.get, is_row, tasks),
                variant(OURS_DECODED, resources.products.get, is_model, tasks),
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
