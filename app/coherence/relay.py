"""The relay: delivers every committed change from the outbox to the caches, and so knows when they can be trusted.

    poll    ask Redis, then Postgres, whether they still belong together (`succession.py`) → take undone rows (FOR
            UPDATE SKIP LOCKED) → invalidate each → mark them done → repeat until no row that was there at the
            beginning is undone: then Redis reflects everything committed by then, and is trusted

The application invalidates right after its own writes. The relay covers all other changes: a row changed in psql, a
process that died between COMMIT and invalidation, a Redis that was down. Every instance runs a relay, and they share
the rows. A relay also invalidates rows that another one has taken, because that one may have stalled.

In a new epoch, or after a restart of Redis, the changes of the last minute are delivered again.

What can go wrong: Redis is down: trust is lost, the rows stay undone, and the relay takes none until Redis answers.
Postgres is down: Redis is trusted as long as it answers, and its hits are marked as unverified.
"""

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import timedelta

from app.caching import Cache, CacheUnavailable, Seen
from app.caching.errors import Outside
from app.caching.moment import Moment
from app.caching.repeating import Repeating
from app.coherence.epochs import Epoch
from app.coherence.outbox import BATCH, Change, Outbox
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

Forget = Callable[[str, int], Awaitable[None]]
"""Drops what is cached under a key (as text): invalidates a value, unless it has exactly this version, or forgets a
total. Raises CacheUnavailable, and ValueError when the cache can have no such key."""


