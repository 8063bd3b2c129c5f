"""Receipts: what this process has taken on, until the database has it. What Redis loses meanwhile is taken on again.

    each second    which entries have left the stream? → which of those does the ledger have? → what neither has is
                   lost: take it on again, from its receipt

Redis may lose what it has confirmed: its last second when its machine crashes (AOF everysec), what the replica did not
have when it takes over, everything by FLUSHALL. The process that took a view on still knows of it, and the ledger
counts a batch once, however often it is taken on. So a view is lost only if Redis forgets it and this process ends,
too, before the database has it. (Whether a message has arrived only the ends can tell: Saltzer, Reed, Clark,
"End-to-End Arguments in System Design", 1984.)

A database that goes back in time may have lost what it had counted. So a receipt stays a while longer, and in a new
epoch the ledger is asked again.

What can go wrong: the database is away, and more waits than `KEPT` bytes. Of the older part only the number is kept,
and it is counted as lost when Redis loses it. And what Redis loses while this process cannot reach the database for a
day, and others can: the ledger of that time is gone, so it is not taken on again, and counted as lost, too.
"""

import logging
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

from redis.asyncio import Redis

from .batch_clock import LEARNED
from .breaker import Breaker
from .errors import BacklogFull, CacheError, TotalOverflow
from .intake import Offer, Taken
from .observing import Flow, ObserveFlow
from .receipt import NOWHERE, Receipt
from .repeating import Repeating
from .scripts import run, script
from .shards import Shard, shards, ulid_time
from .totals import Load, Standing

logger = logging.getLogger(__name__)

PAUSE = timedelta(seconds=1)
YOUNG = timedelta(seconds=1)
"""Nobody looks for a younger entry: nearly all of them are on their way."""
CHUNK = 1000
KEPT = 16 * 1024 * 1024
"""So many bytes of batches are kept, to be taken on again."""
AGAIN = timedelta(seconds=30)
"""A receipt stays for so long when the database has its batch: a database that goes back (a standby that is promoted
without the last commits, a dump that is restored) may not have it any more."""
CARRIED = timedelta(seconds=15)
"""An entry that is gone may be in the hands of a flusher that took it before: what has not come to the database after
so long is lost."""


