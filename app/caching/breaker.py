"""Decides whether this process may believe what is in Redis.

    closed    Redis is asked and believed: within the last `TRUST`, a relay verified that Redis had the invalidation of
              every change committed until then
    lapsed    the last verification is older than `TRUST`: a reader waits a moment for news
    open      Redis does not answer, or is another Redis than before: reads go to the database, a few at a time
              (`bulkhead.py`)

Trust is a lease. It ends by itself on every instance, even on one that hangs, that is unreachable, or whose machine was
paused:

    A cannot reach Redis: its write is committed, and its invalidation fails
    B reaches Redis, which has the old value            B's relay invalidates it, or B's trust ends after `TRUST`
    A answers after `SETTLED`: a later reader asks the database, or a Redis that has the invalidation

(Leases as a bound on staleness: Gray and Cheriton, SOSP 1989. Breaker: Nygard, "Release It!".)

A Redis that restarts may have lost its last second, and a promoted replica may lack more: invalidated values come back.
A name may start to resolve to another Redis while connections to the old one live on. So each new connection asks for
the server's run. A new run opens the breaker before the connection sends a command, and the pool drops connections to
any other run (`connection.py`).

Cached values belong to one `life`: the epoch that the relay has found (where there is a relay), and the run met last.

What can go wrong: nothing renews the trust, because the relay is stuck. Then reads query the database.
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
"""This long after a commit, either Redis has its invalidation, or no instance believes Redis: `TRUST`, and more than
two clocks can drift apart in that time."""
NEWS = timedelta(seconds=2)
"""How long a reader waits after trust has lapsed. Nearly always this process stood still or is overloaded, and has news
within milliseconds. A waiting reader costs nothing; one that queries the database would keep this process busy."""
FAILURES, FAILING = 3, timedelta(milliseconds=100)
"""How many calls must fail, and for how long, without a success in between, before the breaker opens. A few connections
may break at one moment although Redis still answers."""


class Breaker:
    """Whether this process believes Redis, and why.

    `changed` is called with True when the breaker opens and False when it closes. The breaker starts open: a relay has
    to close it.
    """

    def __init__(self, *, changed: Callable[[bool], None] = lambda is_open: None) -> None:
        self.run: str | None = None
        """The run of Redis that was met last."""
        self.epoch: str | None = None
        """The epoch of Redis, where one is recorded (`record.py`)."""
        self.refused: str | None = None
        """Why nothing may be written to this Redis: another one is believed, or another deployment owns this one."""
        self.forgetful = False
        """Whether Redis may have lost the latest invalidations."""
        self.ours: bool | None = True
        """Whether the pending entries in Redis are ours to flush, None while that is unknown."""
        self.losses = 0
        """How often trust was lost. Compared before and after a step, it shows whether trust was lost in between."""
        self.reachable = False
        """Whether Redis answers."""
        self.served = False
        """Whether Redis has ever answered this process correctly."""
        self.is_open = True
        self.verified = True
        """Whether the database has confirmed that Redis has every invalidation. While the database is silent, Redis is
        still believed, and hits are marked as not verified."""
        self.why = "it has not been checked yet"
        """Why the breaker is open, or was the last time."""
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
        # Every hit asks this, so the clocks are read inline.
        by_boot, by_wall = self._until
        return not self.is_open and moment.boot() < by_boot and moment.wall() < by_wall

    @property
    def life(self) -> str | None:
        """The present life: the run, or a short word for epoch and run. Values of any other life are misses."""
        if self.epoch is None:
            return self.run
        if self._lives != (self.epoch, self.run):
            self._lives = self.epoch, self.run
            self._life = hashlib.sha256(f"{self.epoch}-{self.run}".encode()).hexdigest()[:16]
        return self._life

    @property
    def writable(self) -> bool:
        """Whether Redis answers and may be written to."""
        return self.reachable and self.refused is None

    async def believed(self) -> None:
        """Returns once Redis may be believed. Raises CacheUnavailable if it may not, or if that is unknown."""
        try:
            async with asyncio.timeout(NEWS.total_seconds()):
                # In a loop: a verification may already be too old when it arrives.
                while not self.closed and not self.is_open:
                    await self._news.wait()
        except TimeoutError:
            raise CacheUnavailable("It is unknown whether Redis has the latest invalidations.") from None
        if self.is_open:
            raise CacheUnavailable(f"Redis is not asked: {self.why}.")

    def open(self, why: str) -> None:
        """Stops believing anything in Redis, until a relay closes the breaker."""
        if not self.is_open:
            logger.warning("The breaker opens: %s.", why)
        self.losses += 1
        self.why = why
        self._set(is_open=True, until=LONG_AGO)

    def close(self, losses: int, began: Moment) -> None:
        """Believes Redis: it has the invalidation of every change committed by `began`.

        The breaker stays open if trust was lost since `losses` was read: then this is about another Redis.
        """
        if losses == self.losses:
            if self.is_open:
                logger.info("The breaker closes.")
            self._set(is_open=False, until=began.later(TRUST))
            self.verified = True

    def renew(self, began: Moment) -> None:
        """Believes Redis from `began` on, although nothing can confirm that it has every invalidation. This does not
        close an open breaker."""
        if not self.is_open:
            # The trust of an earlier verification may reach further than this one.
            until = began.later(TRUST)
            self._set(is_open=False, until=Moment(*map(max, self._until, until)))
            self.verified = False

    async def probe(self, redis: Redis, ask: Callable[[], Awaitable[T]]) -> T:
        """Returns what Redis answers to `ask`. If it does not answer, opens the breaker and raises CacheUnavailable."""
        if self.is_open:
            # Older connections may lead to a Redis that was replaced meanwhile, or nowhere.
            await redis.connection_pool.disconnect(inuse_connections=False)
        try:
            answer = await ask()
        except REDIS_DOWN:
            # Only this one connection may have been broken.
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
        """Records that a call to Redis succeeded."""
        self._failures = 0

    def failed(self, error: Exception) -> None:
        """Records that a call to Redis failed. An error reply of Redis itself is no reason to stop asking it."""
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
        """Records that a connection was made to this `run` of Redis. Raises AnotherRun if another run was met before:
        the pending command was meant for that one. `lost` says that the connection replaces a lost one, and that Redis
        does not report restarts: it is not believed again before the last minute's changes were invalidated again."""
        before, self.run = self.run, run
        if before not in (None, run):
            self.open("it has restarted or was replaced")
            raise AnotherRun("Redis has restarted or was replaced.")
        if lost:
            self.forgetful = True
            if not self.is_open:
                self.open("a connection to it was lost, and it does not report whether it has restarted")

    def _set(self, *, is_open: bool, until: Moment) -> None:
        if is_open != self.is_open:
            self._changed(is_open)
        self.is_open, self._until = is_open, until
        # Wakes all readers that wait now, and none that come later.
        self._news.set()
        self._news.clear()
