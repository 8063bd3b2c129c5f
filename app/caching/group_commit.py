"""Group commit: while one call is under way for a shard, the additions that come meanwhile gather for the next one.

One call for each addition would cost a round trip each; one call at a time costs the first a round trip, and the others
the rest of it. Databases commit like this (DeWitt et al., "Implementation Techniques for Main Memory Database Systems",
SIGMOD 1984).

What can go wrong: a call that fails, fails for all its additions.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from app.caching.background import Background
from app.caching.errors import CacheUnavailable, TotalOverflow
from app.caching.shards import Shard, number, shards

MOST_PAGES = 500
MOST_ADDITIONS = 5_000
"""What one call takes at most: more would hold up everybody else in Redis."""


@dataclass(frozen=True, slots=True)
class Addition:
    """So many views of a page, which is told the page's total, or None where that is not cached."""

    page: str
    count: int
    key: str | None
    told: "asyncio.Future[int | None]"


@dataclass(slots=True)
class Lane:
    """What waits for the next call of a shard."""

    shard: Shard
    waiting: list[Addition] = field(default_factory=list)
    under_way: bool = False


Accept = Callable[[Shard, Sequence[Addition]], Awaitable[Mapping[str, int | None]]]
"""Takes additions of one shard on, all or none, and answers the totals of their pages."""


class GroupCommit:
    """Additions, by shard. The calls run in `background`: who goes away does not stop them."""

    def __init__(self, name: str, accept: Accept, background: Background) -> None:
        self._accept, self._background = accept, background
        self._lanes = [Lane(shard) for shard in shards(name)]

    def ask(self, page: str, count: int, key: str | None) -> "asyncio.Future[int | None]":
        """The page's total, when the addition was taken on."""
        lane = self._lanes[number(page)]
        addition = Addition(page, count, key, asyncio.get_running_loop().create_future())
        lane.waiting.append(addition)
        if not lane.under_way:
            lane.under_way = True
            self._background.start(self._drain(lane))
        return addition.told

    async def _drain(self, lane: Lane) -> None:
        try:
            while lane.waiting:
                batch = _batch(lane.waiting)
                del lane.waiting[: len(batch)]
                error = await self._commit(lane.shard, batch)
                if error is not None:
                    # Redis is away. Those who wait behind would learn it one call after the other.
                    _tell(lane.waiting, error)
                    lane.waiting.clear()
        finally:
            lane.under_way = False

    async def _commit(self, shard: Shard, batch: Sequence[Addition]) -> CacheUnavailable | None:
        try:
            totals = await self._accept(shard, batch)
        except TotalOverflow as error:
            # Nothing was taken on. One page that is full must not refuse the others.
            _tell([addition for addition in batch if addition.page == error.page], error)
            others = [addition for addition in batch if addition.page != error.page]
            return await self._commit(shard, others) if others else None
        except CacheUnavailable as error:
            _tell(batch, error)
            return error
        except Exception as error:  # noqa: BLE001  # Whatever it is: nobody else would tell those who wait.
            _tell(batch, error)
            return None
        for addition in batch:
            if not addition.told.done():
                addition.told.set_result(totals[addition.page])
        return None


def _tell(additions: Sequence[Addition], error: Exception) -> None:
    for addition in additions:
        if not addition.told.done():
            addition.told.set_exception(error)


def _batch(waiting: Sequence[Addition]) -> list[Addition]:
    """As many of the first additions as one call takes."""
    pages: set[str] = set()
    batch: list[Addition] = []
    for addition in waiting[:MOST_ADDITIONS]:
        pages.add(addition.page)
        if len(pages) > MOST_PAGES:
            break
        batch.append(addition)
    return batch
