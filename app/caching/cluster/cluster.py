"""A Redis Cluster, as several Redises: each primary is a node with a cache of its own (`cache.py`).

    async with open_cluster("redis+cluster://n1:6379,n2:6379") as cluster, Region(cluster, "orders", Order) as region:
        orders = CacheAside(region)

A key belongs to a slot, and a slot to a node. What a node holds is believed while that node is: if it fails over, only
its values become misses, and reads of them query the database until its replica answers. A slot that moves takes its
values along; at their new node they are misses.

If you run a relay, open the cluster with `relayed=True`: then only the relay renews the trust in each node, and says
which node holds which slot (`holds.py`). Without one, each node's trust is renewed as in `renewal.py`, which says what
is weaker. And a node that is cut off from the others, but still answers this process, may then hold old values until
the cluster's node timeout is over.

What can go wrong: a primary is down. Then its keys are read from the database, writes of them raise `NotInvalidated`
(write-through: `CacheUnavailable`), and all other keys are served as before. Counters (`write_behind/place.py`) are in
four shards: those of that primary accept nothing.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from itertools import count

from redis.asyncio import Redis

from ..bulkhead import Bulkhead
from ..cache import Cache, claimed, open_cache, unobserved
from ..connection import open_redis
from ..identity import Identity
from ..observing import Observe
from ..owed import Owed
from ..redis_url import node_url, read_redis_url
from ..renewal import EVERY
from ..repeating import Repeating
from ..trust import Trust
from .address import Address
from .holds import Holds
from .node import Node
from .nodes import Nodes
from .sending import Sending
from .slot_map import slot_of
from .topology import Topology


@dataclass(frozen=True, slots=True, eq=False)
class Cluster:
    """The nodes of a cluster, and which of them owns which slot. `holds` says which one holds which slot, None where no
    relay runs. `identity` has the epoch, which is one for all nodes."""

    topology: Topology
    nodes: Nodes
    holds: Holds | None = None
    prefix: str = ""
    observe: Observe = unobserved
    bulkhead: Bulkhead = field(default_factory=Bulkhead)
    owed: Owed = field(default_factory=Owed)
    names: dict[str, str] = field(default_factory=dict)
    """The kind of data kept under each name."""
    identity: Identity = field(default_factory=lambda: Identity(Trust()))

    @property
    def caches(self) -> Sequence[Cache]:
        """The cache of each node that is open."""
        return [node.cache for node in self.nodes.all]

    @property
    def renews(self) -> bool:
        """Whether this process renews the trust by itself. Otherwise a relay has to."""
        return self.holds is None

    def place(self, name: str) -> Cache | None:
        """Returns the cache of the node that holds the slot of a name in Redis, None if none is known to."""
        assert self.holds is not None
        node = self.holds.holder(slot_of(name))
        return None if node is None else node.cache

    def name_at(self, node: Node, pattern: str) -> str | None:
        """Returns a name that `node` has, by the slot map: `pattern` with the first number that leads there. None if it
        owns no slot."""
        owner_of = self.topology.map.owner
        if node.address not in self.topology.map.owners:
            return None
        return next(name for name in map(pattern.format, count()) if owner_of(slot_of(name)) == node.address)

    def claim(self, name: str, kind: str) -> str:
        """Reserves a name for one kind of data, and returns its prefix in Redis. Raises ValueError if the name belongs
        to another kind."""
        return self.prefix + claimed(self.names, name, kind)

    def sending(self, name: str, failed: Callable[[], None] = lambda: None, *, drains: bool = False) -> Sending:
        """Returns what sends the calls of one region. `failed` is called for each call that is not answered. With
        `drains`, nodes are also asked that may not be written to."""
        return Sending(self.topology, self.nodes, name, failed, self.holds, drains)


@asynccontextmanager
async def open_cluster(
    url: str,
    *,
    prefix: str = "",
    timeout: timedelta = timedelta(seconds=1),
    connections: int = 16,
    bypassing: int = 8,
    observe: Observe = unobserved,
    changed: Callable[[bool], None] = lambda is_open: None,
    relayed: bool = False,
    opened: Callable[..., AbstractAsyncContextManager[Cache]] = open_cache,
) -> AsyncIterator[Cluster]:
    """Opens the cluster at `url` (redis+cluster:// or rediss+cluster://), which need not be up, and closes it at the
    end. Raises ValueError for a URL that it cannot use as it is.

    The URL names some of its nodes, and the login and TLS of all. `prefix` begins all names in Redis. `timeout` bounds
    each answer of a node, and each wait for one of the `connections` to it. While a node may not be believed, at most
    `bypassing` reads query the database at the same time. `observe` is called for each event in a region. `changed` is
    called with True when the first node is bypassed, and False when all are believed again. `relayed` says that a relay
    renews the trust. `opened` opens the cache of one node.
    """
    seeds = read_redis_url(url).get("nodes")
    if seeds is None:
        raise ValueError("The Redis URL names no cluster: begin it with redis+cluster:// or rediss+cluster://.")

    bypassed: set[Address] = set()

    def bypass(address: Address, is_open: bool) -> None:
        before = bool(bypassed)
        (bypassed.add if is_open else bypassed.discard)(address)
        if before != bool(bypassed):
            changed(not before)

    @asynccontextmanager
    async def cache(address: Address) -> AsyncIterator[Cache]:
        observed = partial(bypass, address)
        try:
            async with opened(
                node_url(url, address), timeout=timeout, connections=connections, changed=observed, relayed=relayed
            ) as each:
                yield each
        finally:
            bypass(address, is_open=False)

    def client(address: Address) -> AbstractAsyncContextManager[Redis]:
        return open_redis(node_url(url, address), timeout=timeout, connections=1)

    async with Nodes(cache) as nodes:
        holds = Holds() if relayed else None
        topology = Topology([Address(*seed) for seed in seeds], nodes, client, holds)
        cluster = Cluster(topology, nodes, holds, prefix, observe, Bulkhead(bypassing))

        async def retry() -> timedelta:
            await cluster.owed.retry()
            return EVERY

        async with topology.running(), AsyncExitStack() as retrying:
            if not relayed:
                retrying.push_async_callback(cluster.owed.give_up)
                await retrying.enter_async_context(
                    Repeating("retry of failed invalidations", retry, lambda: None).running()
                )
            yield cluster
