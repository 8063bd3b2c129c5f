"""A cluster of three primaries for all tests that leave it as it was, and what the library opens of it."""

import signal
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Any

import pytest

from app.caching import Cache, open_cache
from app.caching.cluster import Cluster, open_cluster
from tests.faults.redis_cluster import RedisCluster
from tests.faults.redis_node import HOST, RedisNode
from tests.faults.redis_wire import RedisWire

TIMEOUT = timedelta(seconds=10)


@pytest.fixture(scope="session")
async def three_primaries() -> AsyncIterator[RedisCluster]:
    """A cluster without replicas, until the session ends."""
    async with RedisCluster.started(3) as redis_cluster:
        yield redis_cluster


@pytest.fixture
async def redis_cluster(three_primaries: RedisCluster) -> RedisCluster:
    """The same cluster, empty, with the slots where they were first."""
    await three_primaries.restore()
    return three_primaries


@pytest.fixture(autouse=True)
def patient_trust(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a ping may take longer than trust lasts."""
    monkeypatch.setattr("app.caching.trust.TRUST", timedelta(seconds=20))


def opening(redis_cluster: RedisCluster) -> AbstractAsyncContextManager[Cluster]:
    """Opens a cluster as the library does, with the patience that a busy machine needs."""
    return open_cluster(redis_cluster.url, timeout=TIMEOUT)


@pytest.fixture
async def cluster(redis_cluster: RedisCluster) -> AsyncIterator[Cluster]:
    """The cluster, opened."""
    async with opening(redis_cluster) as cluster:
        yield cluster


@contextmanager
def silent(node: RedisNode) -> Iterator[None]:
    """The node answers nothing while the block lasts, and keeps its connections."""
    node.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        node.process.send_signal(signal.SIGCONT)


Wires = Mapping[RedisNode, RedisWire]


@asynccontextmanager
async def opening_through_wires(redis_cluster: RedisCluster) -> AsyncIterator[tuple[Cluster, Wires]]:
    """Opens a cluster so that its nodes are reached through wires."""
    async with AsyncExitStack() as stack:
        wires = {
            node: await stack.enter_async_context(RedisWire(f"redis://{HOST}:{node.port}"))
            for node in redis_cluster.nodes
        }
        urls = {f"redis://{HOST}:{node.port}": wire.url for node, wire in wires.items()}

        def opened(url: str, **arguments: Any) -> AbstractAsyncContextManager[Cache]:
            return open_cache(urls[url], **arguments)

        cluster = open_cluster(redis_cluster.url, timeout=TIMEOUT, opened=opened)
        yield await stack.enter_async_context(cluster), wires
