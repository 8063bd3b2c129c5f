"""The relay: delivers every committed change from the outbox to the caches, and so knows when they can be trusted.

    poll    ask Redis, then Postgres, whether they still belong together (`succession.py`) → deliver the undone changes
            (`delivery.py`): then Redis reflects everything committed by then, and is trusted

The application invalidates right after its own writes. The relay covers all other changes: a row changed in psql, a
process that died between COMMIT and invalidation, a Redis that was down. Every instance runs a relay, and they share
the rows. A relay also invalidates rows that another one has taken, because that one may have stalled.

What can go wrong: Redis is down: trust is lost, the rows stay undone, and the relay takes none until Redis answers.
Postgres is down: Redis is trusted as long as it answers, and its hits are marked as unverified.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

from app.caching import Cache, CacheUnavailable
from app.caching.errors import Outside
from app.caching.moment import Moment
from app.caching.repeating import Repeating
from app.coherence.delivery import Delivery, Forget, Place
from app.coherence.outbox import Outbox
from app.coherence.places import Heard
from app.coherence.succession import Succession
from app.errors import DatabaseUnavailable

logger = logging.getLogger(__name__)

POLL = timedelta(milliseconds=100)
PATIENCE = timedelta(milliseconds=200)
"""How long Postgres may take to answer before it counts as down. Together with `POLL`, less than trust lasts."""
SWEEP = timedelta(seconds=10)
FIRST = timedelta(seconds=5)
"""How long the start waits for the first poll to end, successful or not, and for its claim. An instance that serves
before that bypasses the caches."""


class Relay:
    """One task that polls the outbox and grants the trust in the caches of `succession`. `forget` maps each cached
    table to its `Forget`, and `place` says which cache has a key. `counted` is called with the number of changes
    delivered and the number of failed polls, `refused` for each change whose key no cache can have."""

    def __init__(
        self,
        outbox: Outbox,
        forget: Mapping[str, Forget],
        *,
        succession: Succession,
        counted: Callable[[int, int], None],
        refused: Callable[[], None] = lambda: None,
        place: Place | None = None,
    ) -> None:
        self._outbox, self._counted, self._succession = outbox, counted, succession
        self._delivery = Delivery(outbox, forget, succession, place, counted, refused)
        self.tables = frozenset(forget)
        """The cached tables. A change of a table without the triggers would never be delivered."""
        self._repeating = Repeating("relay", self._repeat, lambda: counted(0, 1))
        self._delivery.stopping = lambda: self._repeating.stopping
        self._first = asyncio.Event()
        self._failed = False
        self._swept = time.monotonic()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Polls while the block lasts. At its end, the poll in flight is finished, not cancelled."""
        async with self._repeating.running():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._first.wait(), FIRST.total_seconds())
            yield

    @property
    def alive(self) -> bool:
        """Whether it polls."""
        return self._repeating.alive

    async def poll(self) -> int:
        """Delivers the undone changes and returns their number. Raises CacheUnavailable and DatabaseUnavailable."""
        # Trust counts from before the outbox is queried: this poll does not see what is committed later.
        began, losses = Moment.now(), {cache: cache.trust.losses for cache in self._succession.caches}
        # Probe before taking any row. Otherwise an instance that cannot reach Redis withholds rows from those that can:
        #
        #   A takes a row, and waits for Redis in vain      B skips the locked row, and trusts the old value
        heard = await self._succession.probe()
        try:
            carried = await self._carry(heard, losses)
        except DatabaseUnavailable:
            if self._delivery.untold:
                self._lose("there is a change that it was not told of")
            else:
                self._renew(heard, began)
            raise
        except Outside:
            raise
        except Exception:
            self._lose("it cannot be told of changes")
            raise
        if not self._repeating.stopping:
            for cache in self._delivery.told:
                cache.trust.grant(losses[cache], began)
            self._succession.told([cache for cache in self._delivery.told if not cache.trust.lost])
        return carried

    def _lose(self, why: str) -> None:
        for cache in self._succession.caches:
            cache.trust.lose(why)

    def _renew(self, heard: Heard, began: Moment) -> None:
        """Renews the trust in Redis while Postgres does not answer, unless Redis gives a reason to leave the epoch."""
        for membership, seen in heard.items():
            trust = membership.cache.trust
            if self._succession.holds(membership, seen):
                trust.renew(began)
            elif self._succession.epoch is not None:  # Without an epoch nothing is trusted yet: nothing to lose.
                trust.lose("it is unknown whether it is the one that Postgres names")

    async def _carry(self, heard: Heard, losses: Mapping[Cache, int]) -> int:
        """Delivers the undone changes. While Postgres does not answer, Redis is trusted as long as it answers."""
        task = asyncio.create_task(self._delivery.drain(heard, losses))
        while True:
            # Read the clocks before the wait. A process that stalls during it must not renew its trust:
            #
            #   B queries Postgres, which answers; B stalls before it reads the answer
            #                                       A, without Redis, commits, waits until B's trust has ended, answers
            #   B resumes, and its query only seems to have taken long
            began, asked = Moment.now(), time.monotonic()
            if (await asyncio.wait({task}, timeout=POLL.total_seconds()))[0]:
                return task.result()
            if asked - self._delivery.asked >= PATIENCE.total_seconds() and not self._delivery.untold:
                with suppress(CacheUnavailable):  # Trust is lost by then, and the next poll reports it.
                    self._renew(await self._succession.probe(), began)

    async def _repeat(self) -> timedelta:
        try:
            await self.poll()
            self._failed = False
            await self._sweep()
        except (CacheUnavailable, DatabaseUnavailable) as error:
            # No back-off, unlike after other errors: trust must be renewed, and must resume as soon as it can.
            if not self._failed:
                # A restarted Redis is trusted in a moment. Embedded servers restart at each start.
                usual = isinstance(error, Outside) and self._succession.claims and not self._first.is_set()
                logger.log(logging.INFO if usual else logging.WARNING, "The relay cannot poll: %s", error)
            self._failed = True
            self._counted(0, 1)
        finally:
            if not self._succession.claims:
                self._first.set()
        return POLL

    async def _sweep(self) -> None:
        if not self._delivery.empty and time.monotonic() - self._swept > SWEEP.total_seconds():
            self._swept = time.monotonic()
            await self._outbox.sweep()
