"""Write-behind: the cache accepts additions at once, and the database receives them later.

    read    ask the cache for the total; a total not in the cache is the database's amount plus what is pending
    write   one Redis script records the addition as pending and adds it to the total; `Flusher` does the rest

Use it for many small additions to few rows: a thousand additions may become one row written. Avoid it when a write must
be in the database at once. Never use it for data that must survive the loss of Redis, such as orders.

What can go wrong: without Redis nothing is accepted. An addition whose answer was lost may count. While the database is
down, the backlog grows up to a cap. What Redis loses, this process accepts again (`recovery.py`).
"""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Self

from ..background import Background
from ..cache import Cache
from ..cluster import Cluster
from ..observing import Flow, ObserveFlow, unobserved
from .acceptance import CAP, Acceptance, Cap
from .backlog import Backlog, Waiting
from .batch_clock import BatchClock
from .countable import check, check_key
from .group_commit import GroupCommit
from .places import places
from .receipts import Receipts
from .recovery import Recovery
from .target import Target
from .totals import Total, Totals


class WriteBehind:
    """Counters that are cheap to add to. They work within `async with`."""

    NAME = "write-behind"

    def __init__(
        self, cache: Cache | Cluster, name: str, target: Target, *, cap: Cap = CAP, observe: ObserveFlow = unobserved
    ) -> None:
        where, self._observe = places(cache, name), observe
        clock, self._background, self._open = BatchClock(where[0].clock), Background(), AsyncExitStack()
        self.receipts, self._waiting, load = Receipts(where, observe), Waiting(where), clock.learning(target.load)
        self._acceptance = Acceptance(where, cap, clock, self.receipts)
        self.recovery = Recovery(where, self.receipts, self._acceptance, load, observe)
        self._additions = GroupCommit(where, self._acceptance.accept, self._background)
        self._totals = Totals(where, load, self._background)

    async def __aenter__(self) -> Self:
        for part in (self.recovery.running(), self._background, self._waiting.watched()):
            await self._open.enter_async_context(part)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._open.aclose()

    async def add(self, key: str, amount: int, idempotency_key: str | None = None) -> int | None:
        """Accepts an addition, once for each `idempotency_key`. Returns the key's total, None if it is not cached.
        Raises CacheUnavailable if the outcome is unknown, BacklogFull, KeysFull, TotalOverflow and ValueError."""
        check(key, amount, idempotency_key)
        return await self._additions.ask(key, amount, idempotency_key)

    async def add_many(self, amounts: Mapping[str, int], idempotency_key: str | None = None) -> None:
        """Accepts many additions. Raises what `add` raises if some were not accepted: a repetition completes them."""
        await self._additions.ask_many(amounts, idempotency_key)

    async def get(self, key: str) -> Total:
        """Returns a key's total, pending included. Raises CacheUnavailable, Behind, TargetUnavailable, ValueError."""
        check_key(key)
        self._observe(Flow.READ, 1)
        return await self._totals.get(key)

    async def forget(self, key: str) -> None:
        """Forgets a cached total after its row was changed directly in the database. Raises CacheUnavailable."""
        await self._totals.forget(key)

    async def backlog(self, young: timedelta | None = None) -> Backlog:
        """Returns what is pending. Without `young`, all of it counts as young. Raises CacheUnavailable."""
        return await self._waiting.look(self._acceptance.cap, young)
