"""Receipts: this process remembers each batch it accepted until the database has it, and accepts lost ones again.

    each second    which entries have left the stream? → which of those does the ledger have? → a batch in neither is
                   lost: accept it again, from its receipt

Redis may lose what it has confirmed: its last second when its machine crashes (AOF everysec), what a promoted replica
lacks, everything by FLUSHALL. The process that accepted an addition still knows it, and the ledger counts a batch once,
no matter how often it is accepted. So an addition is lost only if Redis loses it and this process ends, both before the
database has it. (Only the ends can say whether a message has arrived: Saltzer, Reed, Clark, "End-to-End Arguments in
System Design", 1984.)

A database that goes back in time may have lost batches it had counted. So a receipt stays a while longer, and in a new
epoch the ledger is asked again.

What can go wrong: the database is down, and more than `KEPT` bytes are pending. Of the older part only the amount is
kept, and it is reported as lost if Redis loses it. Or Redis loses a batch, and this process cannot reach the database
for a day while others can: the ledger of that time is gone, so the batch is not accepted again but reported as lost.
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
"""Younger entries are not checked: nearly all of them are still in flight."""
CHUNK = 1000
KEPT = 16 * 1024 * 1024
"""The most bytes of batches that are kept in order to accept them again."""
AGAIN = timedelta(seconds=30)
"""How long a receipt stays after the database has its batch. A database that goes back (a standby promoted without the
last commits, a restored dump) may no longer have it."""
IN_HAND = timedelta(seconds=15)
"""A flusher may still hold an entry that has left the stream. If its batch has not reached the database after this
time, it is lost."""


class Receipts:
    """The receipts of one process. `load` returns which of some batches the ledger has."""

    again: Callable[[Shard, Batch], Awaitable[None]]
    """Accepts a batch again. Its receipt returns through `keep`."""

    def __init__(self, cache: Cache, shards: Sequence[Shard], load: Load, observe: ObserveFlow) -> None:
        self._cache, self._identity = cache, cache.identity
        self._load, self._observe = load, observe
        self._present = script(cache.redis, "present")
        self._receipts: dict[Shard, dict[str, Receipt]] = {shard: {} for shard in shards}
        self._kept: deque[Receipt] = deque()
        """Those that still have their batch. These batches take `_bytes`."""
        self._bytes = 0
        self._applied: deque[tuple[float, Shard, Receipt]] = deque()
        """Those that the database has, each with the time since when that is known."""
        self._life = self._identity.life
        """The life of Redis, and so the epoch, in which the database had them."""
        self._asked_at = -math.inf
        self._repeating = Repeating("receipts", self._repeat, lambda: None)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Checks the receipts repeatedly while the block lasts, and once more at its end."""
        try:
            async with self._repeating.running():
                yield
        finally:
            try:
                await self.check(young=timedelta(0))
            except Exception as error:  # noqa: BLE001  # Whatever `load` raises, other parts still have to stop.
                logger.warning("At the end the fate of an amount of %d is unknown: %s", self.amount, error)

    @property
    def alive(self) -> bool:
        """Whether the receipts are being checked."""
        return self._repeating.alive

    @property
    def trouble(self) -> Exception | None:
        """Why the checks repeatedly fail, None if they do not."""
        return self._repeating.trouble

    @property
    def amount(self) -> int:
        """How much was accepted here and is not known to be in the database."""
        return sum(receipt.amount for receipts in self._receipts.values() for receipt in receipts.values())

    def keep(self, shard: Shard, batch: Batch, entry: str | None, amount: int) -> None:
        """Records that a batch was accepted as this entry. None means that nothing in it was new."""
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
        """Records that a batch may have been accepted: its answer was lost, and its clients got an error.

        For additions without an idempotency key nothing more is done. Those with one must not be lost from here on:

            an addition is accepted, and the answer is lost
                                                its client repeats it: the key is known, so the client is told that it
                                                was accepted
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
        """Checks once for batches that Redis has lost. Raises CacheUnavailable, TargetUnavailable and BacklogFull."""
        await self._ask_again()
        failed: CacheError | None = None
        for shard, receipts in self._receipts.items():
            due = [one for one in receipts.values() if one.accepted_at <= time.monotonic() - young.total_seconds()]
            try:
                for start in range(0, len(due), CHUNK):
                    if not await self._look_for(shard, due[start : start + CHUNK]):
                        break  # These are all pending, and so are those that came after them.
            except (BacklogFull, CacheUnavailable) as error:
                if isinstance(error, CacheUnavailable) and not is_no_stream(error.__cause__):
                    raise
                failed = error  # The other shards are still checked.
        while self._kept and self._kept[0].batch is None:
            self._kept.popleft()
        if failed is not None:
            raise failed

    async def _look_for(self, shard: Shard, some: Sequence[Receipt]) -> bool:
        """Checks some receipts, and returns whether any of their entries has left the stream."""
        # First the stream, then the ledger: an entry leaves the stream only once its batch is in the ledger.
        # This also asks a Redis that is no longer believed: what was accepted there is flushed from there.
        question = ([shard.stream], [word for receipt in some for word in (receipt.entry, receipt.id)])
        present = await run(self._present, lambda life: question, self._cache, drains=True)
        gone = [receipt for receipt, there in zip(some, present, strict=True) if not there]
        if not gone:
            return False
        standing = await self._ask([receipt.id for receipt in gone])
        floor = standing.floor.timestamp() * 1000
        for receipt in gone:
            if receipt.id in standing.applied:
                self._receipts[shard].pop(receipt.id, None)
                self._applied.append((time.monotonic(), shard, receipt))
            elif self._cache.writable:  # If not writable, the entry may be pending in the previous Redis.
                if ulid_time(receipt.id) < floor:
                    self._drop(receipt)  # Whether it was counted is unknown: accepted again, it could count twice.
                await self._missing(shard, receipt)
        return True

    async def _ask_again(self) -> None:
        """In a new epoch, checks whether the database still has the batches that it had."""
        while self._applied and time.monotonic() - self._applied[0][0] > AGAIN.total_seconds():
            self._drop(self._applied.popleft()[2])
        life = self._identity.life
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
                # Additions that a client has meanwhile repeated under the same idempotency key are not part of it.
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
                logger.error("Redis has lost an amount of %d, which cannot be recovered.", receipt.amount)
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
