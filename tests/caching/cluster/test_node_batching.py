"""Calls of one tick are combined for each node, and a silent node delays no other one's."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Sequence

import pytest

from app.caching.background import Background
from app.caching.cluster import Answer, Call, Cluster, NodeBatching
from tests.faults.redis_cluster import RedisCluster
from tests.faults.slot_names import named, spread

SLOTS = range(0, 16_384, 256)


class Reader(Background):
    """Reads values, and records which it read together."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__()
        self.read: list[Sequence[Call]] = []
        self._sending = cluster.sending("things")
        self._batching = NodeBatching(cluster.topology, lambda call: call.slot, self._send, self.start)

    def get(self, name: str) -> Awaitable[bytes | None]:
        """Reads one value."""
        return self._batching.ask(Call.get(name))

    async def _send(self, calls: Sequence[Call]) -> list[bytes | None]:
        self.read.append(calls)
        answers = await self._sending.send(calls)
        return [answer.reply for answer in answers if isinstance(answer, Answer)]


@pytest.fixture
async def reader(cluster: Cluster) -> AsyncIterator[Reader]:
    async with Reader(cluster) as reader:
        yield reader


async def test_each_node_is_asked_once_for_all_its_keys_of_a_tick(cluster: Cluster, reader: Reader) -> None:
    names = spread(SLOTS)
    await cluster.sending("things").send(Call.of(name, "SET", name, name) for name in names)
    found = await asyncio.gather(*(reader.get(name) for name in names * 2))
    assert found == [name.encode() for name in names * 2]
    assert len(reader.read) == 3
    assert sum(map(len, reader.read)) == len(names)


async def test_a_silent_node_delays_no_call_to_another_one(redis_cluster: RedisCluster, reader: Reader) -> None:
    silent = redis_cluster.nodes[0].process
    silent.send_signal(signal.SIGSTOP)
    try:
        waits = asyncio.ensure_future(reader.get(named(0)))
        assert await asyncio.gather(*(reader.get(named(slot)) for slot in (8_000, 16_000))) == [None, None]
        assert not waits.done()
    finally:
        silent.send_signal(signal.SIGCONT)
    assert await waits is None
    await redis_cluster.agreed()
