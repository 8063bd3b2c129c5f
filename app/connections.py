"""The connections of one process: how many there may be, and how long each client may keep the service waiting.

    owing    the client has not sent its next request, or not all of it, or does not read its answer
    busy     the application works on the request, and the client can only wait

Above the limit, the connection that has been owing longest is closed to make room, as in nginx. So a crowd of
connections that send nothing, or a byte now and then, does not lock out good clients, which send their request at once.
A new connection is refused only when all are busy.

What can go wrong: file descriptors run out before the limit is reached. So some are reserved for the stores and for
connections that are about to end. If they run out anyway, the kernel queues new connections, and the loop accepts them
later.
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
"""File descriptors reserved for all but clients and stores: files, pipes, the listener."""
LINGERING = 16
"""How many refused connections may linger until the client has read the answer. For others the answer may be lost."""
TICK = timedelta(seconds=1)
AT_ONCE = 100
"""How many connections are checked per turn of the event loop: refusing one takes a tenth of a millisecond."""


class Connection(Protocol):
    """The interface of a connection."""

    def look(self, now: float, tick: float) -> None:
        """Ends what takes too long. Start times are noted as of the last tick, and so are off by at most `tick`."""

    def abort(self) -> None:
        """Ends the connection now."""


class Connections:
    """The connections of a process. Learns when each begins and ends, and checks all of them once per tick."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.now = 0.0
        """The loop's time at the last tick. Reading the clock at every request would cost more than it is worth."""
        self.turns = Turns()
        self._tick = min(TICK, settings.header_timeout / 4, settings.body_timeout / 4, settings.keep_alive / 4)
        self._most = 0
        self._all: set[Connection] = set()
        self._owing: OrderedDict[Connection, None] = OrderedDict()
        self._looking: asyncio.TimerHandle | None = None
        self._outside: set[Connection] = set()
        """The connections that were refused and have not ended."""
        self._evicted = self._refused = 0

    def admit(self, connection: Connection) -> bool:
        """Admits a new connection, evicting another one if necessary. Returns False if there is no room."""
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
        """Removes a connection that has ended."""
        self._all.discard(connection)
        self._outside.discard(connection)
        self._owing.pop(connection, None)

    def owes(self, connection: Connection) -> None:
        """Marks a connection as owing: from now on the client must act."""
        if connection in self._all:
            self._owing[connection] = None

    def is_busy(self, connection: Connection) -> None:
        """Marks a connection as busy: the client has done all that it can."""
        self._owing.pop(connection, None)

    def may_linger(self, connection: Connection) -> bool:
        """Whether a connection may stay until its client has read why it is closed."""
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
        """Checks every connection, and schedules the next check while there are any."""
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
        """Checks some connections per turn of the loop, so that requests are served while thousands expire at once."""
        for connection in some[start : start + AT_ONCE]:
            if connection in self._all:
                connection.look(self.now, self._tick.total_seconds())
        if start + AT_ONCE < len(some):
            asyncio.get_running_loop().call_soon(self._look_at, some, start + AT_ONCE)


def _most(settings: Settings) -> int:
    stores = settings.store_connections
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, min(settings.connections, descriptors - SPARE - LINGERING - stores))


def allow_descriptors(settings: Settings) -> None:
    """Raises this process's limit on file descriptors to what its connections need, as far as permitted."""
    needed = settings.connections + SPARE + LINGERING + settings.store_connections
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (needed if hard == resource.RLIM_INFINITY else min(needed, hard), hard)
        )
