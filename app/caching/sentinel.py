"""Finds the primary of a Redis that Sentinels watch, and notices when they switch to another one.

    a new connection    asks all Sentinels, and takes the first answer → checks that the server is a primary
    every `EVERY`       asks all Sentinels: the pool drops connections to an address that they no longer name

Sentinel ends the connections to a primary that it demotes. It cannot do so while it does not reach that primary:

    the Sentinels lose X, and promote Y      this process still reaches X, which is alive, and answers
    others believe Y, and write there        nothing ends the connections to X: so this process asks, again and again

The Sentinels may disagree, because one of them was cut off together with X. Each switch raises the epoch of their
configuration, so the answer with the greatest epoch counts. Only the latest answer of each Sentinel is compared:
Sentinels that were set up anew begin with epoch 0, and are believed.

When to use: for a URL that names Sentinels. Any other one names the primary itself.

What can go wrong: `NoPrimary`, a connection error that says why there is no address. Existing connections stay in use
while no Sentinel answers.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from .errors import NoPrimary
from .redis_tls import load_again
from .redis_url import Discovery, Place
from .words import said

logger = logging.getLogger(__name__)

EVERY = timedelta(milliseconds=100)
PAUSE = timedelta(milliseconds=50)
"""How long to wait before asking again when the server that was named is not a primary: a Sentinel has demoted it, and
the others learn of it within moments."""
UNKNOWN = "No such master"
"""What a Sentinel says of a name that it does not monitor."""


@dataclass(frozen=True, slots=True)
class Named:
    """The answer of a Sentinel: the primary's address, and the epoch of the configuration that names it."""

    epoch: int
    place: Place


