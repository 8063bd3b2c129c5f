"""The connections of one process: how many there may be, and how long a client may take for what it owes.

    owing    the client has not sent its next request, or not all of it, or does not take its answer
    busy     the application works on what was asked, and the client can only wait

Above the limit, the one that has been owing for the longest time makes room, as in nginx: a crowd of connections that
send nothing, or a letter now and then, keeps no good client outside, for a good one sends its request at once. Only
when all are busy is a new one refused.

What can go wrong: descriptors run out before the limit. So some are kept free, for the stores and for what is about to
end. Where they run out all the same, the system keeps new connections waiting, and the loop accepts them later.
"""

import asyncio
import logging
import resource
from collections import OrderedDict
from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol

from app.settings import Settings
from app.turns import Turns

logger = logging.getLogger(__name__)

SPARE = 64
"""Descriptors for what is neither a client nor a store: files, pipes, the listener."""
LINGERING = 16
"""So many refused connections may take their time to end; of the others the answer may be lost."""
TICK = timedelta(seconds=1)
AT_ONCE = 100
"""So many connections are looked at in one turn of the event loop: to refuse one takes a tenth of a millisecond."""


class Connection(Protocol):
    """What is asked of one of them."""

    def look(self, now: float, tick: float) -> None:
        """Ends what takes too long. It was noted with the time of a tick, which is late by a tick at the most."""

    def abort(self) -> None:
        """Ends it now."""


class Connections:
    """Those of a process. It is told of their beginning and end, and looks at them once in a while."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.now = 0.0
        """The loop's time at the last look: asking the clock at every request would cost more than it is worth."""
        self.turns = Turns()
        self._tick = min(TICK, settings.header_timeout / 4, settings.body_timeout / 4, settings.keep_alive / 4)
        self._most = 0
        self._all: set[Connection] = set()
        self._owing: OrderedDict[Connection, None] = OrderedDict()
        self._looking: asyncio.TimerHandle | None = None
        self._outside: set[Connection] = set()
        """Those that were refused, and have not ended."""
        self._evicted = self._refused = 0

    def admit(self, connection: Connection) -> bool:
        """Takes a new one in, for which another one may have to go. False if there is no room."""
        if self._looking is None:
            self._most = self._most or _most(self.settings)
            self._look_later()
        if len(self._all) >= self._most:
            if not self._owing:
                self._refused += 1
                return False
            oldest = next(iter(self._owing))
            self.leave(oldest)
            oldest.abort()
            self._evicted += 1
        self._all.add(connection)
        self._owing[connection] = None
        return True

    def leave(self, connection: Connection) -> None:
        """It has ended."""
        self._all.discard(connection)
        self._outside.discard(connection)
        self._owing.pop(connection, None)

    def owes(self, connection: Connection) -> None:
        """Its client has something to do, from now on."""
        if connection in self._all:
            self._owing[connection] = None

    def is_busy(self, connection: Connection) -> None:
        """Its client has done all that it can."""
        self._owing.pop(connection, None)

    def may_linger(self, connection: Connection) -> bool:
        """Whether there is room for it until its client has read why it is closed."""
        if connection not in self._all:
            if len(self._outside) >= LINGERING:
                return False
            self._outside.add(connection)
        return True

    def _look_later(self) -> None:
        loop = asyncio.get_running_loop()
        self.now = loop.time()
        self._looking = loop.call_later(self._tick.total_seconds(), self._look)

    def _look(self) -> None:
        """Looks at each, as long as there is one."""
        self._looking = None
        if self._all:
            self._look_later()
        self._look_at(list(self._all))
        if self._evicted or self._refused:
            logger.warning(
                "%d connections are open, and more are not allowed: %d that were waiting for their client were closed, "
                "and %d new ones were refused.",
                len(self._all), self._evicted, self._refused,
            )  # fmt: skip
        self._evicted = self._refused = 0

    def _look_at(self, some: Sequence[Connection], start: int = 0) -> None:
        """Looks at some of them in this turn of the loop. When thousands expire at once, others are served between."""
        for connection in some[start : start + AT_ONCE]:
            if connection in self._all:
                connection.look(self.now, self._tick.total_seconds())
        if start + AT_ONCE < len(some):
            asyncio.get_running_loop().call_soon(self._look_at, some, start + AT_ONCE)


def _most(settings: Settings) -> int:
    stores = settings.redis_connections + settings.database_connections
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, min(settings.connections, descriptors - SPARE - LINGERING - stores))


def allow_descriptors(settings: Settings) -> None:
    """Raises this process's limit of descriptors to what its connections need, as far as it may."""
    needed = settings.connections + SPARE + LINGERING + settings.redis_connections + settings.database_connections
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (needed if hard == resource.RLIM_INFINITY else min(needed, hard), hard)
        )
