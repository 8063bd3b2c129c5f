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
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any

from redis.asyncio import Redis
from redis.commands.core import AsyncScript
from redis.exceptions import ResponseError

from app.caching.background import Background
from app.caching.batching import Batching
from app.caching.clock import RedisClock
from app.caching.errors import REDIS_DOWN, BacklogFull, Behind, CacheUnavailable, TotalOverflow
from app.caching.scripts import script
from app.caching.shards import Shard, number, shards, ulid

GROUP = "flushers"
TOTAL = timedelta(hours=1)
KEY = timedelta(hours=24)
GUARD = timedelta(minutes=10)
"""A guard outlives every retry of its batch, which end after `ATTEMPTS` timeouts."""
ATTEMPTS = 3
MOST_PAGES = 500
MOST_ENTRIES = 10_000
"""So many entries may wait in a shard, of at most `MOST_PAGES` pages each."""
LOOKS = 50
PAUSE = timedelta(milliseconds=10)
MOST_LOOKED_AT = 500
"""A look at more waiting entries than this would hold up everybody else in Redis."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What the database has: the views of pages, and which of some batches it has counted. Read in one statement."""

    views: Mapping[str, int]
    applied: frozenset[str]


@dataclass(frozen=True, slots=True)
class Total:
    """The views of a page, and whether they stood in the cache."""

    views: int
    cached: bool


@dataclass(frozen=True, slots=True)
class Backlog:
    """How many views wait for the database, since when (None: none do), and how many flushers carry them."""

    views: int
    oldest: timedelta | None
    flushers: int


@dataclass(frozen=True, slots=True)
class Addition:
    """So many views of a page, which is told the page's total, or None where that is not cached."""

    page: str
    count: int
    key: str | None
    told: "asyncio.Future[int | None]"


@dataclass(slots=True)
class Lane:
    """Group commit: while one call is under way for a shard, the next ones gather here."""

    shard: Shard
    waiting: list[Addition] = field(default_factory=list)
    under_way: bool = False


