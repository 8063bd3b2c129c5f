"""The totals of keys: a cache of the database's amounts plus what is pending. It may vanish at any time.

    hot     one GET
    cold    read what is pending, and the generation (`shard.py`) → query the database for amounts and ledger in one
            snapshot → seed, unless a flush began a new generation or a newer entry was delivered meanwhile: then start
            again

What can go wrong: `Behind` if so much is pending that reading it would block Redis, or if a total changes faster than
it can be read. `CacheUnavailable` without Redis.
"""

import asyncio
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from ..background import Background
from ..batching import Batching
from ..errors import Behind
from .countable import LARGEST
from .life import Life
from .place import Place
from .scripts import run, script
from .shard import GROUP, Shard, number
from .target import Load

TOTAL = timedelta(hours=1)
"""How long a total is cached after the last addition to it."""
NOTHING = timedelta(seconds=5)
"""How long a total of 0 is cached. It is short, so reads of keys without additions do not fill Redis."""
PATIENCE = timedelta(seconds=2)
PAUSE = timedelta(milliseconds=10)
MOST_LOOKED_AT = 500
"""The most pending entries that are read at once. More would block all other clients of Redis."""


@dataclass(frozen=True, slots=True)
class Total:
    """The total of a key, and whether it was cached."""

    amount: int
    cached: bool


class Totals:
    """The totals of all keys. Concurrent reads at one place are combined into one call, which runs in `background`."""

    def __init__(self, places: Sequence[Place], load: Load, background: Background) -> None:
        self._load, self._background = load, background
        self._look, self._seed, self._forget = (script(places[0].redis, name) for name in ("look", "seed", "forget"))
        self._places = {shard: place for place in places for shard in place.shards}
        self._shards = list(self._places)
        self._hot: list[Batching[str, int | None]] = []
        for place in places:
            self._hot += [Batching(partial(self._get_all, place), background.start)] * len(place.shards)
        self._cold = [Batching(partial(self._build_all, shard), background.start) for shard in self._shards]

    async def get(self, key: str) -> Total:
        """Returns a key's total, pending included. Raises CacheUnavailable, Behind, and whatever `load` raises."""
        shard = number(key)
        amount = await self._hot[shard].ask_here(key)
        if amount is not None:
            return Total(amount, cached=True)
        return Total(await self._cold[shard].ask(key), cached=False)

    async def forget(self, key: str) -> None:
        """Forgets a total, and voids what readers have seen in order to build it. Raises CacheUnavailable."""
        shard, args = self._shards[number(key)], [secrets.token_hex(8)]

        def question(life: Life) -> tuple[list[str], list[str]]:
            return [shard.generation, shard.total(key, life.name)], args

        await run(self._forget, question, self._places[shard])

    async def _get_all(self, place: Place, keys: Sequence[str]) -> Sequence[int | None]:
        return [_number(total) for total in await place.totals(keys)]

    async def _build_all(self, shard: Shard, keys: Sequence[str]) -> Sequence[int]:
        totals: dict[str, int] = {}
        deadline = time.monotonic() + PATIENCE.total_seconds()
        # A seed is refused if a flush or a delivery came in between: then read again.
        while time.monotonic() < deadline and not self._background.closing:
            totals |= await self._build(shard, [key for key in keys if key not in totals])
            if len(totals) == len(keys):
                return [totals[key] for key in keys]
            await asyncio.sleep(PAUSE.total_seconds())
        raise Behind("The totals change faster than they can be read.")

    async def _build(self, shard: Shard, keys: Sequence[str]) -> dict[str, int]:
        place = self._places[shard]
        life, args = place.life, [MOST_LOOKED_AT, secrets.token_hex(8), GROUP]
        seen = await run(self._look, lambda life: (_names(shard, keys, life), [*args, life.tag, *keys]), place)
        if seen == b"behind":
            raise Behind(f"More than {MOST_LOOKED_AT} entries wait for the database, and this total is not cached.")
        generation, last, batches, found = seen
        batches = [batch.decode() for batch in batches]
        # Amounts and ledger come from one snapshot: a batch is in the amounts, or else it is not in the ledger.
        standing = await self._load(keys, batches)
        totals: dict[str, int] = {}
        for key, (total, waits) in zip(keys, found, strict=True):
            if total is None:
                pending = zip(waits[::2], waits[1::2], strict=True)
                base = int(standing.amounts.get(key, 0))
                base += sum(delta for batch, delta in pending if batches[batch - 1] not in standing.applied)
                # Named by the life in which it was seen: a Redis that restarted meanwhile may have lost some of it, or
                # have it twice. Nobody reads the totals of the earlier life any more.
                lives = (round(kept.total_seconds() * 1000) for kept in (TOTAL, NOTHING))
                seed = (_names(shard, [key], life), [GROUP, generation, last, base, key, *lives, life.tag])
                total = await run(self._seed, lambda _life, seed=seed: seed, place)  # type: ignore[misc]
            if total != b"again":
                totals[key] = int(total)
        return totals if life == place.life else {}


def _number(total: bytes | None) -> int | None:
    """Returns a total as stored in Redis. An invalid or too large one counts as not cached, and is built anew: it must
    not fail the other totals of the same read."""
    if total is None or not total.isdigit() or len(total) > len(str(LARGEST)):
        return None
    return amount if (amount := int(total)) <= LARGEST else None


def _names(shard: Shard, keys: Sequence[str], life: Life) -> list[str]:
    return [shard.stream, shard.generation, *(shard.total(key, life.name) for key in keys)]
