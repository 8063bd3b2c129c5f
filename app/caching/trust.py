"""Decides whether this process may believe what is in Redis. Trust ends by itself unless it is renewed:

    granted    by a relay, or by `renewal.py` where there is none: Redis has the invalidation of every change committed
               until its poll began
    renewed    by a relay whose database is silent, as long as Redis answers: hits are marked as not verified
    ends       `TRUST` after that poll began, by itself: it has lapsed, and a reader waits a moment for news
               immediately, if Redis does not answer (`breaker.py`), is another one than before (`identity.py`), or
               misses an invalidation: it is lost, and reads go to the database, a few at a time (`bulkhead.py`),
               until it is granted again. Operators read of a breaker in logs and metrics: it is open while trust is
               lost

It ends by itself on every instance, even on one that hangs, that is unreachable, or whose machine was paused:

    A cannot reach Redis: its write is committed, and its invalidation fails
    B reaches Redis, which has the old value            B's relay invalidates it, or B's trust ends after `TRUST`
    A answers after `SETTLED`: a later reader asks the database, or a Redis that has the invalidation

(It is a lease as a bound on staleness: Gray and Cheriton, SOSP 1989. The leases of `lease.py` are others: on one key.)

What can go wrong: nothing renews the trust, because the relay is stuck. Then reads query the database.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta

from . import moment
from .errors import CacheUnavailable
from .moment import LONG_AGO, Moment

logger = logging.getLogger(__name__)

TRUST = timedelta(milliseconds=350)
SETTLED = TRUST + timedelta(milliseconds=50)
"""This long after a commit, either Redis has its invalidation, or no instance believes Redis: `TRUST`, and more than
two clocks can drift apart in that time."""
NEWS = timedelta(seconds=2)
"""How long a reader waits after trust has lapsed. Nearly always this process stood still or is overloaded, and has news
within milliseconds. A waiting reader costs nothing; one that queries the database would keep this process busy."""
UNCHECKED = "it has not been checked yet"


class Trust:
    """The trust of this process in Redis, and why it was lost.

    `changed` is called with True when trust is lost and False when it is granted again. It starts as lost: a relay has
    to grant it.
    """

    def __init__(self, *, changed: Callable[[bool], None] = lambda lost: None) -> None:
        self.lost = True
        """Whether it has to be granted again. Trust that is not lost may still have lapsed."""
        self.why = UNCHECKED
        """Why trust is lost, or was the last time."""
        self.losses = 0
        """How often trust was lost. Compared before and after a step, it shows whether trust was lost in between."""
        self.verified = True
        """Whether the database has confirmed that Redis has every invalidation. While the database is silent, Redis is
        still believed, and hits are marked as not verified."""
        self._until = LONG_AGO
        self._news = asyncio.Event()
        self._changed = changed

    @property
    def held(self) -> bool:
        """Whether Redis may be believed now."""
        # Every hit asks this, so the clocks are read inline. A lost trust has ended long ago.
        by_boot, by_wall = self._until
        return moment.boot() < by_boot and moment.wall() < by_wall

    async def believed(self) -> None:
        """Returns once Redis may be believed. Raises CacheUnavailable if it may not, or if that is unknown."""
        try:
            async with asyncio.timeout(NEWS.total_seconds()):
                # In a loop: a verification may already be too old when it arrives.
                while not self.held and not self.lost:
                    await self._news.wait()
        except TimeoutError:
            raise CacheUnavailable("It is unknown whether Redis has the latest invalidations.") from None
        if self.lost:
            raise CacheUnavailable(f"Redis is not asked: {self.why}.")

    def grant(self, losses: int, began: Moment) -> None:
        """Believes Redis: it has the invalidation of every change committed by `began`.

        Trust stays lost if it was lost since `losses` was read: then this is about another Redis.
        """
        if losses == self.losses:
            if self.lost:
                logger.info("The breaker closes.")
            self._set(lost=False, until=began.later(TRUST))
            self.verified = True

    def renew(self, began: Moment) -> None:
        """Believes Redis from `began` on, although nothing can confirm that it has every invalidation. This does not
        restore a lost trust."""
        if not self.lost:
            # The trust of an earlier verification may reach further than this one.
            until = began.later(TRUST)
            self._set(lost=False, until=Moment(*map(max, self._until, until)))
            self.verified = False

    def lose(self, why: str) -> None:
        """Stops believing anything in Redis, until trust is granted again."""
        if not self.lost:
            logger.warning("The breaker opens: %s.", why)
        self.losses += 1
        self.why = why
        self._set(lost=True, until=LONG_AGO)

    def _set(self, *, lost: bool, until: Moment) -> None:
        if lost != self.lost:
            self._changed(lost)
        self.lost, self._until = lost, until
        # Wakes all readers that wait now, and none that come later.
        self._news.set()
        self._news.clear()
