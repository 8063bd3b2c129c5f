"""What a hit costs in a Redis Cluster of three primaries, with all checks, beside a hit on one Redis, and beside a bare
GET of redis-py's own cluster client. All are reached through TCP on the loopback.

A tick's keys are one MGET on one Redis. In a cluster they are three writes of GETs, and three waits for answers.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import TypeVar

from pydantic import BaseModel
from redis.asyncio.cluster import RedisCluster as TheirCluster

from app.caching import Cache, CacheAside, Outcome, Reading, Region, open_cache
from app.caching.cluster import Cluster, open_cluster
from app.speed.settled_garbage import settled_garbage
from tests.benchmarks.measurement import Goal, Result, Sample, Variant, WrongAnswer, compared, interleave, rates
from tests.benchmarks.stage import Stage, on, processors
from tests.benchmarks.tasks import hammer
from tests.faults.redis_cluster import RedisCluster
from tests.faults.redis_node import HOST
from tests.faults.replicating_redis import ReplicatingRedis

R = TypeVar("R")

QUESTION = "How many hits does a process get from three primaries of a cluster, beside one Redis?"
ONE, OURS, THEIRS = "one Redis", "a cluster", "a cluster, redis-py GET"
KEYS = 10_000
BATCH = 500


class Thing(BaseModel, frozen=True):
    """A value of about 300 bytes."""

    text: str = "x" * 280
    version: int = 1


THING = Thing()
PAYLOAD = THING.model_dump_json().encode()


async def measure(stage: Stage) -> Result:
    """Measures with 64 tasks, and with one."""
    stage.report("starting a cluster")
    async with AsyncExitStack() as stack:
        with on(processors()[1]):
            alone = await stack.enter_async_context(ReplicatingRedis.started())
            nodes = await stack.enter_async_context(RedisCluster.started(3))
        stack.enter_context(settled_garbage())
        cluster = await stack.enter_async_context(open_cluster(nodes.url))
        cache = await stack.enter_async_context(open_cache(f"redis://{HOST}:{alone.port}"))
        theirs = await stack.enter_async_context(TheirCluster(host=HOST, port=nodes.nodes[0].port))
        one, many = await _filled(stack, cache), await _filled(stack, cluster)
        for key in range(KEYS):
            await theirs.set(f"bare:{key}", PAYLOAD)

        def variant(name: str, call: Callable[[int], Awaitable[R]], is_right: Callable[[int, R], bool]) -> Variant:
            async def turn() -> Sample:
                return await hammer(call, range(KEYS), is_right, tasks=64, turn=stage.size.turn / 2)

            return Variant(name, turn)

        variants = [
            variant(ONE, one, _is_hit),
            variant(OURS, many, _is_hit),
            variant(THEIRS, lambda key: theirs.get(f"bare:{key}"), _is_payload),
        ]
        rounds = await interleave(variants, stage.size.rounds, stage.report)
    return Result(
        "cluster_hits",
        QUESTION,
        [
            Goal(
                "hits of a cluster for the processor time of one on one Redis",
                rounds.ratio(ONE, OURS, lambda sample: sample.cpu_each),
                0.7,
            ),
            Goal("hits/s of a cluster, times GETs/s of redis-py's cluster client", rounds.ratio(OURS, THEIRS), 5),
        ],
        [compared("64 tasks", rounds, ONE, unit="hits/s")],
        rates("Hits on a cluster, hits/s of one process at 64 tasks", rounds),
        {"64 tasks": rounds},
    )


async def _filled(stack: AsyncExitStack, cache: Cache | Cluster) -> Callable[[int], Awaitable[Reading[Thing]]]:
    """Returns what reads one of the values, which are all cached."""

    async def load(key: int) -> Thing:
        return THING

    aside = CacheAside(await stack.enter_async_context(Region[int, Thing](cache, "things", Thing)))
    for first in range(0, KEYS, BATCH):
        readings = await asyncio.gather(*(aside.get(key, load) for key in range(first, min(first + BATCH, KEYS))))
        if not all(reading.stored for reading in readings):
            raise WrongAnswer("A value was not cached.")
    return lambda key: aside.get(key, load)


def _is_hit(key: int, reading: Reading[Thing]) -> bool:
    return reading.outcome is Outcome.HIT and reading.payload == PAYLOAD


def _is_payload(key: int, found: object) -> bool:
    return found == PAYLOAD