class WriteBehind(Background):
    """Counters that are cheap to add to. `load` answers what the database has of some pages and batches."""

    def __init__(
        self,
        redis: Redis,
        name: str,
        load: Callable[[Sequence[str], Sequence[str]], Awaitable[Standing]],
        *,
        clock: RedisClock,
    ) -> None:
        super().__init__()
        self._redis, self._load, self._clock = redis, load, clock
        self._accept, self._look, self._seed = (script(redis, each) for each in ("accept", "look", "seed"))
        self._lanes = [Lane(shard) for shard in shards(name)]
        self._totals = Batching(self._totals_of, self.start)
        self._cold = [Batching(partial(self._cold_totals, lane.shard), self.start) for lane in self._lanes]

    async def add(self, page: str, count: int, key: str | None = None) -> int | None:
        """Takes `count` views of a page on, once for each `key`, and answers its total, None where that is not cached.

        Raises CacheUnavailable when it may have been taken on or not, BacklogFull and TotalOverflow when it was not.
        """
        return await self._ask(page, count, key)

    async def add_many(self, counts: Mapping[str, int], key: str | None = None) -> None:
        """Takes the views of many pages on. After an error, some of them may have been: a repetition with the same
        `key` completes them. Raises as `add` does."""
        asked = [self._ask(page, count, key) for page, count in counts.items()]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer

    async def get(self, page: str) -> Total:
        """The views of a page, with those that wait for the database. Raises CacheUnavailable, Behind, and what `load`
        raises."""
        views = await self._totals.ask(page)
        if views is not None:
            return Total(views, cached=True)
        return Total(await self._cold[number(page)].ask(page), cached=False)

    async def backlog(self) -> Backlog:
        """What waits for the database. Raises CacheUnavailable."""
        try:
            views = await self._redis.mget([lane.shard.backlog for lane in self._lanes])
            oldest: list[Any] = [await self._redis.xrange(lane.shard.stream, count=1) for lane in self._lanes]
            consumers = {name for lane in self._lanes for name in await self._consumers(lane.shard)}
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

    def _ask(self, page: str, count: int, key: str | None) -> "asyncio.Future[int | None]":
        lane = self._lanes[number(page)]
        addition = Addition(page, count, key, asyncio.get_running_loop().create_future())
        lane.waiting.append(addition)
        if not lane.under_way:
            lane.under_way = True
            self.start(self._drain(lane))
        return addition.told

    async def _drain(self, lane: Lane) -> None:
        try:
            while lane.waiting:
                batch = _batch(lane.waiting)
                del lane.waiting[: len(batch)]
                await self._commit(lane.shard, batch)
        finally:
            lane.under_way = False

    async def _commit(self, shard: Shard, batch: Sequence[Addition]) -> None:
        try:
            totals = await self._accepted(shard, batch)
        except TotalOverflow as error:
            # Nothing was taken on. One page that is full must not refuse the others.
            for addition in batch:
                if addition.page == error.page and not addition.told.done():
                    addition.told.set_exception(error)
            others = [addition for addition in batch if addition.page != error.page]
            if others:
                await self._commit(shard, others)
        except Exception as error:  # noqa: BLE001  # Whatever it is: nobody else would tell those who wait.
            for addition in batch:
                if not addition.told.done():
                    addition.told.set_exception(error)
        else:
            for addition in batch:
                if not addition.told.done():
                    addition.told.set_result(totals[addition.page])

    async def _accepted(self, shard: Shard, batch: Sequence[Addition]) -> Mapping[str, int | None]:
        pages = {page: place for place, page in enumerate(dict.fromkeys(addition.page for addition in batch), 1)}
        keys: dict[str, int] = {}
        items: list[int] = []
        for addition in batch:
            place = 0
            if addition.key is not None:
                place = keys.setdefault(shard.key(addition.page, addition.key), len(keys) + 1)
            items += (pages[addition.page], addition.count, place)
        batch_id = ulid(self._clock.now())
        names = [shard.stream, shard.backlog, shard.guard(batch_id), *map(shard.total, pages), *keys]
        args = [batch_id, _ms(GUARD), _ms(KEY), _ms(TOTAL), MOST_ENTRIES, len(pages), *pages, *items]
        answer = await self._repeated(self._accept, names, args)
        if answer == b"full":
            raise BacklogFull(f"{MOST_ENTRIES:,} entries wait for the database; no more are taken.")
        if isinstance(answer, int):
            raise TotalOverflow(list(pages)[answer - 1])
        return {page: None if total is None else int(total) for page, total in zip(pages, answer, strict=True)}

    async def _repeated(self, script: AsyncScript, keys: Sequence[str], args: Sequence[Any]) -> Any:
        # An answer that got lost tells nothing. The guard makes the repetition harmless: what was accepted is not
        # accepted again, and its totals are told.
        for attempt in range(ATTEMPTS):
            try:
                return await script(keys=keys, args=args)
            except REDIS_DOWN as error:
                if attempt == ATTEMPTS - 1:
                    raise CacheUnavailable(f"Redis did not answer for page views: {error}") from error
        raise AssertionError("There is a last attempt.")

    async def _totals_of(self, pages: Sequence[str]) -> Sequence[int | None]:
        try:
            raw = await self._redis.mget([self._lanes[number(page)].shard.total(page) for page in pages])
        except REDIS_DOWN as error:
            raise CacheUnavailable(f"Redis did not answer for page views: {error}") from error
        return [None if total is None else int(total) for total in raw]

    async def _cold_totals(self, shard: Shard, pages: Sequence[str]) -> Sequence[int]:
        totals: dict[str, int] = {}
        # A seed is refused when an acknowledgement or a delivery came between: then it takes another look.
        for _ in range(LOOKS):
            totals |= await self._seeded(shard, [page for page in pages if page not in totals])
            if len(totals) == len(pages):
                return [totals[page] for page in pages]
            await asyncio.sleep(PAUSE.total_seconds())
        raise Behind("The totals change faster than they can be read.")

    async def _seeded(self, shard: Shard, pages: Sequence[str]) -> dict[str, int]:
        names = [shard.stream, shard.epoch, *map(shard.total, pages)]
        seen = await self._repeated(self._look, names, [MOST_LOOKED_AT, secrets.token_hex(8), GROUP, *pages])
        if seen == b"behind":
            raise Behind(f"More than {MOST_LOOKED_AT} entries wait for the database, and this total is not cached.")
        epoch, last, batches, found = seen
        batches = [batch.decode() for batch in batches]
        # Views and ledger from one snapshot: a batch is either in the views, or it is not in the ledger.
        standing = await self._load(pages, batches)
        totals: dict[str, int] = {}
        for page, (total, waits) in zip(pages, found, strict=True):
            if total is None:
                pending = zip(waits[::2], waits[1::2], strict=True)
                base = standing.views.get(page, 0)
                base += sum(delta for place, delta in pending if batches[place - 1] not in standing.applied)
                keys = [shard.stream, shard.epoch, shard.total(page)]
                total = await self._repeated(self._seed, keys, [GROUP, epoch, last, base, page, _ms(TOTAL)])
            if total != b"again":
                totals[page] = int(total)
        return totals


def _batch(waiting: Sequence[Addition]) -> list[Addition]:
    """The first additions, of at most `MOST_PAGES` pages."""
    pages: set[str] = set()
    batch: list[Addition] = []
    for addition in waiting[:5_000]:
        pages.add(addition.page)
        if len(pages) > MOST_PAGES:
            break
        batch.append(addition)
    return batch


def _ms(duration: timedelta) -> int:
    return round(duration / timedelta(milliseconds=1))
