"""The slot map in use, and when it is read again.

    a call is redirected (MOVED)     at once, from the new owner: it knows that it owns the slot
    a node is down or not believed   within 0.2 s of the next call: perhaps a replica has taken its place
    otherwise                        every 10 s, or every second while a node is unreachable

One reading at a time: whoever wants another one while it is under way joins it. No call waits for it.

What can go wrong: the map is old, or was read from a node that is cut off. Then calls are redirected, or fail, and it
is read again from another node.
"""

import asyncio
import logging
import math
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from typing import Any, cast

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from ..background import Background
from ..errors import REDIS_DOWN, CacheUnavailable
from ..repeating import Repeating
from ..words import unavailable
from .address import Address
from .call import packed
from .exchange import exchange
from .holds import Holds
from .nodes import Nodes
from .slot_map import SlotMap

logger = logging.getLogger(__name__)

EVERY, WHILE_DOWN, LEAST = timedelta(seconds=10), timedelta(seconds=1), timedelta(milliseconds=200)
"""How often it is read if nothing is wrong, while a node is unreachable, and while calls fail."""
QUESTION = packed(("CLUSTER", "SLOTS"))


class Topology(Background):
    """Which node owns which slot, as this process knows it. `seeds` are asked while no node is known, and `client`
    opens a client of one. Use it within `async with`."""

    def __init__(
        self,
        seeds: Sequence[Address],
        nodes: Nodes,
        client: Callable[[Address], AbstractAsyncContextManager[Redis]],
        holds: Holds | None = None,
    ) -> None:
        super().__init__()
        self._holds = holds
        self.map = SlotMap()
        self._seeds, self._nodes, self._client = seeds, nodes, client
        self._reading: asyncio.Task[None] | None = None
        self._began = -math.inf
        self._repeating = Repeating("reading of the slot map", self._repeat, lambda: None)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Reads the map now, and again while the block lasts. If no node answers at the start, it is retried."""
        async with self:
            try:
                await self.read()
            except CacheUnavailable as error:
                logger.warning("%s Calls fail until a node of the cluster answers.", error)
            async with self._repeating.running():
                yield

    def owner(self, slot: int) -> Address | None:
        """Returns where calls about a slot go: to its holder, if one is known, else to its owner. None if that is not
        known, either.

            X holds the slot, and was cut off       Y, its replica, has taken its place in the slot map
            R reads on X, which R believes          W must invalidate on X, not on Y
        """
        holder = None if self._holds is None else self._holds.holder(slot)
        return self.map.owner(slot) if holder is None else holder.address

    def moved(self, slot: int, owner: Address) -> None:
        """Records that a slot has moved, and reads the map again: others may have moved with it. If the map has this
        owner already, the call was sent before that was known."""
        if self.map.owner(slot) != owner and not self.closing:
            self.map.move(slot, owner)
            self._start(owner)

    def failed(self) -> None:
        """Reads the map again, because a call has failed."""
        if self._is_older_than(LEAST) and not self.closing:
            self._start(None)

    async def read(self) -> None:
        """Returns when the map was read, and the nodes in it are open. Raises CacheUnavailable if none answers."""
        await asyncio.shield(self._start(None))

    def _start(self, first: Address | None) -> asyncio.Task[None]:
        if self._reading is None or self._reading.done():
            self._began = time.monotonic()
            self._reading = self.start(self._read(first))
            # Marks an error as retrieved: the map in use stays, and the next reading is soon.
            self._reading.add_done_callback(lambda task: task.cancelled() or task.exception())
        return self._reading

    async def _repeat(self) -> timedelta:
        all_answer = all(node.cache.breaker.reachable for node in self._nodes.all)
        if self._is_older_than(EVERY) or not all_answer:
            await self.read()
        return WHILE_DOWN

    def _is_older_than(self, age: timedelta) -> bool:
        return time.monotonic() - self._began >= age.total_seconds()

    async def _read(self, first: Address | None) -> None:
        failed = CacheUnavailable("No node of the cluster is known.")
        for address in self._sources(first):
            try:
                self.map = await self._read_from(address)
            except REDIS_DOWN as error:
                failed = unavailable(error, "the slot map")
                failed.__cause__ = error
            except CacheUnavailable as error:
                failed = error
            except ValueError:  # The others are asked all the same.
                failed = CacheUnavailable("A node of the cluster has an address that cannot be used.")
            else:
                await self._nodes.keep(self.map.owners)
                return
        raise failed

    def _sources(self, first: Address | None) -> list[Address]:
        """Returns who is asked, in turn. Nodes come in any order, so that none is asked by all processes, or always."""
        nodes = [node.address for node in self._nodes.all if node.cache.breaker.reachable]
        random.shuffle(nodes)
        return list(dict.fromkeys([*([first] if first else []), *nodes, *self._seeds, *self.map.owners]))

    async def _read_from(self, address: Address) -> SlotMap:
        node = self._nodes.get(address)
        if node is not None:
            with node:
                answer = await self._ask(node.cache.redis)
        else:
            async with self._client(address) as redis:
                answer = await self._ask(redis)
        if not answer:
            raise CacheUnavailable("A node of the cluster knows no owner of any slot.")
        return SlotMap.read(answer, address)

    async def _ask(self, redis: Redis) -> Sequence[Any]:
        (answer,) = await exchange(redis, [QUESTION])
        if isinstance(answer, ResponseError):
            raise answer
        return cast("Sequence[Any]", answer)
