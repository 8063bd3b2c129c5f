"""Schedules connections that have more to parse: one of them per turn of the event loop.

    some clients send a thousand requests at once, or a body in chunks of one byte · all of it is parsed in one go
    another client's request arrives · it waits until all of that is parsed and answered

So a connection parses input immediately only up to `AT_ONCE` bytes. The rest waits. In each turn, only the connection
that has waited longest parses another `AT_ONCE` bytes, so that together they take no more of a turn than one would.
"""

import asyncio
from collections import OrderedDict
from typing import Protocol

AT_ONCE = 4096
"""The number of bytes parsed per turn. At worst, each takes half a microsecond."""


class Reading(Protocol):
    """A connection that has more to parse."""

    def read_on(self) -> None:
        """Parses at most `AT_ONCE` bytes, and waits again if there are more."""


class Turns:
    """The turns of one process."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[Reading, None] = OrderedDict()

    def wait(self, reading: Reading) -> None:
        """Queues a connection behind the others, unless it is waiting already."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._next)
        self._waiting[reading] = None

    def _next(self) -> None:
        reading, _ = self._waiting.popitem(last=False)
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._next)
        reading.read_on()
