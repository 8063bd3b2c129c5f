"""A Redis Cluster, as several Redises: each primary is a node with a cache of its own (`cache.py`).

    async with open_cluster([Address("127.0.0.1", 7000)]) as cluster:
        found = await cluster.sending("orders").send([Call.get("orders:{42}"), Call.get("orders:{43}")])

What can go wrong: a primary is down. Then the calls for its slots fail, until a replica has taken its place.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from ..cache import Cache, open_cache
from ..connection import open_redis
from ..redis_url import read_redis_url
from .address import Address
from .nodes import Nodes
from .sending import Sending
from .topology import Topology


@dataclass(frozen=True, slots=True)
class Cluster:
    """The nodes of a cluster, and which of them owns which slot."""

    topology: Topology
    nodes: Nodes

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
    opened: Callable[[str], AbstractAsyncContextManager[Cache]] = open_cache,
) -> AsyncIterator[Cluster]:
    """Opens the cluster that one of the `seeds` knows, which need not be up, and closes it at the end. Raises
    ValueError for an address or a parameter that it cannot use as it is.

    `parameters` are those of a Redis URL (`username`, `password`, `ssl_ca_certs`…), and the same for all nodes.
    `opened` opens the cache of one node at its URL. `timeout` bounds each answer of a seed.
    """

    def url(address: Address) -> str:
        return address.url(parameters or {}, tls=tls)

    if not seeds:
        raise ValueError("A cluster needs the address of at least one of its nodes.")
    for seed in seeds:
        read_redis_url(url(seed))
    async with Nodes(lambda address: opened(url(address))) as nodes:
        topology = Topology(seeds, nodes, lambda address: open_redis(url(address), timeout=timeout, connections=1))
        async with topology.running():
            yield Cluster(topology, nodes)
