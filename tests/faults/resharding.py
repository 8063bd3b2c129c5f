"""Many slots on their way to another node of a cluster: as `redis-cli --cluster reshard` moves them, but a few at a
time."""

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from redis.exceptions import ResponseError

from tests.faults.moving_slot import MovingSlot
from tests.faults.redis_cluster import RedisCluster
from tests.faults.redis_node import RedisNode

AT_ONCE = 20
"""The number of slots that are half moved at a time."""


@dataclass(frozen=True, slots=True)
class Moved:
    """Some slots, and for how long they were half moved."""

    slots: frozenset[int]
    began: float
    ended: float


async def reshard(cluster: RedisCluster, slots: Iterable[int], target: RedisNode) -> list[Moved]:
    """Moves slots with all their keys, and returns when all nodes know it."""
    moved = []
    primaries = {node.id: node for node in await cluster.primaries()}
    owners = await target.owners()
    by_source: defaultdict[str, list[int]] = defaultdict(list)
    for slot in slots:
        if owners[slot] != target.id:
            by_source[owners[slot]].append(slot)
    for source_id, some in by_source.items():
        source = primaries[source_id]
        others = [node for node in primaries.values() if node not in (source, target)]
        for few in (some[first : first + AT_ONCE] for first in range(0, len(some), AT_ONCE)):
            began = time.monotonic()
            await _move(few, source, target, others)
            moved.append(Moved(frozenset(few), began, time.monotonic()))
    await cluster.agreed()
    return moved


async def _move(slots: Sequence[int], source: RedisNode, target: RedisNode, others: Sequence[RedisNode]) -> None:
    moving = [MovingSlot(slot, source, target, others) for slot in slots]
    await moving[0].target_knows()
    await _tell(target, slots, "IMPORTING", source)
    await _tell(source, slots, "MIGRATING", target)
    for one in moving:
        await one.move_all()
    ignorant = [target, source, *others]
    while ignorant:
        for node in ignorant:
            await _tell(node, slots, "NODE", target)
        ignorant = [node for node in ignorant if not await _knows(node, slots, target)]


async def _tell(node: RedisNode, slots: Iterable[int], what: str, other: RedisNode) -> None:
    pipeline = node.redis.pipeline(transaction=False)
    for slot in slots:
        pipeline.execute_command("CLUSTER", "SETSLOT", slot, what, other.id)
    for reply in await pipeline.execute(raise_on_error=False):
        # Without any slot left, the source becomes a replica of the target, as soon as that one has told it so.
        if isinstance(reply, ResponseError) and "only with masters" not in str(reply):
            raise reply


async def _knows(node: RedisNode, slots: Iterable[int], owner: RedisNode) -> bool:
    owners = await node.owners()
    return all(owners.get(slot) == owner.id for slot in slots)