class Relay:
    """One task that polls the outbox and grants the trust of `cache`. `forget` maps each cached table to its `Forget`.
    `counted` is called with the number of changes delivered and the number of failed polls, `refused` for each change
    whose key no cache can have."""

    def __init__(
        self,
        outbox: Outbox,
        forget: Mapping[str, Forget],
        *,
        succession: Succession,
        cache: Cache,
        counted: Callable[[int, int], None],
        refused: Callable[[], None] = lambda: None,
    ) -> None:
        self._outbox, self._forget, self._counted, self._refused = outbox, forget, counted, refused
        self._succession, self._trust, self._identity = succession, cache.trust, cache.identity
        self._repeating = Repeating("relay", self._repeat, lambda: counted(0, 1))
        self._first = asyncio.Event()
        self._failed = False
        self._life: str | None = None
        self._swept = time.monotonic()
        self._empty = False
        """Whether the outbox was empty at the last poll: then there is nothing to sweep."""
        self._asked = math.inf
        """When the poll began to wait for Postgres."""
        self._untold = False
        """Whether there are undelivered changes. Then Redis is not trusted when Postgres falls silent."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Polls while the block lasts. At its end, the poll in flight is finished, not cancelled."""
        async with self._repeating.running():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._first.wait(), FIRST.total_seconds())
            yield

    @property
    def tables(self) -> frozenset[str]:
        """The cached tables. A change of a table without the triggers would never be delivered."""
        return frozenset(self._forget)

    @property
    def alive(self) -> bool:
        """Whether it polls."""
        return self._repeating.alive

    async def poll(self) -> int:
        """Delivers the undone changes and returns their number. Raises CacheUnavailable and DatabaseUnavailable."""
        # Trust counts from before the outbox is queried: this poll does not see what is committed later.
        began, losses = Moment.now(), self._trust.losses
        # Probe before taking any row. Otherwise an instance that cannot reach Redis withholds rows from those that can:
        #
        #   A takes a row, and waits for Redis in vain      B skips the locked row, and trusts the old value
        seen = await self._succession.probe()
        try:
            carried = await self._carry(seen, losses)
        except DatabaseUnavailable:
            if self._untold:
                self._trust.lose("there is a change that it was not told of")
            else:
                self._renew(seen, began)
            raise
        except Outside:
            raise
        except Exception:
            self._trust.lose("it cannot be told of changes")
            raise
        if not self._repeating.stopping:
            self._trust.grant(losses, began)
        return carried

    def _renew(self, seen: Seen, began: Moment) -> None:
        """Renews the trust in Redis while Postgres does not answer, unless Redis gives a reason to leave the epoch."""
        if self._succession.holds(seen):
            self._trust.renew(began)
        elif self._succession.epoch is not None:  # Without an epoch nothing is trusted yet: there is nothing to lose.
            self._trust.lose("it is unknown whether it is the one that Postgres names")

    async def _carry(self, seen: Seen, losses: int) -> int:
        """Delivers the undone changes. While Postgres does not answer, Redis is trusted as long as it answers."""
        task = asyncio.create_task(self._drain(seen, losses))
        while True:
            # Read the clocks before the wait. A process that stalls during it must not renew its trust:
            #
            #   B queries Postgres, which answers; B stalls before it reads the answer
            #                                       A, without Redis, commits, waits until B's trust has ended, answers
            #   B resumes, and its query only seems to have taken long
            began, asked = Moment.now(), time.monotonic()
            if (await asyncio.wait({task}, timeout=POLL.total_seconds()))[0]:
                return task.result()
            if asked - self._asked >= PATIENCE.total_seconds() and not self._untold:
                with suppress(CacheUnavailable):  # Trust is lost by then, and the next poll reports it.
                    self._renew(await self._succession.probe(), began)

    async def _drain(self, seen: Seen, losses: int) -> int:
        self._asked = time.monotonic()
        epoch, look = await self._succession.join(await self._succession.look(), seen)
        carried, life, newest, undone = 0, self._identity.life, look.newest, look.undone
        self._untold, self._empty = undone, not newest
        if life != self._life or self._identity.forgetful:
            self._identity.forgetful = False
            async for changes in self._outbox.kept():
                await self._tell(changes, losses)
                await self._stay(epoch)
            self._life = life
        while undone and not self._repeating.stopping:
            began, self._asked = Moment.now(), time.monotonic()
            if carried:
                await self._stay(epoch)
            async with self._outbox.taken(epoch.token) as changes:
                await self._tell(changes, losses)
            self._counted(len(changes), 0)
            carried += len(changes)
            if not changes:
                # Another instance has taken the rest, and may have stalled. Invalidating twice does no harm.
                async for changes in self._outbox.kept(undone_up_to=newest):
                    await self._tell(changes, losses)
                self._untold = False
                return carried
            if len(changes) == BATCH:
                # Rows change by the thousand. Other values stay trusted until all changes are delivered.
                self._trust.renew(began)
            else:
                self._untold = False
            undone = await self._outbox.undone(newest)
        return carried

    async def _stay(self, epoch: Epoch) -> None:
        """Checks the epoch again between two of many batches, because a claim that nobody refutes for `SETTLED` becomes
        an epoch. Raises Outside.

        A delivers 100,000 changes              B, on another Redis, claims, and is not refuted: Y is trusted
        A would keep trusting X, because it checked the epoch only at the beginning
        """
        joined, _look = await self._succession.join(await self._succession.look(), await self._succession.probe())
        if joined.token != epoch.token:
            raise Outside("Another epoch has begun.")

    @contextmanager
    def _elsewhere(self) -> Iterator[None]:
        """Stops the clock on Postgres in the block, which waits for something else."""
        self._asked = math.inf
        try:
            yield
        finally:
            self._asked = time.monotonic()

    async def _tell(self, changes: Sequence[Change], losses: int) -> None:
        # Tables that are not cached need no invalidation. Per key, the newest change is enough.
        cached = {(change.resource, change.key): change for change in changes if change.resource in self._forget}
        with self._elsewhere():
            try:
                await self._forget_all(cached.values())
            except CacheUnavailable:
                # Perhaps only a connection broke. Invalidating twice does no harm.
                await self._forget_all(cached.values())
        # Changes delivered to another Redis than the one that was probed must not be marked as done.
        if losses != self._trust.losses:
            raise CacheUnavailable(f"Redis is not believed any more: {self._trust.why}.")

    async def _forget_all(self, changes: Iterable[Change]) -> None:
        # Made in one tick of the event loop, the calls become one script call per region.
        told = {change: self._forget[change.resource](change.key, change.version) for change in changes}
        for change, error in zip(told, await asyncio.gather(*told.values(), return_exceptions=True), strict=True):
            if isinstance(error, ValueError):
                # Nothing can be cached under such a key, and other changes must not wait for it: count it as done.
                logger.error("Row %d of the outbox is set aside: %s", change.id, _sentence(change, error))
                self._refused()
            elif error is not None:
                raise error

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
        if not self._empty and time.monotonic() - self._swept > SWEEP.total_seconds():
            self._swept = time.monotonic()
            await self._outbox.sweep()


def _sentence(change: Change, error: ValueError) -> str:
    return f"{change.resource} has no key {change.key[:100]!r} ({error})."
