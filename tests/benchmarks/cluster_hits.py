"""What a hit costs in a Redis Cluster of three primaries, with all checks, beside a hit on one Redis, and beside a bare
GET of redis-py's own cluster client. All are reached through TCP on the loopback.

A tick's keys are one MGET on one Redis. In a cluster they are three writes of GETs, and three waits for answers.
What is bare returns the bytes that Redis has. The rest of a hit is what the checks cost: whether the node is believed
before and after, header, life, checksum, debts, and events.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any, TypeVar, cast

from pydantic import BaseModel
from redis.asyncio.cluster import RedisCluster as TheirCluster

from app.caching import Cache, CacheAside, Outcome, Reading, Region, open_cache
from app.caching.background import Background
from app.caching.batching import Batching
from app.caching.cluster import Call, Cluster, Node, NodeBatching, open_cluster
from app.caching.cluster.node_batching import Tell
from app.speed.settled_garbage import settled_garbage
from tests.benchmarks.measurement import Goal, Result, Sample, Variant, WrongAnswer, compared, interleave, rates
from tests.benchmarks.stage import Stage, on, processors
from tests.benchmarks.tasks import hammer
from tests.faults.redis_cluster import RedisCluster
from tests.faults.redis_node import HOST
from tests.faults.replicating_redis import ReplicatingRedis

R = TypeVar("R")

QUESTION = "How many hits does a process get from three primaries of a cluster, beside one Redis?"
ONE, OURS = "one Redis", "a cluster"
ONE_BARE, OURS_BARE, THEIRS = "one Redis, bare", "a cluster, bare", "a cluster, redis-py GET"
KEYS = 10_000
BATCH = 500


class Thing(BaseModel, frozen=True):
    """A value of about 300 bytes."""

    text: str = "x" * 280
    version: int = 1


class Bare(Background):
    """Reads bytes, the keys of a tick together, from one Redis and from a cluster."""

    def __init__(self, cache: Cache, cluster: Cluster) -> None:
        super().__init__()
        self._redis, self._sending = cache.redis, cluster.sending("bare")
        self.one = Batching(self._mget, self.start)
        self.many: NodeBatching[int, bytes] = NodeBatching(self._gets, self.start)

    async def _mget(self, keys: Sequence[int]) -> Sequence[bytes]:
        mget = cast("Callable[..., Awaitable[list[bytes]]]", self._redis.execute_command)
        return await mget("MGET", *(f"bare:{key}" for key in keys))

    async def _gets(self, keys: Sequence[int], tell: Tell) -> Sequence[bytes]:
        found: dict[int, bytes] = {}

        def told(places: Sequence[int], node: Node | None, replies: Sequence[Any]) -> None:
            found.update(zip(places, replies, strict=True))
            tell(places, replies)

        await self._sending.tell(Call.gets(f"bare:{key}" for key in keys), told)
        return [found[place] for place in range(len(keys))]


THING = Thing()
PAYLOAD = THING.model_dump_json().encode()


async def measure(stage: Stage) -> Result:
    """Measures with 64 tasks."""
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
            await cache.redis.set(f"bare:{key}", PAYLOAD)
        bare = await stack.enter_async_context(Bare(cache, cluster))

        def variant(name: str, call: Callable[[int], Awaitable[R]], is_right: Callable[[int, R], bool]) -> Variant:
            async def turn() -> Sample:
                return await hammer(call, range(KEYS), is_right, tasks=64, turn=stage.size.turn / 2)

            return Variant(name, turn)

        variants = [
            variant(ONE, one, _is_hit),
            variant(OURS, many, _is_hit),
            variant(ONE_BARE, bare.one.ask, _is_payload),
            variant(OURS_BARE, bare.many.ask, _is_payload),
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