class Receipts:
    """The receipts of one process. `load` answers which of some batches the ledger has, and raises TargetUnavailable;
    `again` takes a batch on again, and its receipt comes back by `keep`."""

    def __init__(
        self,
        redis: Redis,
        name: str,
        load: Load,
        again: Callable[[Offer], Awaitable[None]],
        *,
        breaker: Breaker,
        observe: ObserveFlow,
    ) -> None:
        self._load, self._again, self._observe = load, again, observe
        self._breaker = breaker
        self._present = script(redis, "present")
        self._receipts: dict[Shard, dict[str, Receipt]] = {shard: {} for shard in shards(name)}
        self._offers: deque[Receipt] = deque()
        self._bytes = 0
        self._carried: deque[tuple[float, Shard, Receipt]] = deque()
        """Those that the database has, and since when that is known."""
        self._life = breaker.life
        """In which life of Redis, and so in which epoch, they were found there."""
        self._asked_at = -math.inf
        self._repeating = Repeating("receipts", self._repeat, lambda: None)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Looks after them while the block lasts, and once more at its end."""
        try:
            async with self._repeating.running():
                yield
        finally:
            try:
                await self.check(young=timedelta(0))
            except CacheError as error:
                logger.warning("At the end nobody could tell what has become of %d views: %s", self.views, error)

    @property
    def alive(self) -> bool:
        """Whether somebody looks after them."""
        return self._repeating.alive

    @property
    def trouble(self) -> Exception | None:
        """Why it finds nothing out, round after round; None, when it does."""
        return self._repeating.trouble

    @property
    def views(self) -> int:
        """How many views were taken on here, and are not known to be in the database."""
        return sum(receipt.views for receipts in self._receipts.values() for receipt in receipts.values())

    def keep(self, taken: Taken) -> None:
        """A batch was taken on."""
        receipts = self._receipts[taken.offer.shard]
        before = receipts.pop(taken.offer.batch, None)
        if before is not None:
            self._drop(before)
        if taken.entry is None:
            return
        if before is None or not before.views:
            self._observe(Flow.ACCEPTED, taken.views)
        self._hold(taken.offer, taken.entry, taken.views)

    def doubt(self, offer: Offer) -> None:
        """A batch was taken on, or not: its answer was lost, and its clients were told so.

        What has no idempotency key is left at that. What has one must not be lost from here on:

            a view is taken on, and the answer is lost
                                                its client repeats it: the key is known, and it is told that all is well
            Redis loses the view, and the key with it
        """
        if offer.keys and offer.batch not in self._receipts[offer.shard]:
            self._hold(offer.keyed, NOWHERE, 0)

    def _hold(self, offer: Offer, entry: str, views: int) -> None:
        receipt = Receipt(offer.batch, entry, views, offer, time.monotonic())
        self._receipts[offer.shard][offer.batch] = receipt
        self._offers.append(receipt)
        self._bytes += offer.bytes
        while self._bytes > KEPT:
            self._drop(self._offers.popleft())

    async def check(self, young: timedelta = YOUNG) -> None:
        """Looks once for what Redis has lost. Raises CacheUnavailable, TargetUnavailable and BacklogFull."""
        await self._ask_again()
        full: BacklogFull | None = None
        for shard, receipts in self._receipts.items():
            due = [one for one in receipts.values() if one.taken_at <= time.monotonic() - young.total_seconds()]
            try:
                for start in range(0, len(due), CHUNK):
                    if not await self._look_for(shard, due[start : start + CHUNK]):
                        break  # These wait, and so do those that came after them.
            except BacklogFull as error:
                full = error  # The other shards' are looked after all the same.
        while self._offers and self._offers[0].offer is None:
            self._offers.popleft()
        if full is not None:
            raise full

    async def _look_for(self, shard: Shard, some: Sequence[Receipt]) -> bool:
        """Whether any of them has left the stream."""
        # First the stream, and then the ledger: an entry leaves the one when it is in the other.
        # That also of a Redis that is not believed any more: what was taken on there is carried from there.
        question = ([shard.stream], [word for receipt in some for word in (receipt.entry, receipt.batch)])
        present = await run(self._present, lambda run: question, self._breaker, drains=True)
        gone = [receipt for receipt, there in zip(some, present, strict=True) if not there]
        if not gone:
            return False
        standing = await self._ask([receipt.batch for receipt in gone])
        floor = standing.floor.timestamp() * 1000
        for receipt in gone:
            if receipt.batch in standing.applied:
                self._receipts[shard].pop(receipt.batch, None)
                self._carried.append((time.monotonic(), shard, receipt))
            elif self._breaker.writable:  # Where nothing is taken on, it may wait in the Redis of before.
                if ulid_time(receipt.batch) < floor:
                    self._drop(receipt)  # Whether it was counted cannot be told: taken on again, it could count twice.
                await self._missing(shard, receipt)
        return True

    async def _ask_again(self) -> None:
        """Looks, in a new epoch, whether the database still has what it had."""
        while self._carried and time.monotonic() - self._carried[0][0] > AGAIN.total_seconds():
            self._drop(self._carried.popleft()[2])
        life = self._breaker.life
        if life == self._life:
            return
        carried = list(self._carried)
        for start in range(0, len(carried), CHUNK):
            some = carried[start : start + CHUNK]
            applied = (await self._ask([receipt.batch for _since, _shard, receipt in some])).applied
            for found in some:
                _since, shard, receipt = found
                if receipt.batch not in applied:
                    self._carried.remove(found)
                    self._receipts[shard][receipt.batch] = receipt
        self._life = life

    async def _ask(self, batches: Sequence[str]) -> Standing:
        standing = await self._load((), batches)
        self._asked_at = time.monotonic()
        return standing

    async def _missing(self, shard: Shard, receipt: Receipt) -> None:
        if receipt.offer is not None:
            try:
                await self._again(receipt.offer)
            except TotalOverflow:
                self._drop(receipt)
            else:
                # What its client has repeated meanwhile, under the same idempotency key, is not among them.
                taken = self._receipts[shard].get(receipt.batch)
                if receipt.views:
                    views = 0 if taken is None else taken.views
                    logger.warning("Redis has lost %d views, and %d were taken on again.", receipt.views, views)
                    self._observe(Flow.RECOVERED, views)
                return
        if receipt.gone_at is None:
            receipt.gone_at = time.monotonic()
        elif time.monotonic() - receipt.gone_at > CARRIED.total_seconds():
            if receipt.views:
                logger.error("Redis has lost %d views, and nobody is known to have them any more.", receipt.views)
                self._observe(Flow.LOST, receipt.views)
            self._receipts[shard].pop(receipt.batch, None)
            self._drop(receipt)

    def _drop(self, receipt: Receipt) -> None:
        if receipt.offer is not None:
            self._bytes -= receipt.offer.bytes
            receipt.offer = None

    async def _repeat(self) -> timedelta:
        await self.check()
        if time.monotonic() - self._asked_at > LEARNED.total_seconds():
            await self._ask(())
        return PAUSE
