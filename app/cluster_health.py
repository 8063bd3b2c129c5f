"""What is wrong with the nodes of a cluster: what one of them says stands for the part, with how many say something.

What can go wrong: no node answers. Then nothing is known of any.
"""

import asyncio

from app.caching import CacheUnavailable
from app.caching.cluster import Cluster
from app.privileges import Privileges
from app.store_health import OK, UNKNOWN, Health, redis_health

LOOK = "see whether its nodes run, and are what REDIS_URL names"
TRIAL = "views:{{{}}}:trial"


async def cluster_health(cluster: Cluster, privileges: Privileges, prefix: str) -> Health:
    """Queries each node that owns slots."""
    nodes = {node: cluster.name_at(node, TRIAL) for node in cluster.nodes.all}
    asked = [
        redis_health(node.cache.redis, privileges, prefix, trial_name)
        for node, trial_name in nodes.items()
        if trial_name is not None
    ]
    if not asked:
        error = CacheUnavailable("No node of the cluster answers.")
        parts = {"redis": f"No node of the cluster answers: {LOOK}", "eviction": UNKNOWN, "persistence": UNKNOWN}
        return Health(parts, error)
    each = await asyncio.gather(*asked)
    parts = {part: _said([one.parts[part] for one in each]) for part in each[0].parts}
    errors = [one.error for one in each if one.error is not None]
    # A node that does not answer fails what it holds. The others serve.
    return Health(parts, errors[0] if len(errors) == len(each) else None, any(one.lacks_privileges for one in each))


def _said(each: list[str]) -> str:
    faults = [fault for fault in each if fault not in (OK, UNKNOWN)]
    if not faults:
        return OK if OK in each else UNKNOWN
    return faults[0] if len(each) == 1 else f"{len(faults)} of {len(each)} nodes: {faults[0]}"
