"""Whose turn it is to read on: one connection's, in each turn of the event loop.

    some clients send a thousand requests at once, or a body in chunks of one byte · all of it is read in one go
    another client's request is there, too · it waits until all of that is read, and answered

So a connection reads what comes at once if it is not more than `AT_ONCE` bytes. All else waits, and of all connections
with something left the one that has waited longest reads so much: they take no more of a turn than one of them.
"""

import asyncio
from collections import OrderedDict
from typing import Protocol

AT_ONCE = 4096
"""Bytes. At the worst each of them is half a microsecond's work."""


class Reading(Protocol):
    """A connection that has something left."""

    def read_on(self) -> None:
        """Reads so much of it, and waits again if there is more."""


class Turns:
    """Those of a process."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[Reading, None] = OrderedDict()

    def wait(self, reading: Reading) -> None:
        """Puts it behind the others, unless it waits already."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._next)
        self._waiting[reading] = None

    def _next(self) -> None:
        reading, _ = self._waiting.popitem(last=False)
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._next)
        reading.read_on()
