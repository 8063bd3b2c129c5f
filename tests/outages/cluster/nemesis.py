"""Changes a cluster as operators do, and breaks it as machines do; and heals it again."""

import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial

from tests.eventually import eventually
from tests.faults.redis_cluster import HASTY, RedisCluster
from tests.faults.redis_node import RedisNode
from tests.faults.resharding import reshard
from tests.outages.cluster.deployment import PRIMARIES, Deployment
from tests.outages.cluster.journal import Journal, Outage

MOVED = 1_000
"""How many slots are moved at a time."""
HALF_MOVED = 1.0
"""Seconds after which a slot that is half moved may be refused."""
IGNORANT = 60_000
"""Milliseconds for which a primary that is cut off may take itself for one: its node timeout."""

Heal = Callable[[], Awaitable[None]]


class Nemesis:
    """Injects faults that `randomness` chooses. `asked` returns when clients have called for a while."""

    def __init__(self, deployment: Deployment, randomness: random.Random) -> None:
        self._cluster: RedisCluster = deployment.cluster
        self._slots, self._randomness = deployment.slots, randomness

    async def strike(self, fault: str, journal: Journal, asked: Callable[[], Awaitable[None]]) -> Heal:
        """Returns when the cluster has come to terms with the fault, with what heals it. Outages whose end is not known
        yet are those of the service. `asked` returns when clients have called for a while."""
        self._journal, self._asked = journal, asked
        heal = await FAULTS[fault](self)
        return partial(self._healed, heal)

    async def _healed(self, heal: Heal | None) -> None:
        """Heals, and gives each primary a replica again, as long as there are some to spare."""
        if heal is not None:
            await heal()
        await self._cluster.agreed()
        spare = []
        lonely = []
        for primary in await self._cluster.primaries():
            followers = await self._cluster.followers(primary)
            owns_some = primary.id in (await primary.owners()).values()
            spare += followers[1:] if owns_some else followers
            if owns_some and not followers:
                lonely.append(primary)
        for primary, replica in zip(lonely, spare, strict=False):
            await replica.ask("CLUSTER", "REPLICATE", primary.id)
        await eventually(self._all_follow)

    async def reshard(self) -> None:
        """Moves slots, with what the clients use among them, to another primary."""
        source = await self._source()
        target = self._randomness.choice([node for node in await self._cluster.primaries() if node is not source])
        await self._move(await self._some_of(source), target)

    async def add(self) -> None:
        """Adds a node, and gives it slots."""
        source, added = await self._source(), await self._cluster.add()
        await self._move(await self._some_of(source), added)

    async def remove(self) -> None:
        """Moves all slots of a node to others, or to a new one if there would be too few, and removes it."""
        removed = await self._source()
        others = [node for node in await self._cluster.primaries() if node is not removed]
        if len(others) < PRIMARIES:
            others = [await self._cluster.add()]
        slots = await self._owned(removed)
        for place, target in enumerate(others):
            await self._move(slots[place :: len(others)], target)
        for replica in await self._cluster.followers(removed):
            await replica.ask("CLUSTER", "REPLICATE", others[0].id)
        await self._cluster.remove(removed)

    async def kill(self) -> Heal:
        """Kills a primary (`kill -9`). It comes back later, as a replica."""
        primary, replicas = await self._followed()
        await self._outage(primary)
        await primary.kill()
        await self._one_stands(replicas)
        return primary.restart

    async def fail_over(self) -> None:
        """Makes a replica the primary by hand."""
        primary, replicas = await self._followed()
        await self._outage(primary)
        await self._cluster.fail_over(self._randomness.choice(replicas))

    async def cut_off(self) -> Heal:
        """Cuts a primary off from all other nodes. All clients still reach it. Sometimes it does not notice it, and
        answers as before, for longer than the others wait."""
        primary, replicas = await self._followed()
        await self._outage(primary)
        if self._randomness.random() < 0.7:
            await primary.ask("CONFIG", "SET", "cluster-node-timeout", IGNORANT)
        self._cluster.cut_off(primary)
        await self._one_stands(replicas)

        async def rejoin() -> None:
            await self._asked()  # While two nodes own the slots, each by its own word.
            await primary.ask("CONFIG", "SET", "cluster-node-timeout", HASTY)
            self._cluster.rejoin(primary)

        return rejoin

    async def stall(self) -> Heal:
        """Stops a primary until a replica has taken its place. Then it goes on, and does not know."""
        primary, replicas = await self._followed()
        await self._outage(primary)
        primary.pause()
        await self._one_stands(replicas)

        async def resume() -> None:
            primary.resume()

        return resume

    async def restart(self, *, empty: bool = False) -> None:
        """Kills a node, and restarts it at once: before, or after, a replica has taken its place."""
        node = self._randomness.choice(self._cluster.nodes)
        await self._outage(node)
        await node.kill()
        await node.restart(empty=empty)
        await self._cluster.agreed()

    async def half_move(self) -> None:
        """Holds a slot that clients use half moved, while they ask for what is in it."""
        source = await self._source()
        target = self._randomness.choice([node for node in await self._cluster.primaries() if node is not source])
        slot = self._randomness.choice(sorted(self._slots.intersection(await self._owned(source))))
        outage = Outage(frozenset({slot}), time.monotonic())
        self._journal.outages.append(outage)
        moving = await self._cluster.moving(slot, target)
        keys = await moving.keys()
        await moving.move(self._randomness.sample(keys, len(keys) // 2))
        await self._asked()
        await moving.finish()
        await self._cluster.agreed()

    async def _outage(self, node: RedisNode) -> None:
        self._journal.outages.append(Outage(frozenset(await self._owned(node)), time.monotonic()))

    async def _move(self, slots: Sequence[int], target: RedisNode) -> None:
        for moved in await reshard(self._cluster, slots, target):
            if moved.ended - moved.began > HALF_MOVED:
                self._journal.outages.append(Outage(moved.slots, moved.began, moved.ended))

    async def _source(self) -> RedisNode:
        """Chooses a primary that has what clients use."""
        primaries = await self._cluster.primaries()
        return self._randomness.choice([node for node in primaries if self._slots & set(await self._owned(node))])

    async def _followed(self) -> tuple[RedisNode, list[RedisNode]]:
        """Chooses a primary that has what clients use, and a replica that has all of it."""
        choices = []
        for primary in await self._cluster.primaries():
            followers = await self._cluster.followers(primary)
            if followers and self._slots & set(await self._owned(primary)):
                choices.append((primary, followers))
        return self._randomness.choice(choices)

    async def _owned(self, node: RedisNode) -> list[int]:
        return [slot for slot, owner in sorted((await node.owners()).items()) if owner == node.id]

    async def _some_of(self, source: RedisNode) -> list[int]:
        """Returns neighbouring slots of a node, among them one that clients use."""
        owned = await self._owned(source)
        used = owned.index(self._randomness.choice(sorted(self._slots.intersection(owned))))
        first = max(0, min(used - self._randomness.randrange(MOVED), len(owned) - MOVED))
        return owned[first : first + MOVED]

    async def _one_stands(self, replicas: Sequence[RedisNode]) -> None:
        """Returns when one of these is a primary, and all others know it."""

        async def stands() -> bool:
            return bool(set(replicas).intersection(await self._cluster.primaries()))

        await eventually(stands)
        await self._cluster.agreed()

    async def _all_follow(self) -> bool:
        """Whether each node that is no primary follows one, and has what it has."""
        primaries = await self._cluster.primaries()
        followers = [node for primary in primaries for node in await self._cluster.followers(primary)]
        return len(primaries) + len(followers) == len(self._cluster.nodes)


FAULTS: Mapping[str, Callable[[Nemesis], Awaitable[Heal | None]]] = {
    "slots resharded": Nemesis.reshard,
    "node added": Nemesis.add,
    "node removed": Nemesis.remove,
    "primary killed": Nemesis.kill,
    "failed over by hand": Nemesis.fail_over,
    "primary cut off": Nemesis.cut_off,
    "primary stalled": Nemesis.stall,
    "node restarted": Nemesis.restart,
    "node restarted empty": lambda nemesis: nemesis.restart(empty=True),
    "slot half moved": Nemesis.half_move,
}
