"""The cluster that tests run: its slots move, its nodes change."""

import pytest
from redis.exceptions import ResponseError

from tests.eventually import eventually
from tests.faults.redis_cluster import RedisCluster
from tests.faults.redis_node import RedisNode
from tests.faults.resharding import reshard
from tests.faults.slot_names import named


async def said(node: RedisNode, *words: str) -> str:
    """Returns what a node answers, be it an error."""
    try:
        return str(await node.ask(*words))
    except ResponseError as error:
        return f"{type(error).__name__} {error}"


async def test_a_cluster_is_restored() -> None:
    """From the middle of a move, and with a value in the slot."""
    async with RedisCluster.started(2) as servers:
        one, other = servers.nodes
        await servers.move(range(5), other)
        await other.ask("SET", named(0), "value")
        assert await servers.owner(0) is other
        await servers.moving(7, other)
        assert "AskError" in await said(one, "GET", named(7))
        await servers.restore()
        assert [await said(one, "GET", named(slot)) for slot in (0, 7)] == ["None", "None"]
        assert await servers.owner(0) is one


async def test_a_replica_takes_over_from_a_primary_that_is_cut_off() -> None:
    """Clients still reach the old primary, which then knows that it is alone, and follows when it is back."""
    async with RedisCluster.started(3, replicas=1, partitions=True) as servers:
        primary = servers.nodes[0]
        (replica,) = servers.replicas_of(primary)

        async def is_alone() -> bool:
            return "ClusterDownError" in await said(primary, "GET", named(0))

        async def is_promoted() -> bool:
            return bool((await replica.ask("ROLE"))[0] == b"master")

        async with servers.hasty():
            servers.cut_off(primary)
            await eventually(is_promoted)
            await eventually(is_alone)
            servers.rejoin(primary)
            await servers.agreed()
        assert await servers.owner(0) is replica
        assert "MovedError" in await said(primary, "GET", named(0))


@pytest.mark.prove
async def test_many_slots_move_with_their_keys_and_a_node_comes_back_with_its_data_or_empty() -> None:
    async with RedisCluster.started(2, persistent=True) as servers:
        one, other = servers.nodes
        for slot in range(100):
            await one.ask("SET", named(slot), slot)
        moved = await reshard(servers, range(100), other)
        assert frozenset().union(*(each.slots for each in moved)) == set(range(100))
        assert [await said(other, "GET", named(slot)) for slot in (0, 99)] == ["b'0'", "b'99'"]
        for empty, found in ((False, "b'7'"), (True, "None")):
            await other.kill()
            await other.restart(empty=empty)
            await servers.agreed()
            assert await said(other, "GET", named(7)) == found
