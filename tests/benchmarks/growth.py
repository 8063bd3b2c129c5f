"""Growth: the cost of a hit with one key and with very many, the bytes of an entry in Redis, and the time of a start.

Each number of keys has its own database in Redis, so that all can be measured in turns.
"""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from statistics import median

from pydantic import BaseModel, ConfigDict
from redis.asyncio import Redis

from app.caching import Lifetimes, Outcome, Reading, ReadThrough, Region, open_cache
from tests.benchmarks.measurement import Goal, Result, Sample, Table, Variant, WrongAnswer, compared, interleave, rates
from tests.benchmarks.stage import Stage, on, processors, service
from tests.benchmarks.tasks import hammer
from tests.conftest import empty

QUESTION = "Does a hit cost the same when there are many keys, and what does an entry cost in Redis?"
HOUR = timedelta(hours=1)
FEW = (1, 1_000)
AT_ONCE = 500
ASKED = 50_000
"""How many of the keys are read, spread over all."""
ALLOWANCE = 200
START = timedelta(seconds=1.5)
DESCRIPTION = "Enamel, red. Whistles. " * 10


class Thing(BaseModel):
    """A value of some 300 bytes."""

    model_config = ConfigDict(frozen=True)

    name: str
    description: str
    version: int


@dataclass(frozen=True, slots=True)
class Cache:
    """A cache over its own database in Redis."""

    redis: Redis
    things: ReadThrough[str, Thing]

    async def memory(self) -> int:
        """Returns the bytes that Redis uses, in all its databases."""
        return int((await self.redis.info("memory"))["used_memory"])

    async def fill(self, keys: Sequence[str], stage: Stage) -> None:
        """Puts all keys into the cache."""
        for start in range(0, len(keys), AT_ONCE):
            stage.report(f"filling {len(keys):,} keys: {start:,}")
            await self.things.get_many(keys[start : start + AT_ONCE])


def thing(key: str) -> Thing:
    """Returns what the database would return."""
    return Thing(name=f"Thing {key}", description=DESCRIPTION, version=int(key))


async def load(keys: Sequence[str]) -> dict[str, Thing]:
    """Stands in for a database that costs nothing."""
    return {key: thing(key) for key in keys}


async def measure(stage: Stage) -> Result:
    """Measures one key, a thousand, and very many, in turns; then some starts."""
    await empty(stage.endpoints)
    variants, payload, beyond = [], 0.0, 0.0
    async with AsyncExitStack() as stack:
        for database, size in enumerate((*FEW, stage.size.keys), 1):
            cache = await stack.enter_async_context(_cache(stage, database))
            keys = [f"{number:07}" for number in range(1, size + 1)]
            before = await cache.memory()
            await cache.fill(keys, stage)
            if await cache.redis.dbsize() != size:
                raise WrongAnswer(f"There are {await cache.redis.dbsize():,} keys in Redis, and not {size:,}.")
            payload = sum(len(thing(key).model_dump_json()) for key in keys) / size
            beyond = (await cache.memory() - before) / size - payload
            variants.append(_variant(stage, cache, keys[:: max(1, size // ASKED)], f"{size:,} key{'s' * (size > 1)}"))
        rounds = await interleave(variants, stage.size.rounds, stage.report)
    async with Redis.from_url(stage.endpoints.redis_url) as redis:
        await redis.flushall()
    starts = [await _start(stage) for _ in range(stage.size.rounds)]
    one, thousand, many = (variant.name for variant in variants)
    return Result(
        "growth",
        QUESTION,
        [
            Goal(
                f"CPU of a hit with {many}, times that with {thousand}", rounds.ratio(many, thousand, _cpu), 1.1, True
            ),
            Goal("bytes of an entry in Redis, beyond its payload", [beyond], ALLOWANCE, True),
            Goal("seconds of a start, with the servers up", starts, START.total_seconds(), True),
        ],
        [
            compared("64 tasks", rounds, one, unit="hits/s"),
            Table(
                "An entry, and a start",
                ["", "figure"],
                [
                    ["payload, bytes", f"{payload:.0f}"],
                    [f"all of an entry, bytes of Redis' memory, with {many}", f"{payload + beyond:.0f}"],
                    ["a start, seconds", f"{median(starts):.2f}"],
                ],
            ),
        ],
        rates("Hits in the library, hits/s of one process at 64 tasks", rounds),
        {"64 tasks": rounds},
    )


@asynccontextmanager
async def _cache(stage: Stage, database: int) -> AsyncIterator[Cache]:
    url = stage.endpoints.redis_url.replace("db=0", f"db={database}")
    async with (
        open_cache(url, timeout=timedelta(seconds=5)) as cache,
        Region[str, Thing](cache, "things", Thing, lifetimes=Lifetimes(fresh=HOUR, stale=HOUR, absent=HOUR)) as region,
    ):
        yield Cache(cache.redis, ReadThrough(region, load))


def _cpu(sample: Sample) -> float | None:
    return sample.cpu_each


def _variant(stage: Stage, cache: Cache, keys: Sequence[str], name: str) -> Variant:
    def is_hit(key: str, reading: Reading[Thing]) -> bool:
        return reading.outcome is Outcome.HIT and reading.version == int(key)

    async def turn() -> Sample:
        return await hammer(cache.things.get, keys, is_hit, tasks=64, turn=stage.size.turn / 2)

    return Variant(name, turn)


async def _start(stage: Stage) -> float:
    """Returns the seconds from the command to the first answer that reports readiness."""
    first, others = processors()
    with on([*first, *others]):
        began = time.perf_counter()
        async with service(stage):
            return time.perf_counter() - began
