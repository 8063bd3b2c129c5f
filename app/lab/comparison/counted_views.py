"""Our write-behind in the comparison: each key is a page of `app/page_views/`, in the lab's schema.

What can go wrong: see `app.caching.WriteBehind`.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from redis.asyncio import Redis

from app import caching
from app.caching import Flusher, Standing
from app.lab.comparison.stores import Stores
from app.lab.ours import WriteBehind
from app.page_views.parking import Parking
from app.page_views.store import PageViewStore
from app.page_views.target import target


class CountedViews(WriteBehind):
    """Write-behind over page views. Its pages begin with `prefix`.

    `waiting_redis` is the flusher's own; `asked` is called with the number of totals in each load.
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
        of_page_views, self._parking = target(views, flushed_views), parking

        async def load(pages: Sequence[str], batches: Sequence[str]) -> Standing:
            asked(len(pages))
            return await of_page_views.load(pages, batches)

        cache = stores.cache(redis)
        counters = caching.WriteBehind(cache, name, replace(of_page_views, load=load))
        super().__init__(counters, Flusher(cache, name, of_page_views, redis=waiting_redis), prefix)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Runs the strategy and its flusher, and retries what the flusher could not count at once."""
        async with super().running(), self._parking.running():
            yield
