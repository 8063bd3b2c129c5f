"""A cluster is opened with what all its nodes share."""

from collections.abc import AsyncIterator
from functools import partial

import pytest

from app.caching import open_cache
from app.caching.cluster import Address, Answer, Call, open_cluster
from tests.caching.cluster.conftest import TIMEOUT
from tests.faults.redis_cluster import RedisCluster
from tests.faults.slot_names import spread


@pytest.fixture
async def login(redis_cluster: RedisCluster) -> AsyncIterator[dict[str, str]]:
    """A login that all nodes know."""
    for node in redis_cluster.nodes:
        await node.ask("ACL", "SETUSER", "cache", "on", ">a/b@c?d", "~*", "+@all")
    yield {"username": "cache", "password": "a/b@c?d"}
    for node in redis_cluster.nodes:
        await node.ask("ACL", "DELUSER", "cache")


async def test_all_nodes_are_reached_with_the_same_login(redis_cluster: RedisCluster, login: dict[str, str]) -> None:
    opened = partial(open_cache, timeout=TIMEOUT)
    seeds = [Address(*redis_cluster.seeds[0])]
    async with open_cluster(seeds, parameters=login, timeout=TIMEOUT, opened=opened) as cluster:
        answers = await cluster.sending("things").send(map(Call.get, spread((0, 8_000, 16_000))))
        assert [answer.reply for answer in answers if isinstance(answer, Answer)] == [None] * 3
        assert [await node.cache.redis.acl_whoami() for node in cluster.nodes.all] == ["cache"] * 3


async def test_a_login_that_may_not_ask_for_a_moving_slot_is_told_so(
    redis_cluster: RedisCluster, login: dict[str, str]
) -> None:
    """Its command was refused only because ASKING was."""
    for node in redis_cluster.nodes:
        await node.ask("ACL", "SETUSER", "cache", "-asking")
    moving = await redis_cluster.moving(0, redis_cluster.nodes[1])
    opened = partial(open_cache, timeout=TIMEOUT)
    seeds = [Address(*redis_cluster.seeds[0])]
    async with open_cluster(seeds, parameters=login, timeout=TIMEOUT, opened=opened) as cluster:
        refused, answered = await cluster.sending("things").send(map(Call.get, spread((0, 8_000))))
        assert isinstance(answered, Answer)
        assert "NOPERM" in str(refused)
        assert "'asking'" in str(refused)
    await moving.finish()


async def test_a_node_that_was_opened_by_a_cluster_is_closed_with_it(redis_cluster: RedisCluster) -> None:
    """No connection of it stays open."""
    opened = partial(open_cache, timeout=TIMEOUT)
    async with open_cluster([Address(*redis_cluster.seeds[0])], timeout=TIMEOUT, opened=opened) as cluster:
        pools = [node.cache.redis.connection_pool for node in cluster.nodes.all]
        await cluster.sending("things").send(map(Call.get, spread((0, 8_000, 16_000))))
    assert cluster.nodes.all == []
    assert not any(connection.is_connected for pool in pools for connection in pool._available_connections)


@pytest.mark.parametrize(
    ("seeds", "parameters", "why"),
    [
        ([], {}, "at least one of its nodes"),
        ([Address("a b", 7000)], {}, "contains a blank"),
        ([Address("here", 0)], {}, "must be a number from 1 to 65535"),
        ([Address("here", 7000)], {"ssl_cert_reqs": "none"}, "needs rediss://"),
        ([Address("here", 7000)], {"timeout": "1"}, "which a URL may not set"),
    ],
)
async def test_what_cannot_be_used_is_refused_at_the_start(
    seeds: list[Address], parameters: dict[str, str], why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        async with open_cluster(seeds, parameters=parameters):
            pass
