"""The places of all shards: one Redis is one place, and in a cluster each shard has its own."""

from collections.abc import Sequence

from redis.asyncio import Redis

from ..cache import Cache
from ..cluster import Cluster
from .cluster_clock import ClusterClock
from .cluster_place import ClusterPlace
from .cluster_redis import ClusterRedis
from .place import Place
from .redis_place import RedisPlace
from .shard import shards


def places(cache: Cache | Cluster, name: str, redis: Redis | None = None) -> Sequence[Place]:
    """Returns where the shards of the counters `name` are. `redis` sends the commands to one Redis, if it is not the
    client of its cache. Raises ValueError if the name belongs to something else."""
    of_name = shards(cache.claim(name, "counters"))
    if not isinstance(cache, Cluster):
        return [RedisPlace(cache, of_name, redis or cache.redis)]
    client, draining = ClusterRedis(cache, drains=False), ClusterRedis(cache, drains=True)
    clock = ClusterClock(cache.nodes)
    return [ClusterPlace(cache, shard, client, draining, clock) for shard in of_name]
