"""One shard in a cluster: in one slot, at whichever node owns it.

What can go wrong: no node is known to own the slot, or its node does not answer: `CacheUnavailable`, for this shard
alone. While the slot is half moved, scripts wait for it, up to a second; totals that are cached can be read.
"""

import secrets
from collections.abc import Sequence

from ..cluster import Call, Cluster
from ..cluster.node import Node
from ..cluster.slot_map import slot_of
from ..errors import CacheUnavailable
from ..identity import Identity
from .cluster_clock import ClusterClock
from .cluster_redis import ClusterRedis
from .life import ANY, Life
from .scripts import ASKED
from .shard import Shard


class ClusterPlace:
    """The place of one shard. `redis` and `draining` are clients for the whole cluster."""

    def __init__(
        self, cluster: Cluster, shard: Shard, redis: ClusterRedis, draining: ClusterRedis, clock: ClusterClock
    ) -> None:
        self.shards, self.redis, self.draining, self.clock = [shard], redis, draining, clock
        self._cluster, self._slot, self._sending = cluster, slot_of(shard.stream), cluster.sending(ASKED)

    @property
    def life(self) -> Life:
        """The present life of its node. One that is not known equals no other, and no total is of it."""
        life = None if self._node is None else self._node.cache.identity.life
        return Life(ANY, f"{life or secrets.token_hex(8)} ")

    @property
    def identity(self) -> Identity:
        """Which Redis its node is. Raises CacheUnavailable if none is known."""
        node = self._node
        if node is None:
            self._cluster.topology.failed()
            raise CacheUnavailable(f"No node is known to own slot {self._slot}.")
        return node.cache.identity

    @property
    def writable(self) -> bool:
        """Whether its node is known, answers, and may be written to."""
        node = self._node
        return node is not None and node.cache.writable

    def refuses(self, *, drains: bool) -> str | None:
        """Returns None: it is decided where a command goes (`sending.py`), and that also looks for the new owner."""
        return None

    async def totals(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        """Returns the cached totals of keys: a GET for each, in one write. Raises CacheUnavailable."""
        # Only while the node is believed: one that was a replica in between has the run of before until that is noted.
        (shard,) = self.shards
        answers = await self._sending.send([Call.get(shard.total(key, ANY)) for key in keys], persistent=True)
        totals, tag = [], self.life.tag.encode()
        for answer in answers:
            if isinstance(answer, CacheUnavailable):
                raise answer
            is_of_life = answer.reply is not None and answer.reply.startswith(tag)
            totals.append(answer.reply.removeprefix(tag) if is_of_life else None)
        return totals

    @property
    def _node(self) -> Node | None:
        owner = self._cluster.topology.owner(self._slot)
        return None if owner is None else self._cluster.nodes.get(owner)
