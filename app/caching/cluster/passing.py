"""What passes by itself within about a second, so that a call may be repeated: nothing of it was executed."""

from redis.exceptions import ClusterDownError, ResponseError, TryAgainError

from ..errors import CacheUnavailable, NotAsked
from .node import Node


def passes(error: ResponseError) -> bool:
    """Whether an error passes: its slot is moving, or a replica is about to take the place of its owner."""
    return isinstance(error, TryAgainError | ClusterDownError)


def is_new(error: CacheUnavailable, node: Node | None) -> bool:
    """Whether a node was not asked because it is not known yet what it is: it was just opened, or has restarted. One
    that is known to be silent may stay so."""
    if node is None or not isinstance(error, NotAsked):
        return False
    breaker = node.cache.breaker
    return breaker.reachable or not breaker.served
