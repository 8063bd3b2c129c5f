"""Receipts: what this process has accepted, until the database has it. What Redis loses meanwhile is accepted again.

    each second    which entries have left the stream? → which of those does the ledger have? → what neither has is
                   lost: accept it again, from its receipt

Redis may lose what it has confirmed: its last second when its machine crashes (AOF everysec), what the replica did not
have when it takes over, everything by FLUSHALL. The process that accepted an addition still knows of it, and the ledger
counts a batch once, however often it is accepted. So an addition is lost only if Redis forgets it and this process
ends, too, before the database has it. (Whether a message has arrived only the ends can say: Saltzer, Reed, Clark,
"End-to-End Arguments in System Design", 1984.)

A database that goes back in time may have lost what it had counted. So a receipt stays a while longer, and in a new
epoch the ledger is asked again.

What can go wrong: the database is away, and more waits than `KEPT` bytes. Of the older part only the amount is kept,
and it is reported as lost when Redis loses it. And what Redis loses while this process cannot reach the database for a
day, and others can: the ledger of that time is gone, so it is not accepted again, and reported as lost, too.
"""

import logging
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

from ..cache import Cache
from ..errors import BacklogFull, CacheError, CacheUnavailable, TotalOverflow
from ..observing import Flow, ObserveFlow
from ..repeating import Repeating
from .batch import Batch
from .batch_clock import LEARNED
from .batch_id import ulid_time
from .receipt import NOWHERE, Receipt
from .scripts import run, script
from .shard import Shard
from .streams import is_no_stream
from .target import Load, Standing

logger = logging.getLogger(__name__)

PAUSE = timedelta(seconds=1)
YOUNG = timedelta(seconds=1)
"""Nobody looks for a younger entry: nearly all of them are on their way."""
CHUNK = 1000
KEPT = 16 * 1024 * 1024
"""So many bytes of batches are kept, to be accepted again."""
AGAIN = timedelta(seconds=30)
"""A receipt stays for so long when the database has its batch: a database that goes back (a standby that is promoted
without the last commits, a dump that is restored) may not have it any more."""
IN_HAND = timedelta(seconds=15)
"""An entry that is gone may be in the hands of a flusher that read it before: what has not come to the database after
so long is lost."""


