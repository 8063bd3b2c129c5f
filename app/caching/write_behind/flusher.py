"""Flush: the other half of write-behind, which writes what was accepted to the database, each batch once.

    gather   some entries of the stream (`gathering.py`)
    flush    one transaction: the ledger, and the counters of the batches that are new to it
    forget   acknowledge and delete the entries, and begin a new epoch (`forgetting.py`)

Any number of flushers share the work. One that dies leaves its entries to the others; one that dies after COMMIT leaves
entries that the ledger knows. What could not be flushed because the database is away is held, and tried again.

What the database refuses for its content (`Refused`), or has not done (`NotDone`), must not hold up the rest: half as
many entries are tried, and half of those, until one stands alone. One that is refused is salvaged (`dead_letters.py`).
One that took too long is set aside, and tried again by itself (`set_aside.py`).

What can go wrong: Redis or the database away: the flusher waits, and goes on by itself.
"""

import logging
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Self

from redis.asyncio import Redis

from ..cache import Cache
from ..errors import CacheUnavailable, NotDone, Refused
from ..observing import Flow, ObserveFlow, unobserved
from ..repeating import Repeating
from .dead_letters import DeadLetters
from .forgetting import Forgetting
from .gathering import MOST_AT_ONCE, Gathering
from .pending import Pending
from .set_aside import Aside, SetAside
from .shard import shards
from .target import Target, only

logger = logging.getLogger(__name__)

INTERVAL = timedelta(milliseconds=200)
DRAIN = timedelta(seconds=3)
"""So long it goes on flushing when it is to stop, while there is something to flush."""
MOST_ROWS = 10_000
"""What one transaction writes at most: far below what a database does within a statement's time."""


