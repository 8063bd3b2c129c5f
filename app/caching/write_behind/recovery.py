"""Recovery: what Redis has lost is accepted again, from the receipts of this process.

    each second    which entries have left the stream? → which of those does the ledger have? → a batch in neither is
                   lost: accept it again

Redis may lose what it has confirmed: its last second when its machine crashes (AOF everysec), what a promoted replica
lacks, everything by FLUSHALL. The process that accepted an addition still knows it, and the ledger counts a batch once,
no matter how often it is accepted. So an addition is lost only if Redis loses it and this process ends, both before the
database has it. (Only the ends can say whether a message has arrived: Saltzer, Reed, Clark, "End-to-End Arguments in
System Design", 1984.)

A database that goes back in time may have lost batches it had counted. So a receipt stays a while longer, and in a new
epoch the ledger is asked again.

What can go wrong: Redis loses a batch, and this process cannot reach the database for a day while others can: the
ledger of that time is gone, so the batch is not accepted again but reported as lost.
"""

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

from ..errors import BacklogFull, CacheError, CacheUnavailable, TotalOverflow
from ..observing import Flow, ObserveFlow
from ..repeating import Repeating
from .acceptance import Acceptance
from .batch_clock import LEARNED
from .batch_id import ulid_time
from .place import Place
from .receipt import Receipt
from .receipts import Receipts
from .scripts import run, script
from .shard import Shard
from .streams import is_no_stream
from .target import Load, Standing

logger = logging.getLogger(__name__)

PAUSE = timedelta(seconds=1)
YOUNG = timedelta(seconds=1)
"""Younger entries are not checked: nearly all of them are still in flight."""
CHUNK = 1000
AGAIN = timedelta(seconds=30)
"""How long a receipt stays after the database has its batch. A database that goes back (a standby promoted without the
last commits, a restored dump) may no longer have it."""
IN_HAND = timedelta(seconds=15)
"""A flusher may still hold an entry that has left the stream. If its batch has not reached the database after this
time, it is lost."""


class Recovery:
    """One task that checks `receipts`. `load` returns which of some batches the ledger has."""

    def __init__(
        self,
        places: Sequence[Place],
        receipts: Receipts,
        acceptance: Acceptance,
        load: Load,
        observe: ObserveFlow,
    ) -> None:
        self._receipts, self._acceptance, self._load, self._observe = receipts, acceptance, load, observe
        self._places, self._present = places, script(places[0].draining, "present")
        self._applied: deque[tuple[float, Shard, Receipt]] = deque()
        """Those that the database has, each with the time since when that is known."""
        self._lives = [place.life for place in places]
        """The life of each Redis, and so the epoch, in which the database had them."""
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
                logger.warning("At the end the fate of an amount of %d is unknown: %s", self._receipts.amount, error)

    @property
    def alive(self) -> bool:
        """Whether the receipts are being checked."""
        return self._repeating.alive

    @property
    def trouble(self) -> Exception | None:
        """Why the checks repeatedly fail, None if they do not."""
        return self._repeating.trouble

    async def check(self, young: timedelta = YOUNG) -> None:
        """Checks once for batches that Redis has lost. Raises CacheUnavailable, TargetUnavailable and BacklogFull."""
        await self._ask_again()
        checks = (self._check(place, time.monotonic() - young.total_seconds()) for place in self._places)
        for failed in await asyncio.gather(*checks, return_exceptions=True):
            if failed is not None:
                raise failed

    async def _check(self, place: Place, moment: float) -> None:
        """Checks the receipts of one place: another one that is silent does not delay that."""
        failed: CacheError | None = None
        for shard in place.shards:
            due = self._receipts.older(shard, moment)
            try:
                for start in range(0, len(due), CHUNK):
                    if not await self._look_for(place, shard, due[start : start + CHUNK]):
                        break  # These are all pending, and so are those that came after them.
            except (BacklogFull, CacheUnavailable) as error:
                if isinstance(error, CacheUnavailable) and not is_no_stream(error.__cause__):
                    raise
                failed = error  # The other shards are still checked.
        if failed is not None:
            raise failed

    async def _look_for(self, place: Place, shard: Shard, some: Sequence[Receipt]) -> bool:
        """Checks some receipts, and returns whether any of their entries has left the stream."""
        # First the stream, then the ledger: an entry leaves the stream only once its batch is in the ledger.
        # This also asks a Redis that is no longer believed: what was accepted there is flushed from there.
        question = ([shard.stream], [word for receipt in some for word in (receipt.entry, receipt.id)])
        present = await run(self._present, lambda life: question, place, drains=True)
        gone = [receipt for receipt, there in zip(some, present, strict=True) if not there]
        if not gone:
            return False
        standing = await self._ask([receipt.id for receipt in gone])
        floor = standing.floor.timestamp() * 1000
        for receipt in gone:
            if receipt.id in standing.applied:
                self._receipts.remove(shard, receipt)
                self._applied.append((time.monotonic(), shard, receipt))
            elif place.writable:  # If not writable, the entry may be pending in the previous Redis.
                if ulid_time(receipt.id) < floor:
                    self._receipts.drop(
                        receipt
                    )  # Whether it was counted is unknown: accepted again, it could count twice.
                await self._missing(shard, receipt)
        return True

    async def _ask_again(self) -> None:
        """In a new epoch, checks whether the database still has the batches that it had."""
        while self._applied and time.monotonic() - self._applied[0][0] > AGAIN.total_seconds():
            self._receipts.drop(self._applied.popleft()[2])
        lives = [place.life for place in self._places]
        changed = [
            place for place, life, before in zip(self._places, lives, self._lives, strict=True) if life != before
        ]
        shards = {shard for place in changed for shard in place.shards}
        applied = [found for found in self._applied if found[1] in shards]
        for start in range(0, len(applied), CHUNK):
            some = applied[start : start + CHUNK]
            still = (await self._ask([receipt.id for _since, _shard, receipt in some])).applied
            for found in some:
                _since, shard, receipt = found
                if receipt.id not in still:
                    self._applied.remove(found)
                    self._receipts.put_back(shard, receipt)
        self._lives = lives

    async def _ask(self, batches: Sequence[str]) -> Standing:
        standing = await self._load((), batches)
        self._asked_at = time.monotonic()
        return standing

    async def _missing(self, shard: Shard, receipt: Receipt) -> None:
        if receipt.batch is not None:
            try:
                await self._acceptance.accept_again(shard, receipt.batch)
            except TotalOverflow:
                self._receipts.drop(receipt)
            else:
                # Additions that a client has meanwhile repeated under the same idempotency key are not part of it.
                kept = self._receipts.get(shard, receipt.id)
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
            self._receipts.remove(shard, receipt)
            self._receipts.drop(receipt)

    async def _repeat(self) -> timedelta:
        await self.check()
        if time.monotonic() - self._asked_at > LEARNED.total_seconds():
            await self._ask(())
        return PAUSE
