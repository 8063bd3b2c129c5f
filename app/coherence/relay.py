"""The relay: carries every committed change from the outbox to the caches, and so knows when they may be believed.

    poll    ask Redis, and then Postgres, whether they still belong together (`succession.py`) → take undone rows (FOR
            UPDATE SKIP LOCKED) → invalidate each → mark them done → until no row that was there at the beginning is
            undone: then Redis knows of everything, and is believed

The application invalidates by itself right after its writes; the relay is for all others: a row changed in psql, a
process that died between COMMIT and invalidation, a Redis that was away. Every instance runs one, and they share
the rows. Of a row that another one has taken, Redis is told all the same: that one may stand still.

In a new epoch, or after a restart of Redis, the changes of the last minute are carried again.

What can go wrong: Redis away; the breaker opens, the rows stay undone, and the relay takes none before Redis answers.
Postgres away: what stands in Redis is believed as long as Redis answers, and a hit says that nobody has verified it.
"""

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import timedelta

from app.caching import Breaker, CacheUnavailable, Seen
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
"""When Postgres has not answered for so long, it counts as away. With a poll, that is less than trust lasts."""
SWEEP = timedelta(seconds=10)
FIRST = timedelta(seconds=5)
"""So long the start waits for the first poll to end, well or not, and for what it claims: whoever serves before it
passes by the caches."""

Forget = Callable[[str, int], Awaitable[None]]
"""Forgets what is not of a version under a key, given as text. Raises CacheUnavailable, and ValueError when the cache
can have no such key."""


