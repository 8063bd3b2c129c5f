"""The other half of write-behind: carries what was taken on from the stream to the database, each batch once.

    gather   some entries of the stream (`gathering.py`)
    flush    one transaction: the ledger, and the counters of the batches that are new to it
    forget   acknowledge and delete the entries, and begin a new epoch

Any number of flushers share the work. One that dies leaves its entries to the others; one that dies after COMMIT leaves
entries that the ledger knows. What could not be flushed because the database is away is held, and tried again.

What the database refuses for its content (`Refused`), or has not done (`NotDone`), must not hold up the rest: half as
many entries are tried, and half of those, until one stands alone. One that is refused is salvaged: in one transaction,
what can be counted of it is counted, and the rest is kept as dead letters. One that took too long is set aside, and
tried again by itself (`set_aside.py`).

What can go wrong: Redis or the database away: the flusher waits, and goes on by itself.
"""

import logging
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial

from redis.asyncio import Redis

from app.caching.breaker import Breaker
from app.caching.entry import Entry, Flush, FlushSalvage, Salvage
from app.caching.errors import CacheUnavailable, NotDone, Refused
from app.caching.gathering import MOST_AT_ONCE, Gathering
from app.caching.observing import Flow, ObserveFlow
from app.caching.repeating import Repeating
from app.caching.scripts import run, script
from app.caching.set_aside import Aside, SetAside
from app.caching.shards import GROUP, Shard

logger = logging.getLogger(__name__)

DRAIN = timedelta(seconds=3)
"""So long it goes on carrying when it was told to stop, while there is something to carry."""
MOST_ROWS = 10_000
"""What one transaction counts at most: far below what Postgres does within a statement's time."""


class Flusher:
    """One task that carries. `redis` is its own: a read that waits holds a connection. It flushes when `views` have
    come together, or when the first of them is `interval` old."""

    def __init__(
        self,
        redis: Redis,
        name: str,
        flush: Flush,
        salvage: FlushSalvage,
        *,
        views: int,
        interval: timedelta,
        breaker: Breaker,
        observe: ObserveFlow,
    ) -> None:
        self._flush, self._salvage, self._breaker, self._observe = flush, salvage, breaker, observe
        self._repeating = Repeating("flusher", self._repeat, lambda: observe(Flow.FAILURES, 1))
        self._gathering = Gathering(
            redis, name, views=views, interval=interval, stopping=lambda: self._repeating.stopping, observe=observe
        )
        self._acknowledge = script(redis, "acknowledge")
        self._held: list[Entry] = []
        self._aside = SetAside()
        self._counted = self._dead = 0
        self._most, self._careful = MOST_AT_ONCE, False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Carries while the block lasts, and then what is there yet, for as long as `DRAIN`. What is left waits in
        Redis, for others or for the next start."""
        async with self._repeating.running():
            yield
        deadline = time.monotonic() + DRAIN.total_seconds()
        try:
            while time.monotonic() < deadline and await self.round():
                continue
            await self._gathering.retire(own=True)
        except Exception as error:  # noqa: BLE001  # Whatever it is: nothing is lost, and the others have to stop, too.
            logger.warning("The flusher stops, and leaves what waits in Redis: %r", error)

    @property
    def alive(self) -> bool:
        """Whether it carries."""
        return self._repeating.alive

    @property
    def trouble(self) -> Exception | None:
        """Why it carries nothing, or not all, round after round; None, when it does."""
        return self._repeating.trouble or self._aside.trouble

    async def _repeat(self) -> timedelta:
        await self.round()
        return timedelta(0)

    async def round(self) -> int:
        """Gathers, flushes and forgets once, and answers how many entries it had. What waits in a Redis that is not the
        one any more is carried, too; what waits in somebody else's is not ours. Raises CacheUnavailable."""
        if self._breaker.ours is False:
            self._held.clear()  # Whoever owns them takes them over.
            self._aside.clear()
            raise CacheUnavailable(f"Nothing is carried from this Redis: {self._breaker.refused}.")
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
            raise CacheUnavailable("Nobody knows yet whether what waits in this Redis is ours to carry.")
        return self._breaker.life

    async def _count(self, entries: Sequence[Entry]) -> int:
        """Counts some of the first entries, one at least, and answers how many."""
        # One batch may stand in two entries, when Redis was restored from a copy: it counts once.
        batches = {entry.batch.id: entry.batch for entry in entries if entry.batch is not None}
        if not batches:
            return await self._salvaged(entries[0], "It is no batch of views.")
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

    async def _salvaged(self, entry: Entry, reason: str) -> int:
        """Salvages the first entry, and answers how many that is."""
        try:
            self._dead = await self._rescue(entry, reason)
        except NotDone as error:
            self._hurry_less([entry], error)
            raise
        return 1

    def _hurry_less(self, entries: Sequence[Entry], error: NotDone) -> None:
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
        """Counts what stands aside, and answers how many of its views became dead letters."""
        batch = aside.entry.batch
        if batch is None:
            return await self._rescue(aside.entry, str(aside.error))
        try:
            self._note(await self._flush([batch]))
        except Refused as error:
            return await self._rescue(aside.entry, str(error))
        return 0

    async def _rescue(self, entry: Entry, reason: str) -> int:
        """Counts what can be counted of an entry, and answers how many of its views became dead letters."""
        deliveries = await self._gathering.deliveries(entry)
        rows, dead = await self._salvage(Salvage(entry.place, entry.batch, entry.raw, reason, deliveries))
        self._note(rows)
        self._observe(Flow.DEAD, dead)
        logger.error("The entry %s was refused, and %d of its views are dead letters: %s", entry.place, dead, reason)
        return dead

    def _note(self, rows: int) -> None:
        self._observe(Flow.ROWS, rows)
        if rows:
            self._aside.counted()

    async def _forget(self, entries: Sequence[Entry], dead: int) -> None:
        for shard in self._gathering.shards.values():
            of_shard = [entry for entry in entries if entry.shard == shard]
            if of_shard:
                each = [
                    (entry.id, entry.batch.id if entry.batch else "", entry.views, len(entry.raw)) for entry in of_shard
                ]
                words = (word for words in each for word in words)
                args = [GROUP, secrets.token_hex(8), *words]
                question = partial(_question, shard, of_shard, args)
                views = int(await run(self._acknowledge, question, self._breaker, drains=True))
                # Each entry leaves the stream once, whoever carries it; one with dead letters is alone here.
                self._observe(Flow.FLUSHED, max(0, views - dead))


def _question(
    shard: Shard, entries: Sequence[Entry], args: Sequence[str | int], life: str | None
) -> tuple[Sequence[str | bytes], Sequence[str | int]]:
    pages = dict.fromkeys(page for entry in entries if entry.batch for page in entry.batch.deltas)
    return [shard.stream, shard.epoch, shard.backlog, shard.bytes, *(_total(shard, page, life) for page in pages)], args


def _total(shard: Shard, page: str, life: str | None) -> bytes:
    # A page that is no text has become a dead letter, and has no total; its entry is forgotten all the same.
    return shard.total(page, life).encode(errors="surrogatepass")


def _some(entries: Sequence[Entry], most: int) -> Sequence[Entry]:
    """As many of the first entries as one transaction takes, and one at least. One that is no batch stands alone."""
    rows = 0
    for place, entry in enumerate(entries[:most]):
        rows += len(entry.batch.deltas) if entry.batch else MOST_ROWS + 1
        if place and (rows > MOST_ROWS or entries[0].batch is None):
            return entries[:place]
    return entries[:most]