class Sentinel:
    """One Sentinel, its latest answer, and why there is none. `answered` is called after each question."""

    def __init__(self, label: str, connection: Connection, primary: str, answered: Callable[[], None]) -> None:
        self.named: Named | None = None
        self.why: str | None = None
        self._label, self._connection, self._primary, self._answered = label, connection, primary, answered
        self._asking: asyncio.Task[bool] | None = None

    def ask(self) -> asyncio.Task[bool]:
        """Returns the question in flight, or a new one. It returns whether the Sentinel named a primary."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
        return self._asking

    async def close(self) -> None:
        """Closes the connection, and gives up a question in flight: a Sentinel that hangs holds up nobody."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait([self._asking])
        await self._connection.disconnect()

    async def _ask(self) -> bool:
        try:
            async with asyncio.timeout(self._connection.socket_connect_timeout):
                self.named = await self._answer()
        except Exception as error:  # noqa: BLE001  # Whatever it is, another Sentinel may answer.
            await self._connection.disconnect(nowait=True)
            load_again(self._connection, error)
            why = said(error)
            if why != self.why:
                logger.warning("%s names no primary: it %s.", self._label, why)
            self.named, self.why = None, why
        else:
            if self.why is not None:
                logger.info("%s names the primary again.", self._label)
            self.why = None
        self._answered()
        return self.named is not None

    async def _answer(self) -> Named:
        connection, name = self._connection, self._primary
        await connection.connect()  # type: ignore[no-untyped-call]
        # The epoch first. If the switch happens between the two, this is the new address with the old epoch, which
        # loses against the other Sentinels for a moment. The old address with the new epoch would win.
        questions = (("SENTINEL", "MASTER", name), ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", name))
        await connection.send_packed_command(b"".join(b"".join(connection.pack_command(*words)) for words in questions))
        words = [word.decode() for word in await connection.read_response()]
        # SENTINEL MASTER also has an address, but while replicas are still being moved, it is the former primary's.
        host, port = await connection.read_response()
        return Named(int(dict(zip(words[::2], words[1::2], strict=True))["config-epoch"]), (host.decode(), int(port)))


class Sentinels:
    """The Sentinels in one URL. Connections to them and to the primary are of one `kind`, with its arguments `tls`."""

    def __init__(
        self, discovery: Discovery, kind: type[Connection], tls: Mapping[str, Any], timeout: timedelta
    ) -> None:
        self.connection_class = _TlsToPrimary if issubclass(kind, SSLConnection) else _ToPrimary
        """The class of connections to the primary. It takes these Sentinels as its argument `sentinels`."""
        self._sentinels = [
            Sentinel(
                f"Sentinel {number} of {len(discovery.places)}",
                kind(
                    **tls,
                    host=host,
                    port=port,
                    username=discovery.username,
                    password=discovery.password,
                    socket_timeout=timeout.total_seconds(),
                    socket_connect_timeout=timeout.total_seconds(),
                    retry=Retry(NoBackoff(), 0),
                    protocol=2,
                    driver_info=None,
                ),
                discovery.primary,
                self._compare,
            )
            for number, (host, port) in enumerate(discovery.places, 1)
        ]
        self._newest: Named | None = None
        self._highest: Named | None = None

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Asks them again and again while the block lasts."""
        watching = asyncio.create_task(self._watch(), name="sentinels")
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.wait([watching])
            for sentinel in self._sentinels:
                await sentinel.close()

    async def primary(self) -> Place:
        """Asks them, and returns the primary's address. Raises NoPrimary."""
        asking = {sentinel.ask() for sentinel in self._sentinels}
        while asking:
            answered, asking = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
            if any(one.result() for one in answered):
                break
        if self._newest is None:
            raise NoPrimary(self._why)
        return self._newest.place

    def disown(self, connection: AbstractConnection) -> bool:
        """Whether they name another primary than the one at the other end of this connection."""
        if self._newest is None or not isinstance(connection, Connection):
            return False
        return self._newest.place != (connection.host, connection.port)

    async def silent(self) -> int:
        """Asks all of them, and returns how many name no primary."""
        asking = [sentinel.ask() for sentinel in self._sentinels]
        return sum(not named for named in await asyncio.gather(*asking))

    def __len__(self) -> int:
        return len(self._sentinels)

    @property
    def _why(self) -> str:
        told = [sentinel.why for sentinel in self._sentinels if sentinel.why is not None]
        answered = next((why for why in told if why.startswith("says ")), None)
        if answered is None:
            return "cannot be found, because no Sentinel answers"
        if UNKNOWN in answered:
            return "cannot be found, because its Sentinels do not monitor that name"
        return f"cannot be found, because a Sentinel {answered}"

    def _compare(self) -> None:
        named = [sentinel.named for sentinel in self._sentinels if sentinel.named is not None]
        before, self._newest = self._newest, max(named, key=lambda each: each.epoch, default=None)
        # Those that know of the switch may be silent. (If all of them name an older one, they have begun anew.)
        #   Y is the primary, and X is cut off with one Sentinel     the others fall silent for a second
        #   A would leave Y for X
        if named and len(named) < len(self._sentinels):
            self._newest = max(*named, self._highest or named[0], key=lambda each: each.epoch)
        self._highest = self._newest or self._highest
        if before is not None and self._newest is not None and before.place != self._newest.place:
            logger.warning("The Sentinels have switched to another primary.")

    async def _watch(self) -> None:
        while True:
            for sentinel in self._sentinels:
                sentinel.ask()
            await asyncio.sleep(EVERY.total_seconds())


class _ToPrimary(Connection):
    """A connection to whichever server the Sentinels name when it is made."""

    def __init__(self, *, sentinels: Sentinels, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._sentinels = sentinels

    async def connect_check_health(self, check_health: bool = True, retry_socket_connect: bool = True) -> None:
        """Asks the Sentinels, and connects. Raises NoPrimary, besides what redis-py raises."""
        if self.is_connected:
            return
        until = time.monotonic() + (self.socket_connect_timeout or 0.0)
        while True:
            self.host, self.port = await self._sentinels.primary()
            try:
                await super().connect_check_health(check_health, retry_socket_connect)
            except NoPrimary:
                if time.monotonic() >= until:
                    raise
                await asyncio.sleep(PAUSE.total_seconds())
            else:
                return


class _TlsToPrimary(_ToPrimary, SSLConnection):
    """The same with TLS."""
