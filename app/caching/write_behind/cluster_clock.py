"""The clock of a cluster: the middle one of its nodes' clocks. A node whose clock is wrong leads nobody astray.

    ids by the clock of the node that accepts them      a slot moves to a node that is a day ahead
    an idempotency key of a minute ago would be a day old there, and count again

What can go wrong: most clocks are wrong. Then ids and ages are, too; each batch still counts once.
"""

from statistics import median

from ..clock import RedisClock
from ..cluster.nodes import Nodes


class ClusterClock:
    """The time in a cluster, as far as its nodes are known. Until one is, it is this machine's."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes, self._own = nodes, RedisClock()

    def now(self) -> float:
        """Returns milliseconds since the epoch."""
        return median([node.cache.clock.now() for node in self._nodes.all] or [self._own.now()])
