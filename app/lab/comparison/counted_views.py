"""Our write-behind in the comparison: each key is a page of `app/page_views/`, in the lab's schema.

What can go wrong: see `app.caching.WriteBehind`.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from redis.asyncio import Redis

from app import caching
from app.caching import Batch, Cap, Flusher, Refused, Salvage, Standing, TargetUnavailable
from app.caching.shards import ulid_time
from app.errors import DatabaseUnavailable, Uncountable
from app.lab.comparison.stores import Stores
from app.lab.ours import WriteBehind
from app.page_views.models import Counted, Unreadable
from app.page_views.parking import Parking
from app.page_views.store import PageViewStore


class CountedViews(WriteBehind):
    """Write-behind over page views. Its pages begin with `prefix`.

    `waiting_redis` is the flusher's own; `asked` is told how many totals each load asked for.
    """

    def __init__(
        self,
        redis: Redis,
        waiting_redis: Redis,
        name: str,
        prefix: str,
        *,
        views: PageViewStore,
        flushed_views: PageViewStore,
        parking: Parking,
        stores: Stores,
        asked: Callable[[int], None],
    ) -> None:
        self._views, self._flushed_views, self._parking, self._asked = views, flushed_views, parking, asked
        counters = caching.WriteBehind(
            redis,
            name,
            self._load,
            cap=Cap(entries=40_000, bytes=128 * 2**20),
            clock=stores.clock,
            breaker=stores.breaker,
            observe=lambda flow, count: None,
        )
        flusher = Flusher(
            waiting_redis,
            name,
            self._apply,
            self._salvage,
            views=1000,
            interval=timedelta(seconds=0.2),
            breaker=stores.breaker,
            observe=lambda flow, count: None,
        )
        super().__init__(counters, flusher, prefix)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The strategy and its flusher, and what that could not count at once."""
        async with super().running(), self._parking.running():
            yield

    async def _load(self, pages: Sequence[str], batches: Sequence[str]) -> Standing:
        self._asked(len(pages))
        try:
            return Standing(*await self._views.standing(pages, [(batch, _made_at(batch)) for batch in batches]))
        except DatabaseUnavailable as error:
            raise TargetUnavailable(str(error)) from error

    async def _apply(self, batches: Sequence[Batch]) -> int:
        try:
            return await self._flushed_views.apply([_counted(batch) for batch in batches])
        except DatabaseUnavailable as error:
            raise TargetUnavailable(str(error)) from error
        except Uncountable as error:
            raise Refused(str(error)) from error

    async def _salvage(self, one: Salvage) -> tuple[int, int]:
        batch = Unreadable(one.place, one.raw) if one.batch is None else _counted(one.batch)
        try:
            return await self._flushed_views.salvage(batch, one.reason, one.deliveries)
        except DatabaseUnavailable as error:
            raise TargetUnavailable(str(error)) from error


def _counted(batch: Batch) -> Counted:
    return Counted(batch.id, _made_at(batch.id), batch.deltas)


def _made_at(batch: str) -> datetime:
    return datetime.fromtimestamp(ulid_time(batch) / 1000, UTC)
