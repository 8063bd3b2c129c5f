"""What a write through the cache costs, step by step, and a test of claims made elsewhere about it.

Each step is one client that writes again and again; the figure is the median time of a write.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from statistics import median

import asyncpg
from redis.asyncio import Redis
from sqlalchemy import text

from app.caching import Cache, Lifetimes, Outcome, RedisClock, Region
from app.caching.lease import WRITER
from app.inventory.models import Adjustment, Stock
from app.inventory.store import StockStore
from app.wiring import Resources
from tests.benchmarks.catalogue import fill
from tests.benchmarks.measurement import (
    Bar,
    Chart,
    Goal,
    Result,
    Rounds,
    Sample,
    Table,
    Variant,
    WrongAnswer,
    interleave,
    spread,
)
from tests.benchmarks.stage import Stage, library
from tests.benchmarks.tasks import one_by_one
from tests.settled import settled

QUESTION = "What does write-through add to a write?"
SKUS = [f"STOCK-{number}" for number in range(100)]
HOUR = timedelta(hours=1)

UPDATE = "UPDATE, bare driver"
SET = "SET, redis-py"
TRANSACTION = "pool, BEGIN, UPDATE, COMMIT"
LOCKED = "the same, with the SKU's lock"
REVOKED = "the same, with value and lease taken away"
OURS = "fourways: the same, and a fill after COMMIT"
THEN = "UPDATE, then SET"
BESIDE = "UPDATE beside SET"
TWICE = "two SET, then UPDATE"

ROWS, ROWS_SET = "import, row by row", "import, row by row, SET each"
AT_ONCE, AT_ONCE_SET = "import, one statement", "import, one statement, SET in a pipeline"
COLD, WARM = "cold read", "warm read"

INCREMENT = "UPDATE stock SET quantity = quantity + 1 WHERE sku = $1 RETURNING quantity"


async def measure(stage: Stage) -> Result:
    """Measures the steps, an import, and cold and warm reads."""
    products = await fill(stage.endpoints)
    connection = await asyncpg.connect(stage.endpoints.database_url)
    await connection.executemany("INSERT INTO stock (sku, quantity) VALUES ($1, 1)", [(sku,) for sku in SKUS])
    async with Redis.from_url(stage.endpoints.redis_url) as redis, library(stage) as resources:
        steps = await _steps(stage, resources, connection, redis)
        written = sum(sample.done for samples in steps.samples.values() for sample in samples)
        stock = await connection.fetchval("SELECT sum(quantity)::bigint FROM stock")
        if stock < written - sum(sample.done for sample in steps.samples[SET]):
            raise WrongAnswer(f"{written} writes were answered, and the stock is {stock}.")
        imports = await _imports(stage, connection, redis)
        reads = await _reads(stage, resources, redis, products)
    await connection.close()
    return Result(
        "write_through",
        QUESTION,
        [
            Goal("p50 of a write, times the same transaction without a cache", _p50(steps, OURS, LOCKED), 1.5, True),
            Goal("p50 of a write, times a transaction that takes no lock", _p50(steps, OURS, TRANSACTION), 1.5, True),
        ],
        [_step_table(steps), _claims(steps, imports, reads)],
        Chart("p50 of a write of one client, ms", [Bar(name, _milliseconds(steps, name)) for name in steps.samples]),
        {"steps": steps, "imports": imports, "reads": reads},
    )


def _p50(rounds: Rounds, name: str, base: str) -> tuple[float, ...]:
    return rounds.ratio(name, base, lambda sample: sample.p50)


def _milliseconds(rounds: Rounds, name: str) -> tuple[float, ...]:
    return rounds.values(name, lambda sample: sample.p50)


async def _steps(stage: Stage, resources: Resources, connection: asyncpg.Connection, redis: Redis) -> Rounds:
    async def nothing() -> None:
        """Stands in for `revoke`."""

    store, cache = StockStore(resources.database), resources.cache
    async with Region[str, Stock](
        Cache(cache.caches[0].redis, RedisClock(), cache.caches[0].trust, cache.caches[0].breaker, cache.identity),
        "steps",
        Stock,
        lifetimes=Lifetimes(fresh=HOUR, stale=HOUR, absent=HOUR),
        settled=settled,
    ) as region:

        async def update(sku: str) -> None:
            await connection.fetchval(INCREMENT, sku)

        async def set_(sku: str) -> None:
            await redis.set(f"steps:{sku}", b'{"sku":"STOCK-1","quantity":30}', ex=300)

        async def transaction(sku: str) -> None:
            async with resources.database.writing("inventory") as pooled:
                change = text("UPDATE stock SET quantity = quantity + 1 WHERE sku = :sku RETURNING *")
                (await pooled.execute(change, {"sku": sku})).one()

        async def locked(sku: str) -> None:
            await store.save(sku, Adjustment(1), nothing)

        async def revoked(sku: str) -> None:
            await store.save(sku, Adjustment(1), lambda: region.revoke(sku, WRITER + secrets.token_hex(8)))

        async def ours(sku: str) -> None:
            await resources.inventory.put(sku, Adjustment(1))
            found = (await redis.exists(f"stock:{{{sku}}}")) if sku == SKUS[0] else 1
            if not found:
                raise WrongAnswer("What was written is not in the cache.")

        async def then(sku: str) -> None:
            await update(sku)
            await set_(sku)

        async def beside(sku: str) -> None:
            await asyncio.gather(update(sku), set_(sku))

        async def twice(sku: str) -> None:
            await set_(sku)
            await set_(sku)
            await update(sku)

        calls: Mapping[str, Callable[[str], Awaitable[None]]] = {
            UPDATE: update,
            SET: set_,
            TRANSACTION: transaction,
            LOCKED: locked,
            REVOKED: revoked,
            OURS: ours,
            THEN: then,
            BESIDE: beside,
            TWICE: twice,
        }

        def variant(name: str, call: Callable[[str], Awaitable[None]]) -> Variant:
            async def turn() -> Sample:
                return await one_by_one(call, SKUS, turn=stage.size.turn / 4)

            return Variant(name, turn)

        return await interleave([variant(name, call) for name, call in calls.items()], stage.size.rounds, stage.report)


async def _imports(stage: Stage, connection: asyncpg.Connection, redis: Redis) -> Rounds:
    """Changes many rows one by one or in one statement, with or without setting their values in the cache."""
    skus = [f"IMPORT-{number}" for number in range(stage.size.batch)]
    await connection.executemany("INSERT INTO stock (sku, quantity) VALUES ($1, 1)", [(sku,) for sku in skus])

    def value(sku: str) -> str:
        return f'{{"sku":"{sku}","quantity":30}}'

    async def rows() -> None:
        for sku in skus:
            await connection.execute("UPDATE stock SET quantity = quantity + 1 WHERE sku = $1", sku)

    async def rows_set() -> None:
        for sku in skus:
            await connection.execute("UPDATE stock SET quantity = quantity + 1 WHERE sku = $1", sku)
            await redis.set(f"imported:{sku}", value(sku), ex=300)

    async def at_once() -> None:
        await connection.execute("UPDATE stock SET quantity = quantity + 1 WHERE sku = ANY($1::text[])", skus)

    async def at_once_set() -> None:
        await at_once()
        async with redis.pipeline(transaction=False) as pipeline:
            for sku in skus:
                pipeline.set(f"imported:{sku}", value(sku), ex=300)
            await pipeline.execute()

    def variant(name: str, whole: Callable[[], Awaitable[None]]) -> Variant:
        async def once(_name: str) -> None:
            await whole()

        async def turn() -> Sample:
            return await one_by_one(once, [name])

        return Variant(name, turn)

    calls = {ROWS: rows, ROWS_SET: rows_set, AT_ONCE: at_once, AT_ONCE_SET: at_once_set}
    return await interleave([variant(name, call) for name, call in calls.items()], stage.size.rounds, stage.report)


async def _reads(stage: Stage, resources: Resources, redis: Redis, products: Mapping[str, bytes]) -> Rounds:
    """Reads the same rows from the database through the cache, and from the cache."""
    skus = list(products)[:300]

    def variant(name: str, outcome: Outcome) -> Variant:
        async def read(sku: str) -> None:
            reading = await resources.products.get(sku)
            if reading.outcome is not outcome or reading.payload != products[sku]:
                raise WrongAnswer(f"A {name} of {sku} was answered with {reading}.")

        async def turn() -> Sample:
            if outcome is Outcome.MISS:
                await redis.delete(*(f"products:{{{sku}}}" for sku in skus))
            return await one_by_one(read, skus)

        return Variant(name, turn)

    return await interleave([variant(COLD, Outcome.MISS), variant(WARM, Outcome.HIT)], stage.size.rounds, stage.report)


def _step_table(steps: Rounds) -> Table:
    rows = [
        [
            name,
            f"{median(_milliseconds(steps, name)):.3f}",
            spread(_p50(steps, name, TRANSACTION)),
            f"{median(steps.values(name, lambda sample: sample.p99)):.2f}",
        ]
        for name in steps.samples
    ]
    return Table("One client, one write", ["", "p50 ms", f"times: {TRANSACTION}", "p99 ms"], rows)


def _claims(steps: Rounds, imports: Rounds, reads: Rounds) -> Table:
    update, set_, beside = (_milliseconds(steps, name) for name in (UPDATE, SET, BESIDE))
    largest = [one / max(a, b) for one, a, b in zip(beside, update, set_, strict=True)]
    summed = [one / (a + b) for one, a, b in zip(beside, update, set_, strict=True)]
    cold, warm = (median(_milliseconds(reads, name)) for name in (COLD, WARM))
    rows = [
        ["80 ms become 400 ms with two round trips to Redis", "5", spread(_p50(steps, TWICE, UPDATE))],
        ["the same, of our own write-through", "5", spread(_p50(steps, OURS, TRANSACTION))],
        ["both at once cost the larger of the two: by the larger", "1", spread(largest)],
        ["…: by the sum", "less than 1", spread(summed)],
        ["write-through in an import, row by row", "2 to 3", spread(_p50(imports, ROWS_SET, ROWS))],
        ["…, in one statement and one pipeline", "2 to 3", spread(_p50(imports, AT_ONCE_SET, AT_ONCE))],
        [
            f"200 ms cold against 12 ms warm (here {cold:.2f} and {warm:.2f} ms)",
            "17",
            spread(_p50(reads, COLD, WARM)),
        ],
    ]
    return Table("What is said, as a ratio", ["", "said", "found"], rows)
