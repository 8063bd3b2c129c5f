"""Delivers the undone changes of the outbox to the caches, and finds out which caches have been told everything.

    take undone rows (FOR UPDATE SKIP LOCKED) → invalidate each → mark them done → repeat until no row that was there at
    the beginning is undone: then the caches reflect everything committed by then

In a new epoch, or after a restart of Redis, the changes of the last minute are delivered again. A cluster's node that
cannot be told of a change is not trusted. Its rows stay undone, and the rows behind them are delivered all the same.

What can go wrong: `CacheUnavailable` if no cache can be told, `DatabaseUnavailable`, and `Outside` if the epoch ends
meanwhile.
"""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta

from app.caching import Cache, CacheUnavailable
from app.caching.errors import Outside
from app.caching.moment import Moment
from app.coherence.joined import Joined
from app.coherence.outbox import BATCH, Change, Outbox
from app.coherence.places import Heard
from app.coherence.succession import Succession

logger = logging.getLogger(__name__)

Forget = Callable[[str, int], Awaitable[None]]
"""Drops what is cached under a key (as text): invalidates a value, unless it has exactly this version, or forgets a
total. Raises CacheUnavailable, and ValueError when the cache can have no such key."""
About = tuple[str, str]
"""A table and a key."""
Place = Callable[[str, str], Cache | None]
"""Returns the cache that has a key (as text) of a table, None if none is known to have it."""
SILENT = timedelta(milliseconds=200)
"""How long one of several caches may take to be told of changes: the others are not trusted before."""


