"""Calls of one tick are combined for each node, and a silent node delays no other one's."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from app.caching.background import Background
from app.caching.cluster import Call, Cluster, Node, NodeBatching
from app.caching.cluster.judged import judged
from app.caching.cluster.node_batching import Tell
from tests.caching.cluster.conftest import silent
from tests.faults.redis_cluster import RedisCluster
from tests.faults.slot_names import named, spread

SLOTS = range(0, 16_384, 256)


class Reader(Background):
    """Reads values, and records which it read together."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__()
        self.read: list[Sequence[str]] = []
        self._sending = cluster.sending("things")
        self.batching: NodeBatching[str, bytes | None] = NodeBatching(self._send, self.start)

    async def _send(self, names: Sequence[str], tell: Tell) -> list[Any]:
        self.read.append(names)
        replies, _ = await judged(self._sending, list(map(Call.get, names)), _reply, tell)
        return [replies[place] for place in range(len(names))]


def _reply(place: int, node: Node | None, reply: Any) -> Any:
    return reply


@pytest.fixture
async def reader(cluster: Cluster) -> AsyncIterator[Reader]:
    async with Reader(cluster) as reader:
        yield reader


async def test_all_keys_of_a_tick_are_asked_for_together_and_once(cluster: Cluster, reader: Reader) -> None:
    names = spread(SLOTS)
    await cluster.sending("things").send(Call.of(name, "SET", name, name) for name in names)
    found = await asyncio.gather(*(reader.batching.ask(name) for name in names * 2))
    assert found == [name.encode() for name in names * 2]
    assert reader.read == [names]


async def test_a_call_that_forgets_a_question_fails() -> None:
    """Its caller would wait forever. Whoever was answered is."""

    async def forgetful(questions: Sequence[str], tell: Tell) -> list[int]:
        tell([1], [2])
        return [1, 2]

    async with Background() as background:
        batching: NodeBatching[str, int] = NodeBatching(forgetful, background.start)
        forgotten, answered = batching.ask("a"), batching.ask("b")
        assert await answered == 2
        with pytest.raises(RuntimeError, match="2 questions got 1 answers"):
            await forgotten


async def test_a_silent_node_delays_no_call_to_another_one(redis_cluster: RedisCluster, reader: Reader) -> None:
    with silent(redis_cluster.nodes[0]):
        waits = asyncio.ensure_future(reader.batching.ask(named(0)))
        others = [reader.batching.ask(named(slot)) for slot in (8_000, 16_000)]
        assert await asyncio.gather(*others) == [None, None]
        assert not waits.done()
    assert await waits is None
    await redis_cluster.agreed()


async def test_a_call_that_is_redirected_to_a_silent_node_delays_no_other_one(
    redis_cluster: RedisCluster, reader: Reader
) -> None:
    """A answers the call for one slot, and redirects the other one to B, which is silent."""
    moving = await redis_cluster.moving(1_000, redis_cluster.nodes[1])
    with silent(redis_cluster.nodes[1]):
        waits = asyncio.ensure_future(reader.batching.ask(named(1_000)))
        assert await reader.batching.ask(named(0)) is None
        assert not waits.done()
    assert await waits is None
    await redis_cluster.agreed()
    await moving.finish()
