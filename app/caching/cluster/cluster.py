"""A Redis Cluster, as several Redises: each primary is a node with a cache of its own (`cache.py`).

    async with open_cluster([Address("127.0.0.1", 7000)]) as cluster, Region(cluster, "orders", Order) as region:
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

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from ..bulkhead import Bulkhead
from ..cache import Cache, claimed, open_cache, unobserved
from ..connection import open_redis
from ..observing import Observe
from ..owed import Owed
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
    seeds: Sequence[Address],
    *,
    parameters: Mapping[str, str] | None = None,
    tls: bool = False,
    timeout: timedelta = timedelta(seconds=1),
    prefix: str = "",
    bypassing: int = 8,
    observe: Observe = unobserved,
    opened: Callable[[str], AbstractAsyncContextManager[Cache]] = open_cache,
) -> AsyncIterator[Cluster]:
    """Opens the cluster that one of the `seeds` knows, which need not be up, and closes it at the end.

    `parameters` are those of a Redis URL (`username`, `password`, `ssl_ca_certs`…), and the same for all nodes.
    `opened` opens the cache of one node at its URL. `timeout` bounds each answer of a seed. `prefix` begins all names
    in Redis. While a node may not be believed, at most `bypassing` reads query the database at the same time. `observe`
    is called for each event in a region.
    """

    def url(address: Address) -> str:
        return address.url(parameters or {}, tls=tls)

    async with Nodes(lambda address: opened(url(address))) as nodes:
        topology = Topology(seeds, nodes, lambda address: open_redis(url(address), timeout=timeout, connections=1))
        cluster = Cluster(topology, nodes, prefix, observe, Bulkhead(bypassing))

        async def retry() -> timedelta:
            await cluster.owed.retry()
            return EVERY

        async with topology.running():
            async with Repeating("retry of failed invalidations", retry, lambda: None).running():
                yield cluster
            await cluster.owed.give_up()
