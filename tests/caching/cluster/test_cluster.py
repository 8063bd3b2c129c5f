"""A cluster is opened with what all its nodes share."""

from collections.abc import AsyncIterator

import pytest

from app.caching import open_cache
from app.caching.cluster import Answer, Call, open_cluster
from tests.caching.cluster.conftest import TIMEOUT
from tests.faults.redis_cluster import RedisCluster
from tests.faults.slot_names import spread


@pytest.fixture
async def login(redis_cluster: RedisCluster) -> AsyncIterator[str]:
    """The URL with a login that all nodes know."""
    for node in redis_cluster.nodes:
        await node.ask("ACL", "SETUSER", "cache", "on", ">a/b@c?d", "~*", "+@all")
    yield redis_cluster.url.replace("://", "://cache:a%2Fb%40c%3Fd@")
    for node in redis_cluster.nodes:
        await node.ask("ACL", "DELUSER", "cache")


async def test_all_nodes_are_reached_with_the_same_login(login: str) -> None:
    async with open_cluster(login, timeout=TIMEOUT) as cluster:
        answers = await cluster.sending("things").send(map(Call.get, spread((0, 8_000, 16_000))))
        assert [answer.reply for answer in answers if isinstance(answer, Answer)] == [None] * 3
        assert [await node.cache.redis.acl_whoami() for node in cluster.nodes.all] == ["cache"] * 3


async def test_a_login_that_may_not_ask_for_a_moving_slot_is_told_so(redis_cluster: RedisCluster, login: str) -> None:
    """Its command was refused only because ASKING was."""
    for node in redis_cluster.nodes:
        await node.ask("ACL", "SETUSER", "cache", "-asking")
    moving = await redis_cluster.moving(0, redis_cluster.nodes[1])
    async with open_cluster(login, timeout=TIMEOUT) as cluster:
        refused, answered = await cluster.sending("things").send(map(Call.get, spread((0, 8_000))))
        assert isinstance(answered, Answer)
        assert "NOPERM" in str(refused)
        assert "'asking'" in str(refused)
    await moving.finish()


async def test_a_node_that_was_opened_by_a_cluster_is_closed_with_it(redis_cluster: RedisCluster) -> None:
    """No connection of it stays open."""
    async with open_cluster(redis_cluster.url, timeout=TIMEOUT) as cluster:
        pools = [node.cache.redis.connection_pool for node in cluster.nodes.all]
        await cluster.sending("things").send(map(Call.get, spread((0, 8_000, 16_000))))
    assert cluster.nodes.all == []
    assert not any(connection.is_connected for pool in pools for connection in pool._available_connections)


async def test_a_url_of_one_redis_and_one_of_a_cluster_are_not_mistaken_for_each_other(
    redis_cluster: RedisCluster,
) -> None:
    with pytest.raises(ValueError, match="names no cluster: begin it with redis"):
        async with open_cluster("redis://h"):
            pass
    with pytest.raises(ValueError, match="names a cluster: open it with open_cluster"):
        async with open_cache(redis_cluster.url):
            pass
