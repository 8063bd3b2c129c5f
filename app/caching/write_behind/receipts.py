"""Receipts: this process remembers each batch it accepted until the database has it. `recovery.py` uses them.

    keep     a batch was accepted: its receipt has the batch, so that it can be accepted again
    doubt    the answer was lost: of a batch that may have been accepted, only what has an idempotency key is kept
    drop     a receipt forgets its batch, and keeps the amount

What can go wrong: the database is down, and more than `KEPT` bytes are pending. Of the older part only the amount is
kept, and it is reported as lost if Redis loses it.
"""

import time
from collections import deque
from collections.abc import Sequence

from ..observing import Flow, ObserveFlow
from .batch import Batch
from .place import Place
from .receipt import NOWHERE, Receipt
from .shard import Shard

KEPT = 16 * 1024 * 1024
"""The most bytes of batches that are kept in order to accept them again."""


class Receipts:
    """The receipts of one process, of the batches that are not known to be in the database."""

    def __init__(self, places: Sequence[Place], observe: ObserveFlow) -> None:
        self._observe = observe
        self._receipts: dict[Shard, dict[str, Receipt]] = {shard: {} for place in places for shard in place.shards}
        self._kept: deque[Receipt] = deque()
        """Those that still have their batch. These batches take `_bytes`."""
        self._bytes = 0

    @property
    def amount(self) -> int:
        """How much was accepted here and is not known to be in the database."""
        return sum(receipt.amount for receipts in self._receipts.values() for receipt in receipts.values())

    def older(self, shard: Shard, moment: float) -> list[Receipt]:
        """Returns those of batches that were accepted by then, oldest first."""
        return [receipt for receipt in self._receipts[shard].values() if receipt.accepted_at <= moment]

    def get(self, shard: Shard, batch: str) -> Receipt | None:
        """Returns the receipt of a batch."""
        return self._receipts[shard].get(batch)

    def keep(self, shard: Shard, batch: Batch, entry: str | None, amount: int) -> None:
        """Records that a batch was accepted as this entry. None means that nothing in it was new."""
        receipts = self._receipts[shard]
        before = receipts.pop(batch.id, None)
        if before is not None:
            self.drop(before)
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
            self.drop(self._kept.popleft())

    def put_back(self, shard: Shard, receipt: Receipt) -> None:
        """Records that the database no longer has a batch."""
        self._receipts[shard][receipt.id] = receipt

    def remove(self, shard: Shard, receipt: Receipt) -> None:
        """Records that a batch is in the database, or is lost."""
        self._receipts[shard].pop(receipt.id, None)

    def drop(self, receipt: Receipt) -> None:
        """Drops the batch of a receipt: it cannot be accepted again."""
        if receipt.batch is not None:
            self._bytes -= receipt.batch.bytes
            receipt.batch = None
        while self._kept and self._kept[0].batch is None:
            self._kept.popleft()
