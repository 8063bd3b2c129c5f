"""Whether this process may believe what stands in Redis.

    closed    Redis is asked, and believed: a relay has found out within the last `TRUST` that Redis was told of every
              change that was committed until then
    lapsed    nobody has found that out for so long: a reader waits a moment for news
    open      Redis does not answer, or it is another one than before: reads go to the database, a few at a time
              (`bulkhead.py`)

Trust is a lease. It ends by itself, on every instance, also on one that stands still, whose machine was paused, or
that nobody can reach:

    A cannot reach Redis: its write is committed, and its invalidation fails
    B can, and still holds the old value                B's relay carries A's change, or B's trust ends after `TRUST`
    A answers after `SETTLED`: whoever reads then asks the database, or a Redis that knows of the change

(Leases as a bound on staleness: Gray and Cheriton, SOSP 1989. Breaker: Nygard, "Release It!".)

A Redis that restarts may have lost its last second, and a replica that took over some more: values come back that were
invalidated. A name may come to lead to another Redis, while connections to the old one live on. So each new connection
asks for the server's run, and another one than before opens the breaker before the connection carries a command; the
pool drops those that lead to another run (`connection.py`).

What is kept is of one `life`: the epoch that the relay has found (where there is one), and the run that was met last.

What can go wrong: nobody renews the trust, because the relay stands still. Then reads ask the database.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from . import moment
from .errors import REDIS_DOWN, AnotherRun, CacheUnavailable
from .moment import LONG_AGO, Moment
from .words import said, unavailable

logger = logging.getLogger(__name__)
T = TypeVar("T")

TRUST = timedelta(milliseconds=350)
SETTLED = TRUST + timedelta(milliseconds=50)
"""Of a change that was committed this long ago, either Redis was told, or no instance believes Redis: `TRUST`, and more
than two clocks can drift apart meanwhile."""
NEWS = timedelta(seconds=2)
"""So long a reader waits when trust has lapsed. Nearly always this process stood still, or has more to do than it can,
and has news after some ms; who waits costs nothing meanwhile, and who asked the database would keep it busy."""
FAILURES, FAILING = 3, timedelta(milliseconds=100)
"""So many calls, and for so long, have to fail without one that succeeds until the breaker opens. A few connections may
break by themselves, at one moment, and Redis answers all the same."""


class Breaker:
    """What this process believes of Redis.

    `changed` is told each time whether it is open now. It starts open: a relay has to close it.
    """

    def __init__(self, *, changed: Callable[[bool], None] = lambda is_open: None) -> None:
        self.run: str | None = None
        """Which run of Redis was met last."""
        self.epoch: str | None = None
        """Of which epoch Redis is, where somebody keeps one (`record.py`)."""
        self.refused: str | None = None
        """Why this Redis is told nothing that it would keep: another one is believed, or it is somebody else's."""
        self.forgetful = False
        """Whether it may have forgotten the changes that it was told last."""
        self.ours: bool | None = True
        """Whether what waits in it is ours to flush; None while nobody knows."""
        self.losses = 0
        """How often trust was lost. Who compares it before and after knows whether it was lost between."""
        self.reachable = False
        """Whether Redis answers."""
        self.served = False
        """Whether it has ever answered this process as it should."""
        self.is_open = True
        self.verified = True
        """Whether the database has said that Redis was told of everything. While it says nothing, Redis is believed
        all the same, and a hit says that it is not verified."""
        self.why = "nobody has looked yet"
        """Why it is open, or was the last time."""
        self._lives: tuple[str, str | None] | None = None
        self._life = ""
        self._until = LONG_AGO
        self._failures = 0
        self._failing_since = 0.0
        self._news = asyncio.Event()
        self._changed = changed

    @property
    def closed(self) -> bool:
        """Whether Redis may be believed now."""
        # Each hit asks: the clocks are read here, and not in a call of their own.
        by_boot, by_wall = self._until
        return not self.is_open and moment.boot() < by_boot and moment.wall() < by_wall

    @property
    def life(self) -> str | None:
        """What is kept in Redis is of this life, and a miss in every other one: a short word for both."""
        if self.epoch is None:
            return self.run
        if self._lives != (self.epoch, self.run):
            self._lives = self.epoch, self.run
            self._life = hashlib.sha256(f"{self.epoch}-{self.run}".encode()).hexdigest()[:16]
        return self._life

    @property
    def writable(self) -> bool:
        """Whether Redis answers, and may be told what it shall keep."""
        return self.reachable and self.refused is None

    async def believed(self) -> None:
        """Returns when Redis may be believed. Raises CacheUnavailable when it may not, or nobody knows."""
        try:
            async with asyncio.timeout(NEWS.total_seconds()):
                # Again and again: what was found out may be too old to be believed when it comes.
                while not self.closed and not self.is_open:
                    await self._news.wait()
        except TimeoutError:
            raise CacheUnavailable("Nobody knows whether Redis was told of the last changes.") from None
        if self.is_open:
            raise CacheUnavailable(f"Redis is not asked: {self.why}.")

    def open(self, why: str) -> None:
        """Nothing in Redis is believed any more, until a relay closes the breaker."""
        if not self.is_open:
            logger.warning("The breaker opens: %s.", why)
        self.losses += 1
        self.why = why
        self._set(is_open=True, until=LONG_AGO)

    def close(self, losses: int, began: Moment) -> None:
        """Redis knows of every change that was committed at `began`.

        It stays open when trust was lost since `losses` was read: what was found out then is about another Redis.
        """
        if losses == self.losses:
            if self.is_open:
                logger.info("The breaker closes.")
            self._set(is_open=False, until=began.later(TRUST))
            self.verified = True

    def renew(self, began: Moment) -> None:
        """Redis is believed, as at `began`, although nobody can say whether it knows of every change. This does not
        close a breaker that is open."""
        if not self.is_open:
            # The database may have been silent for so long that what was found out before reaches further.
            until = began.later(TRUST)
            self._set(is_open=False, until=Moment(*map(max, self._until, until)))
            self.verified = False

    async def probe(self, redis: Redis, ask: Callable[[], Awaitable[T]]) -> T:
        """What Redis answers to `ask`. Raises CacheUnavailable, and opens the breaker, when it does not answer."""
        if self.is_open:
            # Connections that were made before may lead to a Redis that was replaced meanwhile, or nowhere at all.
            await redis.connection_pool.disconnect(inuse_connections=False)
        try:
            answer = await ask()
        except REDIS_DOWN:
            # The first connection may have broken by itself.
            try:
                answer = await ask()
            except REDIS_DOWN as error:
                self.reachable = False
                self.open(f"it {said(error)}")
                raise unavailable(error) from error
        self.reachable = self.served = True
        self._failures = 0
        return answer

    def answered(self) -> None:
        """A call to Redis came back."""
        self._failures = 0

    def failed(self, error: Exception) -> None:
        """A call to Redis failed. An error that Redis itself answers is no reason to ask it nothing any more."""
        if isinstance(error, ResponseError):
            return
        now = time.monotonic()
        if not self._failures:
            self._failing_since = now
        self._failures += 1
        lasts = now - self._failing_since >= FAILING.total_seconds()
        if self._failures >= FAILURES and lasts and not self.is_open:
            self.reachable = False
            self.open(f"it {said(error)}")

    def meet(self, run: str, *, lost: bool = False) -> None:
        """A connection was made to this `run` of Redis. Raises when it is another one than before: what was about to be
        asked was meant for that one. `lost` says that it takes the place of one that was lost, and that Redis does not
        tell whether it has restarted: then it is not believed until it was told of the last minute's changes again."""
        before, self.run = self.run, run
        if before not in (None, run):
            self.open("it has restarted, or is another one than before")
            raise AnotherRun("Redis has restarted, or is another one than before.")
        if lost:
            self.forgetful = True
            if not self.is_open:
                self.open("a connection to it was lost, and it does not tell whether it has restarted")

    def _set(self, *, is_open: bool, until: Moment) -> None:
        if is_open != self.is_open:
            self._changed(is_open)
        self.is_open, self._until = is_open, until
        # Wakes all that wait now, and nobody later.
        self._news.set()
        self._news.clear()
