"""Write-behind: the cache takes additions on at once, and carries them to the database later.

    read    ask the cache for the total; a cold one is what the database has, and what waits for it
    write   one script in Redis: remember the addition, and count it in the total; `Flusher` does the rest

Use it for many small additions to few rows: counters, statistics. They are merged on their way: a thousand views may be
one row written. Avoid it when somebody has to find a write in the database at once. Never use it for what must survive
the loss of Redis: orders, payments, registrations.

What can go wrong: without Redis nothing is accepted (`CacheUnavailable`); what was accepted when the answer got lost
may count. While the database is away the backlog grows, up to a cap (`BacklogFull`). A cold total behind a long backlog
is not told (`Behind`) rather than told wrong.
"""

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from app.caching.background import Background
from app.caching.breaker import Breaker
from app.caching.clock import RedisClock
from app.caching.errors import REDIS_DOWN, BacklogFull, CacheUnavailable, TotalOverflow
from app.caching.group_commit import Addition, GroupCommit
from app.caching.scripts import run, script
from app.caching.shards import GROUP, Shard, shards, ulid
from app.caching.totals import TOTAL, Load, Total, Totals

KEY = timedelta(hours=24)
GUARD = timedelta(minutes=10)
"""A guard outlives every repetition of its batch."""
MOST_ENTRIES = 10_000
"""So many entries may wait in a shard, of at most 500 pages each."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """How many views wait for the database, since when (None: none do), and how many flushers carry them."""

    views: int
    oldest: timedelta | None
    flushers: int


class WriteBehind(Background):
    """Counters that are cheap to add to. `load` answers what the database has of some pages and batches."""

    def __init__(self, redis: Redis, name: str, load: Load, *, clock: RedisClock, breaker: Breaker) -> None:
        super().__init__()
        self._redis, self._clock, self._breaker, self._shards = redis, clock, breaker, shards(name)
        self._script = script(redis, "accept")
        self._totals = Totals(redis, name, load, self, breaker)
        self._additions = GroupCommit(name, self._accept, self)

    async def add(self, page: str, count: int, key: str | None = None) -> int | None:
        """Takes `count` views of a page on, once for each `key`, and answers its total, None where that is not cached.

        Raises CacheUnavailable when it may have been taken on or not, BacklogFull and TotalOverflow when it was not.
        """
        return await self._additions.ask(page, count, key)

    async def add_many(self, counts: Mapping[str, int], key: str | None = None) -> None:
        """Takes the views of many pages on. After an error, some of them may have been: a repetition with the same
        `key` completes them. Raises as `add` does."""
        asked = [self._additions.ask(page, count, key) for page, count in counts.items()]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer

    async def get(self, page: str) -> Total:
        """The views of a page, with those that wait. Raises CacheUnavailable, Behind, and what `load` raises."""
        return await self._totals.get(page)

    async def backlog(self) -> Backlog:
        """What waits for the database. Raises CacheUnavailable."""
        try:
            views = await self._redis.mget([shard.backlog for shard in self._shards])
            oldest: list[Any] = [await self._redis.xrange(shard.stream, count=1) for shard in self._shards]
            consumers = {name for shard in self._shards for name in await self._consumers(shard)}
        except REDIS_DOWN as error:
            raise CacheUnavailable(f"Redis did not answer for page views: {error}") from error
        times = [int(bytes(first[0][0]).split(b"-")[0]) for first in oldest if first]
        age = timedelta(milliseconds=max(0.0, self._clock.now() - min(times))) if times else None
        return Backlog(sum(int(each or 0) for each in views), age, len(consumers))

    async def _consumers(self, shard: Shard) -> list[bytes]:
        try:
            return [consumer["name"] for consumer in await self._redis.xinfo_consumers(shard.stream, GROUP)]
        except ResponseError as error:
            # There is no stream yet, or no group: nobody has begun to carry.
            if str(error).startswith(("NOGROUP", "no such key")):
                return []
            raise

    async def _accept(self, shard: Shard, batch: Sequence[Addition]) -> Mapping[str, int | None]:
        pages = {page: place for place, page in enumerate(dict.fromkeys(addition.page for addition in batch), 1)}
        keys: dict[str, int] = {}
        items: list[int] = []
        for addition in batch:
            place = 0
            if addition.key is not None:
                place = keys.setdefault(shard.key(addition.page, addition.key), len(keys) + 1)
            items += (pages[addition.page], addition.count, place)
        batch_id = ulid(self._clock.now())
        runs: list[str | None] = []

        def question(run: str | None) -> tuple[list[str], list[str | int]]:
            runs.append(run)
            totals = (shard.total(page, run) for page in pages)
            names = [shard.stream, shard.backlog, shard.guard(batch_id), shard.epoch, *totals, *keys]
            # In another run than the first, the batch may have been counted and forgotten.
            epoch = "" if run == runs[0] else secrets.token_hex(8)
            return names, [batch_id, _ms(GUARD), _ms(KEY), _ms(TOTAL), MOST_ENTRIES, epoch, len(pages), *pages, *items]

        answer = await run(self._script, question, self._breaker)
        if answer == b"full":
            raise BacklogFull(f"{MOST_ENTRIES:,} entries wait for the database; no more are taken.")
        if isinstance(answer, int):
            raise TotalOverflow(list(pages)[answer - 1])
        return {page: None if total is None else int(total) for page, total in zip(pages, answer, strict=True)}


def _ms(duration: timedelta) -> int:
    return round(duration / timedelta(milliseconds=1))
