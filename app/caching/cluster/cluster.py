"""A Redis Cluster, as several Redises: each primary is a node with a cache of its own (`cache.py`).

    async with open_cluster("redis+cluster://n1:6379,n2:6379") as cluster, Region(cluster, "orders", Order) as region:
        orders = CacheAside(region)

A key belongs to a slot, and a slot to a node. What a node holds is believed while that node is: if it fails over, only
its values become misses, and reads of them query the database until its replica answers. A slot that moves takes its
values along; at their new node they are misses.

No relay runs for a cluster, so the trust in each node is renewed as in `renewal.py`, which says what is weaker. And a
node that is cut off from the others, but still answers this process, may hold old values until the cluster's node
timeout is over.

What can go wrong: a primary is down. Then its keys are read from the database, writes of them raise `NotInvalidated`
(write-through: `CacheUnavailable`), and all other keys are served as before. Write-behind does not take a cluster yet.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from redis.asyncio import Redis

from ..bulkhead import Bulkhead
from ..cache import Cache, claimed, open_cache, unobserved
from ..connection import open_redis
from ..observing import Observe
from ..owed import Owed
from ..redis_url import node_url, read_redis_url
from ..renewal import EVERY
from ..repeating import Repeating
from .address import Address
from .nodes import Nodes
from .sending import Sending
from .topology import Topology


@dataclass(frozen=True, slots=True)
class Cluster:
    """The nodes of a cluster, and which of them owns which slot."""

    topology: Topology
    nodes: Nodes
    prefix: str = ""
    observe: Observe = unobserved
    bulkhead: Bulkhead = field(default_factory=Bulkhead)
    owed: Owed = field(default_factory=Owed)
    names: dict[str, str] = field(default_factory=dict)
    """The kind of data kept under each name."""

    @property
    def renews(self) -> bool:
        """Whether this process renews the trust by itself."""
        return True

    def claim(self, name: str, kind: str) -> str:
        """Reserves a name for one kind of data, and returns its prefix in Redis. Raises ValueError if the name belongs
        to another kind."""
        return self.prefix + claimed(self.names, name, kind)

    def sending(self, name: str, failed: Callable[[], None] = lambda: None) -> Sending:
        """Returns what sends the calls of one region. `failed` is called for each call that is not answered."""
        return Sending(self.topology, self.nodes, name, failed)


@asynccontextmanager
async def open_cluster(
    url: str,
    *,
    prefix: str = "",
    timeout: timedelta = timedelta(seconds=1),
    connections: int = 16,
    bypassing: int = 8,
    observe: Observe = unobserved,
    opened: Callable[..., AbstractAsyncContextManager[Cache]] = open_cache,
) -> AsyncIterator[Cluster]:
    """Opens the cluster at `url` (redis+cluster:// or rediss+cluster://), which need not be up, and closes it at the
    end. Raises ValueError for a URL that it cannot use as it is.

    The URL names some of its nodes, and the login and TLS of all. `prefix` begins all names in Redis. `timeout` bounds
    each answer of a node, and each wait for one of the `connections` to it. While a node may not be believed, at most
    `bypassing` reads query the database at the same time. `observe` is called for each event in a region. `opened`
    opens the cache of one node.
    """
    seeds = read_redis_url(url).get("nodes")
    if seeds is None:
        raise ValueError("The Redis URL names no cluster: begin it with redis+cluster:// or rediss+cluster://.")

    def cache(address: Address) -> AbstractAsyncContextManager[Cache]:
        return opened(node_url(url, address), timeout=timeout, connections=connections)

    def client(address: Address) -> AbstractAsyncContextManager[Redis]:
        return open_redis(node_url(url, address), timeout=timeout, connections=1)

    async with Nodes(cache) as nodes:
        topology = Topology([Address(*seed) for seed in seeds], nodes, client)
        cluster = Cluster(topology, nodes, prefix, observe, Bulkhead(bypassing))

        async def retry() -> timedelta:
            await cluster.owed.retry()
            return EVERY

        async with topology.running():
            try:
                async with Repeating("retry of failed invalidations", retry, lambda: None).running():
                    yield cluster
            finally:
                await cluster.owed.give_up()
