"""Write-behind: the cache takes additions on at once, and carries them to the database later.

    read    ask the cache for the total; a cold one is what the database has, and what waits for it
    write   one script in Redis: remember the addition, and count it in the total; `Flusher` does the rest

Use it for many small additions to few rows: counters, statistics. They are merged on their way: a thousand views may be
one row written. Avoid it when somebody has to find a write in the database at once. Never use it for what must survive
the loss of Redis: orders, payments, registrations.

What can go wrong: without Redis nothing is accepted (`CacheUnavailable`); what was accepted when the answer got lost
may count. While the database is away the backlog grows, up to a cap (`BacklogFull`). A cold total behind a long backlog
is not told (`Behind`) rather than told wrong. What Redis loses, this process takes on again (`receipts.py`).
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice

from redis.asyncio import Redis

from .background import Background
from .batch_clock import BatchClock
from .breaker import Breaker
from .clock import RedisClock
from .countable import check, check_page
from .errors import CacheError
from .group_commit import GroupCommit
from .intake import Cap, Intake
from .observing import Flow, ObserveFlow
from .receipts import Receipts
from .scripts import run, script
from .shards import COUNT, GROUP, shards
from .totals import Load, Standing, Total, Totals

SLICE = 500
"""So many additions are made in one turn of the event loop."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits for the database: how many views, in how many bytes, and since when (None: none do). `young` are those
    that were taken on within the time asked for. `fill` is how full the fullest shard is; at 1 it takes nothing more.
    `flushers` carry them. The idempotency keys of the last 24 hours take `keys` bytes, of which the fullest shard is
    `keys_fill` full: at 1 it takes no more of them."""

    views: int
    bytes: int
    oldest: timedelta | None
    young: int
    fill: float
    flushers: int
    keys: int
    keys_fill: float


class WriteBehind(Background):
    """Counters that are cheap to add to. `load` answers what the database has of some pages and batches, and raises
    TargetUnavailable."""

    def __init__(
        self,
        redis: Redis,
        name: str,
        load: Load,
        *,
        cap: Cap,
        clock: RedisClock,
        breaker: Breaker,
        observe: ObserveFlow,
    ) -> None:
        super().__init__()
        self._clock, self._breaker, self._shards, self._cap = clock, breaker, shards(name), cap
        self._observe = observe
        self._waiting = script(redis, "waiting")
        batch_clock = BatchClock(clock)

        async def learn(pages: Sequence[str], batches: Sequence[str]) -> Standing:
            standing = await load(pages, batches)
            batch_clock.learn(standing.ids_from)
            return standing

        self._totals = Totals(redis, name, learn, self, breaker)
        self._intake = Intake(
            redis,
            cap,
            clock=batch_clock,
            breaker=breaker,
            taken=lambda taken: self.receipts.keep(taken),
            doubtful=lambda offer: self.receipts.doubt(offer),
        )
        self._additions = GroupCommit(name, self._intake.take, self)
        self.receipts = Receipts(redis, name, learn, self._intake.take_again, breaker=breaker, observe=observe)

    async def add(self, page: str, count: int, key: str | None = None) -> int | None:
        """Takes `count` views of a page on, once for each `key`, and answers its total, None where that is not cached.

        Raises CacheUnavailable when it may have been taken on or not, BacklogFull, KeysFull and TotalOverflow when it
        was not, and ValueError for what nobody can count: it joins no others.
        """
        check(page, count, key)
        return await self._additions.ask(page, count, key)

    async def add_many(self, counts: Mapping[str, int], key: str | None = None) -> None:
        """Takes the views of many pages on. After an error, some of them may have been: a repetition with the same
        `key` completes them. Raises as `add` does; none is taken on, if one of them cannot be counted."""
        # Ten thousand at once would hold up everybody else in this process for long.
        slices = [list(islice(counts.items(), start, start + SLICE)) for start in range(0, len(counts), SLICE)]
        for place, some in enumerate(slices):
            if place:
                await asyncio.sleep(0)
            for page, count in some:
                check(page, count, key)
        asked: list[asyncio.Future[int | None]] = []
        try:
            for place, some in enumerate(slices):
                if place:
                    await asyncio.sleep(0)
                asked += [self._additions.ask(page, count, key, many=True) for page, count in some]
            errors: list[CacheError] = []
            for told in asked:  # `gather` would call back for each.
                try:
                    await told
                except CacheError as error:
                    errors.append(error)
            if errors:
                raise errors[0]
        finally:
            for told in asked:
                told.cancel() or told.cancelled() or told.exception()  # It is heard of.

    async def get(self, page: str) -> Total:
        """The views of a page, with those that wait. Raises CacheUnavailable, Behind and TargetUnavailable, and
        ValueError for what is no page: it is asked for with others."""
        check_page(page)
        self._observe(Flow.READ, 1)
        return await self._totals.get(page)

    async def forget(self, page: str) -> None:
        """Forgets the total of a page that was changed in the database, past the cache. Raises CacheUnavailable."""
        await self._totals.forget(page)

    async def backlog(self, young: timedelta | None = None) -> Backlog:
        """What waits; without `young`, all of it counts as young. Raises CacheUnavailable."""
        now = self._clock.now()
        since = "-" if young is None else max(0, int(now - young / timedelta(milliseconds=1))) if young else "+"
        answers = await asyncio.gather(
            *(
                run(
                    self._waiting,
                    lambda run, shard=shard: (
                        [shard.stream, shard.backlog, shard.bytes, shard.keyed],
                        [GROUP, since],
                    ),  # type: ignore[misc]
                    self._breaker,
                )
                for shard in self._shards
            )
        )
        views, size, oldest, recent, names, entries, keys = zip(*answers, strict=True)
        times = [int(first.split(b"-")[0]) for first in oldest if first]
        return Backlog(
            views=sum(map(int, views)),
            bytes=sum(map(int, size)),
            oldest=timedelta(milliseconds=max(0.0, now - min(times))) if times else None,
            young=sum(map(int, recent)),
            fill=max(
                max(map(int, entries)) / max(1, self._cap.entries // COUNT),
                max(map(int, size)) / max(1, self._cap.bytes // COUNT),
            ),
            keys=sum(map(int, keys)),
            keys_fill=max(map(int, keys)) / max(1, self._cap.keys // COUNT),
            flushers=len({name for each in names for name in each}),
        )
