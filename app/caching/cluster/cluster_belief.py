"""Whether what was done at a node of a cluster counts: it does if the node was believed about the key all the time.

What can go wrong: `CacheUnavailable` if it was not, or if that is unknown. A write then waits until its change is told.
"""

from collections.abc import Awaitable, Callable
from typing import Generic

from ..errors import CacheUnavailable
from ..lease import K
from .cluster import Cluster
from .node import Node
from .sending import REDIRECTIONS


class ClusterBelief(Generic[K]):
    """The belief in the nodes that have the keys of one region. `slot_of` returns the slot of a key."""

    def __init__(self, cluster: Cluster, name: str, slot_of: Callable[[K], int]) -> None:
        self._cluster, self._topology, self._holds = cluster, cluster.topology, cluster.holds
        self._name, self._slot_of = name, slot_of

    def losses(self, key: K) -> object:
        """Returns a mark that changes when the trust in the node of this key is lost, or it has another node."""
        slot = self._slot_of(key)
        node, held = self.at(slot), 0 if self._holds is None else self._holds.mark(slot)
        return object() if node is None else (node, node.cache.trust.losses, held)

    async def tell(self, key: K, call: Callable[[], Awaitable[None]]) -> None:
        """Makes a call about `key`, which counts only if the same node is believed before and after it, as `asking.py`
        shows for one Redis. It is made again if the slot has another node meanwhile."""
        slot = self._slot_of(key)
        for _attempt in range(REDIRECTIONS):
            node, mark = self.at(slot), 0 if self._holds is None else self._holds.mark(slot)
            if node is None or (self._holds is not None and not self._holds.believes(slot, node)):
                break
            trust, identity = node.cache.trust, node.cache.identity
            losses, life = trust.losses, identity.life
            if not trust.lost:
                await trust.believed()
            await call()
            await trust.believed()
            if losses != trust.losses or life != identity.life:
                raise CacheUnavailable(f"The node that has {self._name} {key} is not believed: {trust.why}.")
            if self._holds is not None and not trust.verified:
                # A claim that this instance has not seen may have given the slot to another node.
                raise CacheUnavailable(f"Nothing has verified for a while which node holds {self._name} {key}.")
            if self.at(slot) is node and (self._holds is None or self._holds.mark(slot) == mark):
                return
        raise CacheUnavailable(f"It is not known which node of the cluster has {self._name} {key}.")

    def sure(self, key: K, losses: object) -> bool:
        """Whether the node of `key`, which was revoked when `losses` was read, still holds it: it was verified in time.

        W revokes on X, which is cut off           Y is made the holder, and filled with the old row
        W commits, and must not answer before Y is told
        """
        if self._holds is None:
            return True
        node = self._holds.holder(self._slot_of(key))
        is_same = node is not None and losses == self.losses(key)
        return node is not None and is_same and node.cache.trust.held and node.cache.trust.verified

    def at(self, slot: int) -> Node | None:
        """Returns the node that is asked about a slot, None if none is known or open."""
        address = self._topology.owner(slot)
        return None if address is None else self._cluster.nodes.get(address)
