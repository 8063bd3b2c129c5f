"""A real Redis Cluster on this machine, whose slots move, whose primaries die, and whose nodes come and go.

A short node timeout makes a busy machine look like a dead node: it is short only while a replica is to take over.
"""

import asyncio
import math
import re
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Self

from redis.crc import REDIS_CLUSTER_HASH_SLOTS as SLOTS

from tests.eventually import eventually
from tests.faults.cluster_bus import ClusterBus
from tests.faults.moving_slot import MovingSlot
from tests.faults.redis_node import HOST, RedisNode
from tests.open_directory import open_directory

PATIENT, HASTY = 15_000, 2_000
"""Node timeouts, in milliseconds: while no node is to fail, and while a replica is to take over."""
ELECTION = 6
"""Seconds after which a manual failover has ended, or has been given up."""


class RedisCluster:
    """Primaries with equal parts of the slots, in order, and their replicas."""

    @classmethod
    @asynccontextmanager
    async def started(
        cls,
        primaries: int = 3,
        *,
        replicas: int = 0,
        node_timeout: int = PATIENT,
        partitions: bool = False,
        persistent: bool = False,
    ) -> AsyncIterator[Self]:
        """Runs it until the block ends. A node that is silent for `node_timeout` milliseconds has failed. With
        `partitions`, nodes can be cut off from the others: then this process carries their bus. If it is `persistent`,
        each node keeps its data in a file."""
        with open_directory() as directory:
            async with ClusterBus.opened() as bus:
                cluster = cls(directory, node_timeout, bus if partitions else None, persistent=persistent)
                try:
                    await cluster._start(primaries, replicas)
                    yield cluster
                finally:
                    await asyncio.gather(*(node.stop() for node in cluster.nodes), return_exceptions=True)

    def __init__(self, directory: Path, node_timeout: int, bus: ClusterBus | None, *, persistent: bool) -> None:
        self.nodes: list[RedisNode] = []
        """All nodes: first the primaries, then the replicas, then those that were added."""
        self._directory, self._node_timeout, self._bus, self._persistent = directory, node_timeout, bus, persistent
        self._numbers = count()
        self._apart: set[RedisNode] = set()
        """The nodes that are cut off."""
        self._first_owners: dict[int, RedisNode] = {}

    @property
    def seeds(self) -> list[tuple[str, int]]:
        """The hosts and ports of all nodes."""
        return [(HOST, node.port) for node in self.nodes]

    @property
    def url(self) -> str:
        """The URL that names all nodes."""
        return url_of(self.seeds)

    async def owner(self, slot: int) -> RedisNode:
        """Returns the node that owns a slot, as it says itself."""
        for node in self._running():
            if (await node.owners()).get(slot) == node.id:
                return node
        raise AssertionError(f"Nobody owns slot {slot}.")

    def replicas_of(self, primary: RedisNode) -> list[RedisNode]:
        """Returns the replicas that were made for this primary."""
        return self._replicas[primary.id]

    async def followers(self, primary: RedisNode) -> list[RedisNode]:
        """Returns the running replicas that follow this primary now, and have all that it had at their last sync."""
        return [
            node
            for node in self._running()
            if (role := await node.ask("ROLE"))[0] == b"slave" and (role[2], role[3]) == (primary.port, b"connected")
        ]

    async def moving(self, slot: int, target: RedisNode) -> MovingSlot:
        """Opens a slot for its move, which is finished by hand."""
        source = await self.owner(slot)
        others = [node for node in await self.primaries() if node not in (source, target)]
        moving = MovingSlot(slot, source, target, others)
        await moving.begin()
        return moving

    async def move(self, slots: Iterable[int], target: RedisNode) -> None:
        """Moves slots with all their keys, one after another, and key by key in steps of a hundred."""
        owners = await target.owners()
        nodes = {node.id: node for node in await self.primaries()}
        for slot in slots:
            if owners[slot] != target.id:
                others = [node for node in nodes.values() if node.id not in (owners[slot], target.id)]
                moving = MovingSlot(slot, nodes[owners[slot]], target, others)
                await moving.begin()
                await moving.finish()

    async def primaries(self) -> list[RedisNode]:
        """Returns the running nodes that are primaries now, apart from those that are cut off."""
        return [node for node in self._running() if await _is_primary(node)]

    async def fail_over(self, replica: RedisNode) -> None:
        """Makes a replica the primary, as an operator does, and returns when all nodes agree."""
        asked = -math.inf

        async def is_primary() -> bool:
            nonlocal asked
            # If the other primaries have not voted in time, it has given up, and is asked again.
            if time.monotonic() - asked > ELECTION:
                await replica.ask("CLUSTER", "FAILOVER")
                asked = time.monotonic()
            return await _is_primary(replica)

        # For twice the node timeout, nobody votes again for a replica of the same primary.
        async with self.hasty():
            await eventually(is_primary)
            await self.agreed()

    async def replicated(self, primary: RedisNode) -> None:
        """Returns when the replicas of a primary have all that was written to it: they begin to receive changes up to a
        second after they are in sync."""
        replicas = len(self.replicas_of(primary))

        async def all_have_it() -> bool:
            return bool(await primary.ask("WAIT", replicas, 100) >= replicas)

        await eventually(all_have_it)

    async def promoted(self, replica: RedisNode) -> None:
        """Returns when a replica has become a primary instead of a dead one, and all nodes agree."""
        async with self.hasty():
            await eventually(partial(_is_primary, replica))
            await self.agreed()

    @asynccontextmanager
    async def hasty(self) -> AsyncIterator[None]:
        """Has the nodes notice soon that another one is silent, until the block ends."""
        await self._set_node_timeout(HASTY)
        yield
        await self._set_node_timeout(self._node_timeout)

    async def add(self) -> RedisNode:
        """Adds a primary without slots."""
        node = await self._new()
        await self._meet(node)
        await self._acquainted()
        await self.agreed()
        return node

    async def remove(self, node: RedisNode) -> None:
        """Removes a node without slots: the others forget it, and it ends."""
        self.nodes.remove(node)
        for other in self._running():
            await other.ask("CLUSTER", "FORGET", node.id)
        await node.stop()

    def cut_off(self, node: RedisNode) -> None:
        """Cuts a node off from all other nodes. Clients, and its replicas' streams of changes, still reach it."""
        assert self._bus is not None, "Start it with `partitions`."
        self._apart.add(node)
        self._bus.cut_off(node.id)

    def rejoin(self, node: RedisNode) -> None:
        """Ends that."""
        assert self._bus is not None, "Start it with `partitions`."
        self._apart.discard(node)
        self._bus.rejoin(node.id)

    async def agreed(self) -> None:
        """Returns when all running nodes that are not cut off answer, and name the same owner of each slot."""

        async def is_agreed() -> bool:
            maps = [await node.owners() for node in self._running()]
            states = [b"cluster_state:ok" in await node.ask("CLUSTER", "INFO") for node in self._running()]
            return all(states) and all(each == maps[0] for each in maps)

        await eventually(is_agreed)

    async def restore(self) -> None:
        """Empties the cluster, and returns each slot to its first owner, also from the middle of a move."""
        for node in await self.primaries():
            await node.ask("FLUSHALL")
            for slot in await _moving(node):
                await node.ask("CLUSTER", "SETSLOT", slot, "STABLE")

        async def is_restored() -> bool:
            restored = True
            for node in await self.primaries():
                owners = await node.owners()
                for slot, first in self._first_owners.items():
                    if owners.get(slot) != first.id:
                        restored = False
                        await node.ask("CLUSTER", "SETSLOT", slot, "NODE", first.id)
            return restored

        await eventually(is_restored)
        await self.agreed()

    async def _start(self, primaries: int, replicas: int) -> None:
        await asyncio.gather(*(self._new() for _ in range(primaries * (1 + replicas))))
        owners, followers = self.nodes[:primaries], self.nodes[primaries:]
        for place, node in enumerate(owners):
            slots = range(SLOTS * place // primaries, SLOTS * (place + 1) // primaries)
            await node.ask("CLUSTER", "ADDSLOTS", *slots)
            self._first_owners.update(dict.fromkeys(slots, node))
        for place, node in enumerate(self.nodes):
            # Equal epochs would be resolved later, at a time that nobody chose.
            await node.ask("CLUSTER", "SET-CONFIG-EPOCH", place + 1)
            await self._meet(node)
        await self._acquainted()
        self._replicas: dict[str, list[RedisNode]] = {owner.id: [] for owner in owners}
        for place, node in enumerate(followers):
            owner = owners[place % primaries]
            self._replicas[owner.id].append(node)
            await node.ask("CLUSTER", "REPLICATE", owner.id)
        for node in owners if followers else []:
            await eventually(partial(_is_level, node))
        await self.agreed()

    async def _new(self) -> RedisNode:
        directory = self._directory / str(next(self._numbers))
        node = RedisNode(directory, self._node_timeout, self._bus, persistent=self._persistent)
        self.nodes.append(node)
        await node.start()
        return node

    async def _meet(self, node: RedisNode) -> None:
        if node is not self.nodes[0]:
            await self.nodes[0].ask("CLUSTER", "MEET", HOST, node.port, node.bus_port)

    async def _acquainted(self) -> None:
        """Returns when each node knows all others by their id."""
        ids = {node.id for node in self._running()}

        async def all_know_all() -> bool:
            return all([ids <= await _known(node) for node in self._running()])

        await eventually(all_know_all)

    async def _set_node_timeout(self, milliseconds: int) -> None:
        for node in self._running():
            await node.ask("CONFIG", "SET", "cluster-node-timeout", milliseconds)

    def _running(self) -> list[RedisNode]:
        """The nodes that can agree."""
        return [node for node in self.nodes if node.is_running and not node.is_paused and node not in self._apart]


def url_of(seeds: Iterable[tuple[str, int]]) -> str:
    """Returns the URL of the cluster that has these nodes."""
    return f"redis+cluster://{','.join(f'{host}:{port}' for host, port in seeds)}"


async def _known(node: RedisNode) -> set[str]:
    """Returns the ids of the nodes that a node knows, and has shaken hands with."""
    lines = (await node.ask("CLUSTER", "NODES")).decode().splitlines()
    return {line.split()[0] for line in lines if "handshake" not in line and "noaddr" not in line}


async def _moving(node: RedisNode) -> list[int]:
    """Returns the slots that are on their way from or to a node."""
    (line,) = [line for line in (await node.ask("CLUSTER", "NODES")).decode().splitlines() if "myself" in line]
    return [int(slot) for slot in re.findall(r"\[(\d+)-[<>]-", line)]


async def _is_primary(node: RedisNode) -> bool:
    return bool((await node.ask("ROLE"))[0] == b"master")


async def _is_level(primary: RedisNode) -> bool:
    """Whether the replica of a primary has all that it has, and receives what changes."""
    told = await primary.redis.info("replication")
    return bool(told.get("slave0", {"state": "none"})["state"] == "online")
