"""Nodes are opened once, and closed when nobody needs them any more."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from app.caching import Cache, CacheUnavailable, open_cache
from app.caching.cluster import Address
from app.caching.cluster.nodes import Nodes
from app.embedded import Endpoints
from tests.eventually import eventually

HERE, THERE = Address("here", 1), Address("there", 2)


class Opened:
    """Opens the same Redis for each address, and records which are open."""

    def __init__(self, url: str) -> None:
        self.open: list[Address] = []
        self._url = url

    @asynccontextmanager
    async def at(self, address: Address) -> AsyncIterator[Cache]:
        """Opens it."""
        self.open.append(address)
        async with open_cache(self._url) as cache:
            yield cache
        self.open.remove(address)


@pytest.fixture
def opened(endpoints: Endpoints) -> Opened:
    """Nothing is open yet."""
    return Opened(endpoints.redis_url)


async def test_a_node_is_opened_once_for_all_who_ask_at_the_same_time(opened: Opened) -> None:
    async with Nodes(opened.at) as nodes:
        found = await asyncio.gather(*(nodes.at(HERE) for _ in range(10)))
        assert {id(node) for node in found} == {id(nodes.get(HERE))}
        assert opened.open == [HERE]
    assert opened.open == []


async def test_one_who_goes_away_does_not_keep_the_node_from_the_others(opened: Opened) -> None:
    async with Nodes(opened.at) as nodes:
        first, second = asyncio.create_task(nodes.at(HERE)), asyncio.create_task(nodes.at(HERE))
        await asyncio.sleep(0)
        first.cancel()
        assert (await second).address == HERE


async def test_a_node_that_has_gone_is_closed_when_its_last_call_has_ended(opened: Opened) -> None:
    async with Nodes(opened.at) as nodes:
        await nodes.keep([HERE, THERE])
        node = await nodes.at(HERE)
        with node:
            await nodes.keep([THERE])  # It was asked since the last time: a slot may be on its way there.
            assert nodes.get(HERE) is node
            await nodes.keep([THERE])
            assert nodes.get(HERE) is None
            await node.cache.redis.ping()
            assert opened.open == [HERE, THERE]

        async def is_closed() -> bool:
            return opened.open == [THERE]

        await eventually(is_closed)


async def test_the_caches_of_two_nodes_share_nothing(opened: Opened) -> None:
    async with Nodes(opened.at) as nodes:
        here, there = (await nodes.at(HERE)).cache, (await nodes.at(THERE)).cache
        here.trust.lose("an invalidation failed")
        assert here.trust.lost
        assert not there.trust.lost
        assert here.clock is not there.clock
        assert here.identity is not there.identity
        assert here.breaker is not there.breaker


async def test_no_node_is_opened_at_an_address_that_cannot_be_one(endpoints: Endpoints) -> None:
    async with Nodes(lambda address: open_cache(f"redis://{address.host}:{address.port}")) as nodes:
        for _ in range(2):
            with pytest.raises(CacheUnavailable, match="an address that cannot be used"):
                await nodes.at(Address("two hosts", 1))


async def test_no_node_is_opened_once_the_cluster_is_closed(opened: Opened) -> None:
    async with Nodes(opened.at) as nodes:
        pass
    with pytest.raises(CacheUnavailable, match="is closed"):
        await nodes.at(HERE)