class Delivery:
    """The deliveries of one relay. `forget` maps each cached table to its `Forget`."""

    def __init__(
        self,
        outbox: Outbox,
        forget: Mapping[str, Forget],
        succession: Succession,
        place: Place | None,
        counted: Callable[[int, int], None],
        refused: Callable[[], None],
    ) -> None:
        self._outbox, self._forget, self._succession = outbox, forget, succession
        self._place, self._counted, self._refused = (
            place or (lambda _table, _key: succession.caches[0]),
            counted,
            refused,
        )
        self.asked = math.inf
        """When the delivery began to wait for Postgres."""
        self.untold = False
        """Whether there are undelivered changes. Then Redis is not trusted when Postgres falls silent."""
        self.told: set[Cache] = set()
        """The caches that were told of every change, in the last delivery that ended."""
        self.empty = False
        """Whether the outbox was empty: then there is nothing to sweep."""
        self.stopping: Callable[[], bool] = lambda: False
        self._lives: dict[Cache, str | None] = {}
        self._running: set[asyncio.Task[None]] = set()

    async def drain(self, heard: Heard, losses: Mapping[Cache, int]) -> int:
        """Delivers what is undone, and returns the number of changes. `losses` are those of each cache before it was
        asked."""
        self.asked = time.monotonic()
        joined = await self._succession.join(await self._succession.look(), heard)
        told = {cache for cache in joined.caches if cache in losses}
        carried, newest, undone = 0, joined.look.newest, joined.look.undone
        self.untold, self.empty = undone, not newest
        if again := {cache for cache in told if self._is_new(cache)}:
            lives = {cache: cache.identity.life for cache in again}
            for cache in again:
                cache.identity.forgetful = False  # It may become so again meanwhile.
            try:
                async for changes in self._outbox.kept():
                    await self._tell(changes, losses, told, only=again)
                    joined = await self._stay(joined, told)
            except BaseException:
                for cache in again:
                    cache.identity.forgetful = True
                raise
            self._lives = {cache: life for cache, life in self._lives.items() if cache in self._succession.caches}
            self._lives |= {cache: lives[cache] for cache in again & told}
        after = 0
        while undone and not self.stopping():
            began, self.asked = Moment.now(), time.monotonic()
            if carried or after:
                joined = await self._stay(joined, told)
            async with self._outbox.taken(joined.epoch, after) as taken:
                taken.left = await self._tell(taken.changes, losses, told)
            self._counted(len(taken.changes) - len(taken.left), 0)
            carried += len(taken.changes) - len(taken.left)
            if not taken.changes:
                # Another instance has taken the rest, and may have stalled. Invalidating twice does no harm.
                async for changes in self._outbox.kept(undone_up_to=newest):
                    await self._tell(changes, losses, told)
                self.untold = False
                break
            if taken.left:
                after = taken.changes[-1].id
            if len(taken.changes) == BATCH:
                # Rows change by the thousand. Other values stay trusted until all changes are delivered.
                for cache in told:
                    cache.trust.renew(began)
            else:
                self.untold = False
            undone = await self._outbox.undone(newest)
        self.told = told
        return carried

    def _is_new(self, cache: Cache) -> bool:
        """Whether a cache may lack changes that were delivered before: it has another life, or may have lost some."""
        return cache.identity.forgetful or self._lives.get(cache) != cache.identity.life

    async def _stay(self, joined: Joined, told: set[Cache]) -> Joined:
        """Checks the epoch again between two of many batches, because a claim that nobody refutes for `SETTLED` becomes
        an epoch. Caches that have not answered are no longer among the `told`. Raises Outside.

        A delivers 100,000 changes              B, on another Redis, claims, and is not refuted: Y is trusted
        A would keep trusting X, because it checked the epoch only at the beginning
        """
        again = await self._succession.join(await self._succession.look(), await self._succession.probe())
        if again.epoch.token != joined.epoch.token:
            raise Outside("Another epoch has begun.")
        told.intersection_update(again.caches)
        return again

    @contextmanager
    def _elsewhere(self) -> Iterator[None]:
        """Stops the clock on Postgres in the block, which waits for something else."""
        self.asked = math.inf
        try:
            yield
        finally:
            self.asked = time.monotonic()

    async def _tell(
        self, changes: Sequence[Change], losses: Mapping[Cache, int], told: set[Cache], only: set[Cache] | None = None
    ) -> list[Change]:
        """Invalidates what has changed, and returns the changes that could not be delivered. Their caches are no longer
        among the `told`. Raises CacheUnavailable if none is left. With `only`, other caches need not be told."""
        # Tables that are not cached need no invalidation. Per key, the newest change is enough.
        cached = {(change.resource, change.key): change for change in changes if change.resource in self._forget}
        places = {about: self._placed(change, told) for about, change in cached.items()}
        if only is not None:
            cached = {about: change for about, change in cached.items() if places[about] in only}
        reached = {about: change for about, change in cached.items() if places[about] in told}
        with self._elsewhere():
            failed = await self._forget_all(reached)
            if failed:
                # Perhaps only a connection broke. Invalidating twice does no harm.
                failed = await self._forget_all({about: reached[about] for about in failed})
        left = {about for about in cached if about not in reached} | failed.keys()
        for about in reached:
            # Changes delivered to another Redis than the one that was asked must not be marked as done.
            cache, now = places[about], self._placed(reached[about], told)
            if cache is not None and (about in failed or now is not cache or losses[cache] != cache.trust.losses):
                left.add(about)
                told.discard(cache)
                if about in failed and not cache.trust.lost and len(losses) > 1:
                    cache.trust.lose("it cannot be told of changes")
        if reached and not told:
            raise next(iter(failed.values()), CacheUnavailable("Redis is not believed any more."))
        return [change for change in changes if (change.resource, change.key) in left]

    def _placed(self, change: Change, told: Collection[Cache]) -> Cache | None:
        try:
            return self._place(change.resource, change.key)
        except ValueError:  # No cache can have such a key. `_forget_all` says so.
            return next((cache for cache in self._succession.caches if cache in told), None)

    async def _forget_all(self, changes: Mapping[About, Change]) -> dict[About, Exception]:
        """Invalidates each, and returns why some could not be."""
        # Made in one tick of the event loop, the calls become one script call per region, or per node of a cluster.
        calls = {about: self._forget[each.resource](each.key, each.version) for about, each in changes.items()}
        if len(self._succession.caches) == 1:
            answers = await asyncio.gather(*calls.values(), return_exceptions=True)
        else:
            answers = await self._soon(list(calls.values()))
        failed: dict[About, Exception] = {}
        for about, error in zip(changes, answers, strict=True):
            if isinstance(error, ValueError):
                # Nothing can be cached under such a key, and other changes must not wait for it: count it as done.
                logger.error(
                    "Row %d of the outbox is set aside: %s", changes[about].id, _sentence(changes[about], error)
                )
                self._refused()
            elif isinstance(error, Exception):
                failed[about] = error
            elif error is not None:
                raise error
        return failed

    async def _soon(self, calls: Sequence[Awaitable[None]]) -> list[BaseException | None]:
        """Returns what each call raises. A node that is silent for `SILENT` does not delay the trust in the others."""
        tasks = [asyncio.ensure_future(call) for call in calls]
        if not tasks:
            return []
        done, late = await asyncio.wait(tasks, timeout=SILENT.total_seconds())
        for task in late:
            self._running.add(task)
            task.add_done_callback(self._running.discard)
            task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        silent = CacheUnavailable("A node of the cluster does not answer.")
        return [task.exception() if task in done else silent for task in tasks]


def _sentence(change: Change, error: ValueError) -> str:
    return f"{change.resource} has no key {change.key[:100]!r} ({error})."
