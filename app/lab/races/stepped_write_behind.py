"""Our write-behind in one process, over a table whose statements are steps.

    load    the rows, and which batches are in the table's ledger
    flush   counts batches that are new to the ledger

What can go wrong: an answer of the table is lost. The library sees that as a database that is away.
"""

from collections.abc import Sequence
from datetime import timedelta

from redis.asyncio import Redis

from app import caching
from app.caching import Batch, Cap, Flusher, Pending, Standing, Target, TargetUnavailable
from app.lab.ours import WriteBehind
from app.lab.races.relayed import trusting
from app.lab.races.stepped_table import SteppedTable


class SteppedWriteBehind(WriteBehind):
    """Write-behind and its flusher. A counter does not expire: `ttl` is ignored."""

    def __init__(self, redis: Redis, table: SteppedTable, prefix: str, ttl: timedelta) -> None:
        self._table = table
        cache, target = trusting(redis), Target(self._load, self._apply, self._salvage)
        counters = caching.WriteBehind(cache, prefix, target, cap=Cap(entries=1000, bytes=2**20))
        # Opened without the receipts that its `async with` starts: the races do not cover data loss in Redis.
        counters._background.open()
        flusher = Flusher(cache, prefix, target, amount=1, interval=timedelta(0))
        super().__init__(counters, flusher)

    async def _load(self, keys: Sequence[str], batches: Sequence[str]) -> Standing:
        try:
            return Standing(*await self._table.standing(keys, batches))
        except OSError as error:
            raise TargetUnavailable(str(error)) from error

    async def _apply(self, batches: Sequence[Batch]) -> int:
        try:
            return await self._table.apply({batch.id: batch.amounts for batch in batches})
        except OSError as error:
            raise TargetUnavailable(str(error)) from error

    async def _salvage(self, entry: Pending, reason: str, deliveries: int) -> tuple[int, int]:
        raise AssertionError(f"Nothing here is refused: {reason}")
