"""The totals of pages: a cache of what the database has and what waits for it, which may vanish at any time.

    hot     one GET
    cold    look at what waits (with the epoch) → ask the database, for views and ledger in one snapshot → seed, unless
            an acknowledgement began a new epoch or a newer entry was delivered meanwhile: then look again

What can go wrong: `Behind`, where so much waits that a look would hold up Redis, or a total changes faster than it can
be read. `CacheUnavailable` without Redis.
"""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from redis.asyncio import Redis

from .background import Background
from .batching import Batching
from .breaker import Breaker
from .countable import LARGEST
from .errors import REDIS_DOWN, Behind, CacheUnavailable
from .scripts import run, script
from .shards import GROUP, Shard, number, shards
from .words import unavailable

TOTAL = timedelta(hours=1)
"""So long a total is kept after it was last added to."""
NOBODY = timedelta(seconds=5)
"""So long it is kept that nobody has viewed a page: whoever asks for pages that are none leaves nothing behind."""
PATIENCE = timedelta(seconds=2)
PAUSE = timedelta(milliseconds=10)
MOST_LOOKED_AT = 500
"""A look at more waiting entries than this would hold up everybody else in Redis."""

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
"""No batch is of before."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What the database has: the views of pages, and which of some batches it has counted. Of a batch below its `floor`
    it cannot tell; a new one is of the time `ids_from` at least. Read in one statement."""

    views: Mapping[str, int]
    applied: frozenset[str]
    floor: datetime = BEGINNING
    ids_from: datetime = BEGINNING


@dataclass(frozen=True, slots=True)
class Total:
    """The views of a page, and whether they stood in the cache."""

    views: int
    cached: bool


Load = Callable[[Sequence[str], Sequence[str]], Awaitable[Standing]]
"""Answers what the database has of some pages and batches. Raises TargetUnavailable."""


class Totals:
    """The totals of all pages. What the readers of one moment ask for is asked together, in `background`."""

    def __init__(self, redis: Redis, name: str, load: Load, background: Background, breaker: Breaker) -> None:
        self._redis, self._load, self._background, self._breaker = redis, load, background, breaker
        self._look, self._seed, self._forget = (script(redis, name) for name in ("look", "seed", "forget"))
        self._shards = shards(name)
        self._hot = Batching(self._get_all, background.start)
        self._cold = [Batching(partial(self._build_all, shard), background.start) for shard in self._shards]

    async def get(self, page: str) -> Total:
        """The views of a page, with those that wait. Raises CacheUnavailable, Behind, and what `load` raises."""
        views = await self._hot.ask_here(page)
        if views is not None:
            return Total(views, cached=True)
        return Total(await self._cold[number(page)].ask(page), cached=False)

    async def forget(self, page: str) -> None:
        """Forgets a total, and what any reader has seen of it. Raises CacheUnavailable."""
        shard, epoch = self._shards[number(page)], secrets.token_hex(8)
        await run(self._forget, lambda life: ([shard.epoch, shard.total(page, life)], [epoch]), self._breaker)

    async def _get_all(self, pages: Sequence[str]) -> Sequence[int | None]:
        if not self._breaker.writable:
            raise CacheUnavailable(f"Redis is not asked for page views: {self._breaker.why}.")
        life = self._breaker.life
        try:
            raw: list[Any] = await self._redis.mget([self._shards[number(page)].total(page, life) for page in pages])
        except REDIS_DOWN as error:
            raise unavailable(error, "page views") from error
        if life != self._breaker.life:  # It is another one by now: these are totals of the past.
            return [None] * len(pages)
        return [_number(total) for total in raw]

    async def _build_all(self, shard: Shard, pages: Sequence[str]) -> Sequence[int]:
        totals: dict[str, int] = {}
        deadline = time.monotonic() + PATIENCE.total_seconds()
        # A seed is refused when an acknowledgement or a delivery came between: then it takes another look.
        while time.monotonic() < deadline and not self._background.closing:
            totals |= await self._build(shard, [page for page in pages if page not in totals])
            if len(totals) == len(pages):
                return [totals[page] for page in pages]
            await asyncio.sleep(PAUSE.total_seconds())
        raise Behind("The totals change faster than they can be read.")

    async def _build(self, shard: Shard, pages: Sequence[str]) -> dict[str, int]:
        life = self._breaker.life
        args = [MOST_LOOKED_AT, secrets.token_hex(8), GROUP, *pages]
        seen = await run(self._look, lambda life: (_names(shard, pages, life), args), self._breaker)
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
                # Under the names of the life in which it was seen: a Redis that has restarted meanwhile may have lost
                # some of it, or has it once more, and nobody asks that life's totals any more.
                seed = (
                    _names(shard, [page], life),
                    [GROUP, epoch, last, base, page, *(round(kept.total_seconds() * 1000) for kept in (TOTAL, NOBODY))],
                )
                total = await run(self._seed, lambda _life, seed=seed: seed, self._breaker)  # type: ignore[misc]
            if total != b"again":
                totals[page] = int(total)
        return totals if life == self._breaker.life else {}


def _number(total: bytes | None) -> int | None:
    """A total as it stands in Redis. What is none, or more than can be counted, is not cached, and built anew: others
    are asked for with it."""
    if total is None or not total.isdigit() or len(total) > len(str(LARGEST)):
        return None
    return views if (views := int(total)) <= LARGEST else None


def _names(shard: Shard, pages: Sequence[str], life: str | None) -> list[str]:
    return [shard.stream, shard.epoch, *(shard.total(page, life) for page in pages)]
