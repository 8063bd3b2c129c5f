"""The totals of keys: a cache of what the database has and what is pending, which may vanish at any time.

    hot     one GET
    cold    look at what is pending (with the epoch) → ask the database, for amounts and ledger in one snapshot → seed,
            unless a flush began a new epoch or a newer entry was delivered meanwhile: then look again

What can go wrong: `Behind`, where so much is pending that a look would hold up Redis, or a total changes faster than it
can be read. `CacheUnavailable` without Redis.
"""

import asyncio
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

from ..background import Background
from ..batching import Batching
from ..cache import Cache
from ..errors import REDIS_DOWN, Behind, CacheUnavailable
from ..words import unavailable
from .countable import LARGEST
from .scripts import ASKED, run, script
from .shard import GROUP, Shard, number
from .target import Load

TOTAL = timedelta(hours=1)
"""So long a total is kept after it was last added to."""
NOTHING = timedelta(seconds=5)
"""So long a total of 0 is kept: whoever asks for keys that nobody has added to leaves nothing behind."""
PATIENCE = timedelta(seconds=2)
PAUSE = timedelta(milliseconds=10)
MOST_LOOKED_AT = 500
"""A look at more pending entries than this would hold up everybody else in Redis."""


@dataclass(frozen=True, slots=True)
class Total:
    """The total of a key, and whether it stood in the cache."""

    amount: int
    cached: bool


class Totals:
    """The totals of all keys. What the readers of one moment ask for is asked together, in `background`."""

    def __init__(self, cache: Cache, shards: Sequence[Shard], load: Load, background: Background) -> None:
        self._redis, self._breaker = cache.redis, cache.breaker
        self._load, self._background = load, background
        self._look, self._seed, self._forget = (script(cache.redis, name) for name in ("look", "seed", "forget"))
        self._shards = shards
        self._hot = Batching(self._get_all, background.start)
        self._cold = [Batching(partial(self._build_all, shard), background.start) for shard in shards]

    async def get(self, key: str) -> Total:
        """The total of a key, with what is pending. Raises CacheUnavailable, Behind, and what `load` raises."""
        amount = await self._hot.ask_here(key)
        if amount is not None:
            return Total(amount, cached=True)
        return Total(await self._cold[number(key)].ask(key), cached=False)

    async def forget(self, key: str) -> None:
        """Forgets a total, and what any reader has seen of it. Raises CacheUnavailable."""
        shard, epoch = self._shards[number(key)], secrets.token_hex(8)
        await run(self._forget, lambda life: ([shard.epoch, shard.total(key, life)], [epoch]), self._breaker)

    async def _get_all(self, keys: Sequence[str]) -> Sequence[int | None]:
        if not self._breaker.writable:
            raise CacheUnavailable(f"Redis is not asked for {ASKED}: {self._breaker.why}.")
        life = self._breaker.life
        try:
            raw: list[Any] = await self._redis.mget([self._shards[number(key)].total(key, life) for key in keys])
        except REDIS_DOWN as error:
            raise unavailable(error, ASKED) from error
        if life != self._breaker.life:  # It is another one by now: these are totals of the past.
            return [None] * len(keys)
        return [_number(total) for total in raw]

    async def _build_all(self, shard: Shard, keys: Sequence[str]) -> Sequence[int]:
        totals: dict[str, int] = {}
        deadline = time.monotonic() + PATIENCE.total_seconds()
        # A seed is refused when a flush or a delivery came between: then it takes another look.
        while time.monotonic() < deadline and not self._background.closing:
            totals |= await self._build(shard, [key for key in keys if key not in totals])
            if len(totals) == len(keys):
                return [totals[key] for key in keys]
            await asyncio.sleep(PAUSE.total_seconds())
        raise Behind("The totals change faster than they can be read.")

    async def _build(self, shard: Shard, keys: Sequence[str]) -> dict[str, int]:
        life = self._breaker.life
        args = [MOST_LOOKED_AT, secrets.token_hex(8), GROUP, *keys]
        seen = await run(self._look, lambda life: (_names(shard, keys, life), args), self._breaker)
        if seen == b"behind":
            raise Behind(f"More than {MOST_LOOKED_AT} entries wait for the database, and this total is not cached.")
        epoch, last, batches, found = seen
        batches = [batch.decode() for batch in batches]
        # Amounts and ledger from one snapshot: a batch is either in the amounts, or it is not in the ledger.
        standing = await self._load(keys, batches)
        totals: dict[str, int] = {}
        for key, (total, waits) in zip(keys, found, strict=True):
            if total is None:
                pending = zip(waits[::2], waits[1::2], strict=True)
                base = int(standing.amounts.get(key, 0))
                base += sum(delta for place, delta in pending if batches[place - 1] not in standing.applied)
                # Under the names of the life in which it was seen: a Redis that has restarted meanwhile may have lost
                # some of it, or has it once more, and nobody asks that life's totals any more.
                lives = (round(kept.total_seconds() * 1000) for kept in (TOTAL, NOTHING))
                seed = (_names(shard, [key], life), [GROUP, epoch, last, base, key, *lives])
                total = await run(self._seed, lambda _life, seed=seed: seed, self._breaker)  # type: ignore[misc]
            if total != b"again":
                totals[key] = int(total)
        return totals if life == self._breaker.life else {}


def _number(total: bytes | None) -> int | None:
    """A total as it stands in Redis. What is none, or more than can be counted, is not cached, and built anew: others
    are asked for with it."""
    if total is None or not total.isdigit() or len(total) > len(str(LARGEST)):
        return None
    return amount if (amount := int(total)) <= LARGEST else None


def _names(shard: Shard, keys: Sequence[str], life: str | None) -> list[str]:
    return [shard.stream, shard.epoch, *(shard.total(key, life) for key in keys)]
