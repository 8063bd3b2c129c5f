"""The nodes of a cluster that this process has open: each is opened when it appears, and closed when it has gone.

What can go wrong: a node does not answer. It is opened all the same: its breaker fails its calls, and those of no other
node.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack

from ..background import Background
from ..cache import Cache
from ..errors import CacheUnavailable
from .address import Address
from .node import Node


class Nodes(Background):
    """Opens each node once, by `opened`. Use it within `async with`: its end closes them."""

    def __init__(self, opened: Callable[[Address], AbstractAsyncContextManager[Cache]]) -> None:
        super().__init__()
        self._opened = opened
        self._open: dict[Address, Node] = {}
        self._opening: dict[Address, asyncio.Task[Node]] = {}

    async def __aexit__(self, *error: object) -> None:
        self.closing = True
        await asyncio.gather(*self._opening.values(), return_exceptions=True)
        self._close(list(self._open))
        await super().__aexit__(*error)

    def get(self, address: Address) -> Node | None:
        """Returns the node at this address if it is open."""
        return self._open.get(address)

    @property
    def all(self) -> list[Node]:
        """The open nodes."""
        return list(self._open.values())

    @property
    def verified(self) -> Mapping[Node, bool]:
        """Of each open node, whether hits are verified now. Read it before the question, and not with the answer:

        a node is believed without news of the database      R asks it
        The database answers: from now on hits are verified  R gets its answer, which may be older than that
        """
        return {node: node.cache.trust.verified for node in self._open.values()}

    async def at(self, address: Address) -> Node:
        """Returns the node at this address, which is opened if it is not open. Raises CacheUnavailable."""
        # In a loop: it may have been closed before this task could continue.
        while (node := self._open.get(address)) is None:
            if self.closing:
                raise CacheUnavailable("The cluster is closed in this process.")
            if address not in self._opening:
                self._opening[address] = opening = self.start(self._enter(address))
                # Marks an error as retrieved: whoever asked may be gone.
                opening.add_done_callback(lambda task: task.cancelled() or task.exception())
            # Shielded: a reader that goes away does not take the node from the others.
            await asyncio.shield(self._opening[address])
        return node

    async def keep(self, owners: Iterable[Address]) -> None:
        """Opens the owners of slots, and closes all others. A node without slots that was asked since the last call is
        kept for now: a slot may be moving there."""
        gone = self._open.keys() - set(owners)
        self._close([address for address in gone if not self._open[address].asked])
        for address in gone & self._open.keys():
            self._open[address].asked = False
        await asyncio.gather(*map(self.at, owners), return_exceptions=True)

    def _close(self, addresses: Iterable[Address]) -> None:
        for address in addresses:
            self.start(self._open.pop(address).close())

    async def _enter(self, address: Address) -> Node:
        stack = AsyncExitStack()
        try:
            cache = await stack.enter_async_context(self._opened(address))
        except ValueError as error:
            raise CacheUnavailable("A node of the cluster has an address that cannot be used.") from error
        finally:
            del self._opening[address]
        node = self._open[address] = Node(address, cache, stack)
        return node