class Relay:
    """One task that polls the outbox, and closes the breaker. `forget` has the cache of each table; `counted` is told
    how many changes were carried, and how many polls failed, and `refused` of each that no cache can be told of."""

    def __init__(
        self,
        outbox: Outbox,
        forget: Mapping[str, Forget],
        *,
        succession: Succession,
        breaker: Breaker,
        counted: Callable[[int, int], None],
        refused: Callable[[], None] = lambda: None,
    ) -> None:
        self._outbox, self._forget, self._counted, self._refused = outbox, forget, counted, refused
        self._succession, self._breaker = succession, breaker
        self._repeating = Repeating("relay", self._repeat, lambda: counted(0, 1))
        self._first = asyncio.Event()
        self._failed = False
        self._life: str | None = None
        self._swept = time.monotonic()
        self._asked = math.inf
        """Since when the poll waits for Postgres."""
        self._untold = False
        """Whether there are changes that Redis was not told of: it is not believed then when Postgres falls silent."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Polls while the block lasts. At the end the poll under way is finished, and not cancelled."""
        async with self._repeating.running():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._first.wait(), FIRST.total_seconds())
            yield

    @property
    def tables(self) -> frozenset[str]:
        """Those that are cached. A change of one without a trigger would never be carried."""
        return frozenset(self._forget)

    @property
    def alive(self) -> bool:
        """Whether it polls."""
        return self._repeating.alive

    async def poll(self) -> int:
        """Carries what is undone, and answers how many changes that were. Raises CacheUnavailable and
        DatabaseUnavailable."""
        # Trust counts from before the look into the outbox: what is committed later, this poll knows nothing of.
        began, losses = Moment.now(), self._breaker.losses
        # Before any row is taken. An instance that cannot reach Redis would keep rows from those that can:
        #
        #   A takes a row, and waits for Redis in vain      B skips it, for it is locked, and believes the old value
        seen = await self._succession.probe()
        try:
            carried = await self._carry(seen, losses)
        except DatabaseUnavailable:
            if self._untold:
                self._breaker.open("there is a change that it was not told of")
            else:
                self._renew(seen, began)
            raise
        except Outside:
            raise
        except Exception:
            self._breaker.open("it cannot be told of changes")
            raise
        if not self._repeating.stopping:
            self._breaker.close(losses, began)
        return carried

    def _renew(self, seen: Seen, began: Moment) -> None:
        """Believes Redis while Postgres does not answer, if Redis itself gives no reason to leave the epoch."""
        if self._succession.holds(seen):
            self._breaker.renew(began)
        elif self._succession.epoch is not None:  # Else nothing is believed yet, and this look may be the first one.
            self._breaker.open("nobody knows whether it is the one that Postgres names")

    async def _carry(self, seen: Seen, losses: int) -> int:
        """Carries what is undone. While Postgres does not answer, Redis is believed as long as that one answers."""
        task = asyncio.create_task(self._drain(seen, losses))
        while True:
            # From before the wait. A process that stood still meanwhile must not believe anything because of that:
            #
            #   B looks, and is answered; it stands still before it reads the answer
            #                                       A, without Redis, commits, waits until B's trust has ended, answers
            #   B goes on, and its look seems to have taken long
            began, asked = Moment.now(), time.monotonic()
            if (await asyncio.wait({task}, timeout=POLL.total_seconds()))[0]:
                return task.result()
            if asked - self._asked >= PATIENCE.total_seconds() and not self._untold:
                with suppress(CacheUnavailable):  # The breaker is open then, and the next poll says so.
                    self._renew(await self._succession.probe(), began)

    async def _drain(self, seen: Seen, losses: int) -> int:
        self._asked = time.monotonic()
        epoch, look = await self._succession.join(await self._succession.look(), seen)
        carried, life, newest, undone = 0, self._breaker.life, look.newest, look.undone
        self._untold = undone
        if life != self._life or self._breaker.forgetful:
            self._breaker.forgetful = False
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
                # Another instance has taken the rest, and may stand still with it. To forget twice does no harm.
                async for changes in self._outbox.kept(undone_up_to=newest):
                    await self._tell(changes, losses)
                self._untold = False
                return carried
            if len(changes) == BATCH:
                # Somebody changes rows by the thousand. The rest is believed until they are carried.
                self._breaker.renew(began)
            else:
                self._untold = False
            undone = await self._outbox.undone(newest)
        return carried

    async def _stay(self, epoch: Epoch) -> None:
        """Looks again, between two of many batches: a claim that nobody refutes for `SETTLED` is an epoch. Raises
        Outside.

        A carries 100,000 changes               B, on another Redis, claims, and is not refuted: R2 is believed
        A would go on to believe R1, for it has looked at the beginning
        """
        joined, _look = await self._succession.join(await self._succession.look(), await self._succession.probe())
        if joined.token != epoch.token:
            raise Outside("Another epoch has begun.")

    @contextmanager
    def _elsewhere(self) -> Iterator[None]:
        """Whatever the poll waits for in the block, it is not Postgres."""
        self._asked = math.inf
        try:
            yield
        finally:
            self._asked = time.monotonic()

    async def _tell(self, changes: Sequence[Change], losses: int) -> None:
        # Of what nobody caches, nobody has to be told. Of each key, the newest change says it all.
        cached = {(change.resource, change.key): change for change in changes if change.resource in self._forget}
        with self._elsewhere():
            try:
                await self._forget_all(cached.values())
            except CacheUnavailable:
                # A connection may have broken by itself, and to forget twice does no harm.
                await self._forget_all(cached.values())
        # What was told to another Redis than the one that was looked at must not be marked as done.
        if losses != self._breaker.losses:
            raise CacheUnavailable(f"Redis is not believed any more: {self._breaker.why}.")

    async def _forget_all(self, changes: Iterable[Change]) -> None:
        # Made in one tick, they are one script call for each region.
        told = {change: self._forget[change.resource](change.key, change.version) for change in changes}
        for change, error in zip(told, await asyncio.gather(*told.values(), return_exceptions=True), strict=True):
            if isinstance(error, ValueError):
                # Nothing can be cached under such a key, and the others must not wait for it: it is done.
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
            # No waiting longer each time, as after other errors: trust has to be renewed, and to begin again at once.
            if not self._failed:
                # A Redis that was restarted, as at each start with a server of one's own, is believed in a moment.
                usual = isinstance(error, Outside) and self._succession.claims and not self._first.is_set()
                logger.log(logging.INFO if usual else logging.WARNING, "The relay cannot poll: %s", error)
            self._failed = True
            self._counted(0, 1)
        finally:
            if not self._succession.claims:
                self._first.set()
        return POLL

    async def _sweep(self) -> None:
        if time.monotonic() - self._swept > SWEEP.total_seconds():
            self._swept = time.monotonic()
            await self._outbox.sweep()


def _sentence(change: Change, error: ValueError) -> str:
    return f"{change.resource} has no key {change.key[:100]!r} ({error})."
