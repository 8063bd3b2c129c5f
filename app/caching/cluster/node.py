"""A primary of a cluster: a Redis with a clock, a run, a trust and a breaker of its own.

What one node has stamped is never judged by what another one says: each has its own `Cache`.
"""

import asyncio
from contextlib import AsyncExitStack

from ..cache import Cache
from .address import Address


class Node:
    """An open node. `stack` closes it, but not within a `with` of the node."""

    def __init__(self, address: Address, cache: Cache, stack: AsyncExitStack) -> None:
        self.address, self.cache = address, cache
        self.asked = True
        """Whether a call went there since this was last set to False. Questions about the slot map are none."""
        self._stack = stack
        self._uses = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def __enter__(self) -> None:
        """Keeps the node open while the block lasts."""
        self._uses += 1
        self._idle.clear()

    def __exit__(self, *error: object) -> None:
        self._uses -= 1
        if not self._uses:
            self._idle.set()

    async def close(self) -> None:
        """Closes the node as soon as nobody uses it."""
        await self._idle.wait()
        await self._stack.aclose()