class Flusher:
    """One task that flushes, as long as its `async with` lasts: when so much has come together (`amount`), or when the
    first of it is `interval` old. A read that waits for entries holds a connection: under load it needs a `redis` of
    its own."""

    def __init__(
        self,
        cache: Cache,
        name: str,
        target: Target,
        *,
        redis: Redis | None = None,
        amount: int = 1000,
        interval: timedelta = INTERVAL,
        observe: ObserveFlow = unobserved,
    ) -> None:
        self._flush, self._breaker, self._observe = only(target.flush, Refused), cache.breaker, observe
        self._repeating = Repeating("flusher", self._repeat, lambda: observe(Flow.FAILURES, 1))
        some, redis = shards(cache.claim(name, "counters")), redis or cache.redis
        self._gathering = Gathering(
            redis, some, amount=amount, interval=interval, stopping=lambda: self._repeating.stopping, observe=observe
        )
        self._forgetting = Forgetting(redis, some, cache.breaker)
        self._dead_letters = DeadLetters(only(target.salvage), self._gathering, observe)
        self._held: list[Pending] = []
        self._aside = SetAside()
        self._counted = self._dead = 0
        self._most, self._careful = MOST_AT_ONCE, False

    async def __aenter__(self) -> Self:
        self._repeating.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        """Flushes what is there yet, for as long as `DRAIN`. What is left waits in Redis, for others or for the next
        start."""
        await self._repeating.stop()
        deadline = time.monotonic() + DRAIN.total_seconds()
        try:
            while time.monotonic() < deadline and await self.round():
                continue
            await self._gathering.retire(own=True)
        except Exception as error:  # noqa: BLE001  # Whatever it is: nothing is lost, and the others have to stop, too.
            logger.warning("The flusher stops, and leaves what waits in Redis: %r", error)

    @property
    def alive(self) -> bool:
        """Whether it flushes."""
        return self._repeating.alive

    @property
    def trouble(self) -> Exception | None:
        """Why it flushes nothing, or not all, round after round; None, when it does."""
        return self._repeating.trouble or self._gathering.trouble or self._aside.trouble

    async def _repeat(self) -> timedelta:
        await self.round()
        return timedelta(0)

    async def round(self) -> int:
        """Gathers, flushes and forgets once, and answers how many entries it had. What waits in a Redis that is not the
        one any more is flushed, too; what waits in somebody else's is not ours. Raises CacheUnavailable."""
        if self._breaker.ours is False:
            self._held.clear()  # Whoever owns them claims them.
            self._aside.clear()
            raise CacheUnavailable(f"Nothing is flushed from this Redis: {self._breaker.refused}.")
        if self._aside.full:
            await self._try_again()
        if not self._held:
            await self._gathering.gather(self._held, self._aside.entries)
        count = len(self._held)
        while self._held:
            # What fails is held, and tried again: nothing is read meanwhile.
            if not self._counted:
                life = self._life()
                counted = await self._count(_some(self._held, self._most))
                # The flush is on its way to an old primary     another one is promoted, and the next epoch begins
                # the old one commits it: what Redis forgot now would be in no database that anybody believes
                if life != self._breaker.life:
                    continue
                self._counted = counted
            # If this fails, the entries are counted, and only have to be forgotten.
            await self._forget(self._held[: self._counted], self._dead)
            del self._held[: self._counted]
            self._counted = self._dead = 0
        await self._try_again()
        self._observe(Flow.FLUSHES, 1 if count else 0)
        return count

    def _life(self) -> str | None:
        """The life of Redis in which something is counted now."""
        if self._breaker.ours is None:
            raise CacheUnavailable("Nobody knows yet whether what waits in this Redis is ours to flush.")
        return self._breaker.life

    async def _count(self, entries: Sequence[Pending]) -> int:
        """Counts some of the first entries, one at least, and answers how many."""
        # One batch may stand in two entries, when Redis was restored from a copy: it counts once.
        batches = {entry.batch.id: entry.batch for entry in entries if entry.batch is not None}
        if not batches:
            return await self._salvaged(entries[0], "It is no batch.")
        try:
            rows = await self._flush(list(batches.values()))
        except Refused as error:
            if len(entries) == 1:
                return await self._salvaged(entries[0], str(error))
            self._most = len(entries) // 2
            return await self._count(entries[: self._most])
        except NotDone as error:
            self._hurry_less(entries, error)
            raise
        self._note(rows)
        # Twice as many, when what was refused is gone. What took too long may do so again, and costs a wait each time.
        self._most = min(self._most + 1 if self._careful else self._most * 2, MOST_AT_ONCE)
        self._careful = self._careful and self._most < MOST_AT_ONCE
        return len(entries)

    async def _salvaged(self, entry: Pending, reason: str) -> int:
        """Salvages the first entry, and answers how many that is."""
        try:
            self._dead = await self._rescue(entry, reason)
        except NotDone as error:
            self._hurry_less([entry], error)
            raise
        return 1

    def _hurry_less(self, entries: Sequence[Pending], error: NotDone) -> None:
        """The next flush is of half as many; an entry that was alone stands aside."""
        self._careful, self._most = True, max(1, len(entries) // 2)
        if len(entries) == 1 and not self._aside.full:
            self._aside.put(entries[0], error)
            self._held.remove(entries[0])

    async def _try_again(self) -> None:
        """Tries what stands aside, each by itself, until one of them is in vain again."""
        for aside in self._aside.due:
            life = self._life()
            try:
                aside.dead += await self._count_alone(aside)
            except NotDone as error:
                logger.warning("The entry %s is not counted again: %s", aside.entry.place, error)
                self._observe(Flow.FAILURES, 1)
                self._aside.failed(aside, error)
                return
            if life == self._breaker.life:
                await self._forget([aside.entry], aside.dead)
                self._aside.remove(aside)

    async def _count_alone(self, aside: Aside) -> int:
        """Counts what stands aside, and answers how much of it became dead letters."""
        batch = aside.entry.batch
        if batch is None:
            return await self._rescue(aside.entry, str(aside.error))
        try:
            self._note(await self._flush([batch]))
        except Refused as error:
            return await self._rescue(aside.entry, str(error))
        return 0

    async def _rescue(self, entry: Pending, reason: str) -> int:
        rows, dead = await self._dead_letters.keep(entry, reason)
        await self._forgetting.forget_totals(entry)
        self._note(rows)
        return dead

    def _note(self, rows: int) -> None:
        self._observe(Flow.ROWS, rows)
        if rows:
            self._aside.counted()

    async def _forget(self, entries: Sequence[Pending], dead: int) -> None:
        for amount in await self._forgetting.forget(entries):
            self._observe(Flow.FLUSHED, max(0, amount - dead))  # One with dead letters is alone here.


def _some(entries: Sequence[Pending], most: int) -> Sequence[Pending]:
    """As many of the first entries as one transaction takes, and one at least. One that is no batch stands alone."""
    rows = 0
    for place, entry in enumerate(entries[:most]):
        rows += len(entry.batch.amounts) if entry.batch else MOST_ROWS + 1
        if place and (rows > MOST_ROWS or entries[0].batch is None):
            return entries[:place]
    return entries[:most]