class Receipts:
    """The receipts of one process. `load` answers which of some batches the ledger has."""

    again: Callable[[Shard, Batch], Awaitable[None]]
    """Accepts a batch again; its receipt comes back by `keep`."""

    def __init__(self, cache: Cache, shards: Sequence[Shard], load: Load, observe: ObserveFlow) -> None:
        self._load, self._observe = load, observe
        self._breaker = cache.breaker
        self._present = script(cache.redis, "present")
        self._receipts: dict[Shard, dict[str, Receipt]] = {shard: {} for shard in shards}
        self._kept: deque[Receipt] = deque()
        """Those that have their batch yet, and take `_bytes` with it."""
        self._bytes = 0
        self._applied: deque[tuple[float, Shard, Receipt]] = deque()
        """Those that the database has, and since when that is known."""
        self._life = self._breaker.life
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
            except Exception as error:  # noqa: BLE001  # Whatever `load` raises: the others have to stop, too.
                logger.warning("At the end nobody knows what has become of an amount of %d: %s", self.amount, error)

    @property
    def alive(self) -> bool:
        """Whether somebody looks after them."""
        return self._repeating.alive

    @property
    def trouble(self) -> Exception | None:
        """Why it finds nothing out, round after round; None, when it does."""
        return self._repeating.trouble

    @property
    def amount(self) -> int:
        """How much was accepted here, and is not known to be in the database."""
        return sum(receipt.amount for receipts in self._receipts.values() for receipt in receipts.values())

    def keep(self, shard: Shard, batch: Batch, entry: str | None, amount: int) -> None:
        """A batch was accepted, as this entry; None: nothing in it was new."""
        receipts = self._receipts[shard]
        before = receipts.pop(batch.id, None)
        if before is not None:
            self._drop(before)
        if entry is None:
            return
        if before is None or not before.amount:
            self._observe(Flow.ACCEPTED, amount)
        self._hold(shard, batch, entry, amount)

    def doubt(self, shard: Shard, batch: Batch) -> None:
        """A batch was accepted, or not: its answer was lost, and its clients got an error.

        What has no idempotency key is left at that. What has one must not be lost from here on:

            an addition is accepted, and the answer is lost
                                                its client repeats it: the key is known, and the client learns that all
                                                is well
            Redis loses the addition, and the key with it
        """
        if batch.keyed and batch.id not in self._receipts[shard]:
            self._hold(shard, batch.only_keyed, NOWHERE, 0)

    def _hold(self, shard: Shard, batch: Batch, entry: str, amount: int) -> None:
        receipt = Receipt(batch.id, entry, amount, batch, time.monotonic())
        self._receipts[shard][batch.id] = receipt
        self._kept.append(receipt)
        self._bytes += batch.bytes
        while self._bytes > KEPT:
            self._drop(self._kept.popleft())

    async def check(self, young: timedelta = YOUNG) -> None:
        """Looks once for what Redis has lost. Raises CacheUnavailable, TargetUnavailable and BacklogFull."""
        await self._ask_again()
        failed: CacheError | None = None
        for shard, receipts in self._receipts.items():
            due = [one for one in receipts.values() if one.accepted_at <= time.monotonic() - young.total_seconds()]
            try:
                for start in range(0, len(due), CHUNK):
                    if not await self._look_for(shard, due[start : start + CHUNK]):
                        break  # These wait, and so do those that came after them.
            except (BacklogFull, CacheUnavailable) as error:
                if isinstance(error, CacheUnavailable) and not is_no_stream(error.__cause__):
                    raise
                failed = error  # The other shards' are looked after all the same.
        while self._kept and self._kept[0].batch is None:
            self._kept.popleft()
        if failed is not None:
            raise failed

    async def _look_for(self, shard: Shard, some: Sequence[Receipt]) -> bool:
        """Whether any of them has left the stream."""
        # First the stream, and then the ledger: an entry leaves the one when it is in the other.
        # That also of a Redis that is not believed any more: what was accepted there is flushed from there.
        question = ([shard.stream], [word for receipt in some for word in (receipt.entry, receipt.id)])
        present = await run(self._present, lambda life: question, self._breaker, drains=True)
        gone = [receipt for receipt, there in zip(some, present, strict=True) if not there]
        if not gone:
            return False
        standing = await self._ask([receipt.id for receipt in gone])
        floor = standing.floor.timestamp() * 1000
        for receipt in gone:
            if receipt.id in standing.applied:
                self._receipts[shard].pop(receipt.id, None)
                self._applied.append((time.monotonic(), shard, receipt))
            elif self._breaker.writable:  # Where nothing is accepted, it may wait in the Redis of before.
                if ulid_time(receipt.id) < floor:
                    self._drop(receipt)  # Nobody knows whether it was counted: accepted again, it could count twice.
                await self._missing(shard, receipt)
        return True

    async def _ask_again(self) -> None:
        """Looks, in a new epoch, whether the database still has what it had."""
        while self._applied and time.monotonic() - self._applied[0][0] > AGAIN.total_seconds():
            self._drop(self._applied.popleft()[2])
        life = self._breaker.life
        if life == self._life:
            return
        applied = list(self._applied)
        for start in range(0, len(applied), CHUNK):
            some = applied[start : start + CHUNK]
            still = (await self._ask([receipt.id for _since, _shard, receipt in some])).applied
            for found in some:
                _since, shard, receipt = found
                if receipt.id not in still:
                    self._applied.remove(found)
                    self._receipts[shard][receipt.id] = receipt
        self._life = life

    async def _ask(self, batches: Sequence[str]) -> Standing:
        standing = await self._load((), batches)
        self._asked_at = time.monotonic()
        return standing

    async def _missing(self, shard: Shard, receipt: Receipt) -> None:
        if receipt.batch is not None:
            try:
                await self.again(shard, receipt.batch)
            except TotalOverflow:
                self._drop(receipt)
            else:
                # What its client has repeated meanwhile, under the same idempotency key, is not part of it.
                kept = self._receipts[shard].get(receipt.id)
                if receipt.amount:
                    amount = 0 if kept is None else kept.amount
                    logger.warning("Redis has lost an amount of %d, and %d was accepted again.", receipt.amount, amount)
                    self._observe(Flow.RECOVERED, amount)
                return
        if receipt.gone_at is None:
            receipt.gone_at = time.monotonic()
        elif time.monotonic() - receipt.gone_at > IN_HAND.total_seconds():
            if receipt.amount:
                logger.error("Redis has lost an amount of %d, and nobody is known to have it any more.", receipt.amount)
                self._observe(Flow.LOST, receipt.amount)
            self._receipts[shard].pop(receipt.id, None)
            self._drop(receipt)

    def _drop(self, receipt: Receipt) -> None:
        if receipt.batch is not None:
            self._bytes -= receipt.batch.bytes
            receipt.batch = None

    async def _repeat(self) -> timedelta:
        await self.check()
        if time.monotonic() - self._asked_at > LEARNED.total_seconds():
            await self._ask(())
        return PAUSE
