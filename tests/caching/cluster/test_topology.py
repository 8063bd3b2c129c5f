"""The slot map is read from whoever answers, and by one reader at a time."""

import asyncio
from contextlib import AsyncExitStack
from datetime import timedelta

import pytest

from app.caching import CacheUnavailable
from app.caching.cluster import Address, Answer, Call, open_cluster
from tests.caching.cluster.conftest import TIMEOUT, opening, opening_through_wires
from tests.eventually import eventually
from tests.faults.redis_cluster import RedisCluster, url_of
from tests.faults.redis_node import HOST
from tests.faults.replicating_redis import ReplicatingRedis
from tests.faults.slot_names import named, spread
from tests.service import free_port

SLOTS = range(1_000, 1_064)


async def test_seeds_are_asked_in_turn_until_one_answers(redis_cluster: RedisCluster) -> None:
    """Nobody listens at the first one, and the second one is in no cluster."""
    async with AsyncExitStack() as stack:
        alone = await stack.enter_async_context(RedisCluster.started(1))
        await alone.nodes[0].ask("CLUSTER", "FLUSHSLOTS")
        seeds = [("127.0.0.1", free_port()), *alone.seeds, redis_cluster.seeds[2]]
        cluster = await stack.enter_async_context(open_cluster(url_of(seeds), timeout=TIMEOUT))
        assert cluster.topology.map.owners == {Address(*seed) for seed in redis_cluster.seeds}
        assert {node.address for node in cluster.nodes.all} == cluster.topology.map.owners


async def test_a_cluster_that_does_not_exist_at_the_start_is_found_later() -> None:
    """Until its only node owns the slots, each call fails. That node does not know its own name, and answers none."""
    async with RedisCluster.started(1) as alone:
        node = alone.nodes[0]
        await node.ask("CLUSTER", "FLUSHSLOTS")
        async with open_cluster(alone.url, timeout=TIMEOUT) as cluster:
            sending = cluster.sending("things")
            (failed,) = await sending.send([Call.get("a")])
            assert isinstance(failed, CacheUnavailable)
            assert str(failed) == "No node is known to own slot 15495."
            await node.ask("CLUSTER", "ADDSLOTS", *range(16_384))

            async def answers() -> bool:
                (answer,) = await sending.send([Call.get("a")])
                return isinstance(answer, Answer)

            await eventually(answers)
            assert (await node.ask("CLUSTER", "SLOTS"))[0][2][0] == b""
            assert cluster.topology.map.owners == {Address(*alone.seeds[0])}


async def test_a_redis_without_cluster_mode_is_named_as_that() -> None:
    async with ReplicatingRedis.started() as alone, open_cluster(url_of([("127.0.0.1", alone.port)])) as cluster:
        with pytest.raises(CacheUnavailable, match="ERR This instance has cluster support disabled"):
            await cluster.topology.read()


async def test_redirected_calls_share_one_reading_and_do_not_wait_for_it(
    redis_cluster: RedisCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """64 slots have moved, and 64 tasks are redirected in one tick. The answer to the reading is held."""
    monkeypatch.setattr("app.caching.cluster.topology.EVERY", timedelta(hours=1))
    async with opening_through_wires(redis_cluster) as (cluster, wires):
        await redis_cluster.move(SLOTS, redis_cluster.nodes[1])
        sending = cluster.sending("things")

        def count(pattern: str) -> int:
            return sum(wire.count(pattern) for wire in wires.values())

        readings = count("^CLUSTER SLOTS")
        async with wires[redis_cluster.nodes[1]].holding_replies("^CLUSTER SLOTS") as held:
            answers = await asyncio.gather(*(sending.send([Call.get(name)]) for name in spread(SLOTS)))
            assert [answer.reply for (answer,) in answers if isinstance(answer, Answer)] == [None] * 64
            await held.arrived.wait()
            assert count("^CLUSTER SLOTS") - readings == 1
        gets = count("^GET ")
        await asyncio.gather(*(sending.send([Call.get(name)]) for name in spread(SLOTS)))
        assert count("^GET ") - gets == 64, "Each of them goes to the new owner."


async def test_a_node_without_slots_is_closed_although_it_is_asked_for_the_map(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A slot was about to move to it. From then on no call goes there, but each reading asks it first."""
    monkeypatch.setattr("app.caching.cluster.topology.EVERY", timedelta(hours=1))
    async with RedisCluster.started(1) as redis_cluster, opening(redis_cluster) as cluster:
        added = Address(HOST, (await redis_cluster.add()).port)
        monkeypatch.setattr("app.caching.cluster.topology.random.shuffle", lambda nodes: nodes.sort(key=added.__ne__))
        await cluster.nodes.at(added)
        for known in (True, False):
            await cluster.topology.read()
            assert (cluster.nodes.get(added) is not None) == known


async def test_a_reading_tells_of_slots_that_nobody_has_asked_for(redis_cluster: RedisCluster) -> None:
    """Ten slots have moved. One redirected call suffices to know the others."""
    async with opening_through_wires(redis_cluster) as (cluster, _wires):
        await redis_cluster.move(SLOTS[:10], redis_cluster.nodes[1])
        await cluster.sending("things").send([Call.get(named(SLOTS[0]))])
        there = Address(*redis_cluster.seeds[1])

        async def knows_all() -> bool:
            return {cluster.topology.map.owner(slot) for slot in SLOTS[:10]} == {there}

        await eventually(knows_all)
