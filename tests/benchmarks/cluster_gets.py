"""What a read costs in a Redis Cluster of three primaries: one write of GETs per node and tick, beside one MGET on one
Redis, and beside redis-py's own cluster client. All are reached through TCP on the loopback.

Stamps and trust are not part of it: each variant returns the bytes that Redis has.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import cast

from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster as TheirCluster

from app.caching import open_redis
from app.caching.background import Background
from app.caching.batching import Batching
from app.caching.cluster import Address, Answer, Call, Cluster, NodeBatching, open_cluster
from tests.benchmarks.measurement import Goal, Result, Sample, Variant, WrongAnswer, compared, interleave, rates
from tests.benchmarks.stage import Stage, on, processors
from tests.benchmarks.tasks import hammer
from tests.faults.redis_cluster import RedisCluster
from tests.faults.redis_node import HOST
from tests.faults.replicating_redis import ReplicatingRedis

QUESTION = "How many GETs does a process get answered by three primaries of a cluster, beside one Redis?"
ONE, OURS, THEIRS = "one Redis, MGET", "a cluster, GETs", "a cluster, redis-py"
NAMES = 10_000
VALUE = "x" * 300
TIMEOUT = timedelta(seconds=10)


class OneRedis(Background):
    """Reads from one Redis: the keys of a tick in one MGET."""

    def __init__(self, redis: Redis) -> None:
        super().__init__()
        self._redis = redis
        self.batching = Batching(self._get, self.start)

    async def _get(self, names: Sequence[str]) -> Sequence[bytes]:
        mget = cast("Callable[..., Awaitable[list[bytes]]]", self._redis.execute_command)
        return await mget("MGET", *names)


class ManyRedises(Background):
    """Reads from a cluster: the keys of a tick in one write for each node."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__()
        self._sending = cluster.sending("values")
        self._batching = NodeBatching(cluster.topology, self._send, self.start)

    def get(self, name: str) -> Awaitable[bytes]:
        """Reads one value."""
        return self._batching.ask(Call.get(name))

    async def _send(self, calls: Sequence[Call]) -> Sequence[bytes]:
        answers = await self._sending.send(calls)
        return [answer.reply if isinstance(answer, Answer) else b"" for answer in answers]


async def measure(stage: Stage) -> Result:
    """Measures with 64 tasks."""
    names = [f"values:{{{number}}}" for number in range(NAMES)]
    stage.report("starting a cluster")
    async with AsyncExitStack() as stack:
        with on(processors()[1]):
            alone = await stack.enter_async_context(ReplicatingRedis.started())
            nodes = await stack.enter_async_context(RedisCluster.started(3))
        seeds = [Address(*seed) for seed in nodes.seeds]
        cluster = await stack.enter_async_context(open_cluster(seeds))
        theirs = await stack.enter_async_context(TheirCluster(host=HOST, port=nodes.nodes[0].port))
        redis = await stack.enter_async_context(
            open_redis(f"redis://{HOST}:{alone.port}", timeout=TIMEOUT, connections=16)
        )
        one = await stack.enter_async_context(OneRedis(redis))
        many = await stack.enter_async_context(ManyRedises(cluster))
        await redis.mset(dict.fromkeys(names, VALUE))
        for answer in await cluster.sending("values").send(Call.of(name, "SET", name, VALUE) for name in names):
            if not isinstance(answer, Answer):
                raise WrongAnswer(f"A value was not set: {answer}")

        def variant(name: str, call: Callable[[str], Awaitable[object]]) -> Variant:
            async def turn() -> Sample:
                return await hammer(call, names, _is_right, tasks=64, turn=stage.size.turn / 2)

            return Variant(name, turn)

        variants = [variant(ONE, one.batching.ask), variant(OURS, many.get), variant(THEIRS, theirs.get)]
        rounds = await interleave(variants, stage.size.rounds, stage.report)
    return Result(
        "cluster_gets",
        QUESTION,
        [
            Goal("GETs/s of a cluster, times one Redis with MGET", rounds.ratio(OURS, ONE), 0.25),
            Goal("GETs/s of a cluster, times redis-py's cluster client", rounds.ratio(OURS, THEIRS), 3),
        ],
        [compared("64 tasks", rounds, ONE, unit="GETs/s")],
        rates("GETs/s of one process at 64 tasks", rounds),
        {"64 tasks": rounds},
    )


_EXPECTED = VALUE.encode()


def _is_right(name: str, found: object) -> bool:
    return found == _EXPECTED
