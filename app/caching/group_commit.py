"""Group commit: while one call is under way for a shard, the additions that come meanwhile gather for the next one.

One call for each addition would cost a round trip each; one call at a time costs the first a round trip, and the others
the rest of it. Databases commit like this (DeWitt et al., "Implementation Techniques for Main Memory Database Systems",
SIGMOD 1984).

What can go wrong: a call that fails, fails for all its additions.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from .background import Background
from .errors import CacheError, CacheUnavailable, TotalOverflow
from .shards import Shard, number, shards

MOST_PAGES = 500
MOST_ADDITIONS = 5_000
"""What one call takes at most: more would hold up everybody else in Redis."""


@dataclass(slots=True, eq=False)
class Addition:
    """So many views of a page, which is told the page's total, or None where that is not cached."""

    page: str
    count: int
    key: str | None
    told: "asyncio.Future[int | None]"
    many: bool = False
    """Whether it is one of many of one call, which have a record together."""


@dataclass(frozen=True, slots=True)
class Refusals:
    """Some additions cannot be taken on, so nothing of their batch was: why, by the record of page and key."""

    why: Mapping[str, CacheError]


Taken = Mapping[str, int | None]
"""The totals of the pages of a batch that was taken on."""
Accept = Callable[[Mapping[Shard, Sequence[Addition]]], Awaitable[Mapping[Shard, Taken | Refusals | Exception]]]
"""Takes batches on, each or nothing of it, and answers their totals, or why it has not."""


class GroupCommit:
    """Additions, by shard. The calls run in `background`: who goes away does not stop them."""

    def __init__(self, name: str, accept: Accept, background: Background) -> None:
        self._accept, self._background = accept, background
        self._waiting: dict[Shard, list[Addition]] = {shard: [] for shard in shards(name)}
        self._shards = list(self._waiting)
        self._under_way = False

    def ask(self, page: str, count: int, key: str | None, *, many: bool = False) -> "asyncio.Future[int | None]":
        """The page's total, when the addition was taken on, perhaps as one of `many` of its call."""
        told: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        self._waiting[self._shards[number(page)]].append(Addition(page, count, key, told, many))
        if not self._under_way:
            self._under_way = True
            self._background.start(self._drain())
        return told

    async def _drain(self) -> None:
        try:
            while any(self._waiting.values()):
                # Whoever was told a moment ago may have more to add, and then it comes with this call.
                await asyncio.sleep(0)
                batches = {shard: _batch(waiting) for shard, waiting in self._waiting.items() if waiting}
                for shard, batch in batches.items():
                    del self._waiting[shard][: len(batch)]
                await self._commit(batches)
        finally:
            self._under_way = False

    async def _commit(self, batches: Mapping[Shard, Sequence[Addition]]) -> None:
        try:
            answers = await self._accept(batches)
        except Exception as error:  # noqa: BLE001  # Whatever it is: nobody else would tell those who wait.
            answers = dict.fromkeys(batches, error)
        others: dict[Shard, list[Addition]] = {}
        for shard, batch in batches.items():
            answer = answers[shard]
            if isinstance(answer, TotalOverflow):
                # Nothing was taken on. One page that is full must not refuse the others.
                refused = set(_too_many([addition for addition in batch if addition.page == answer.page]))
                _tell(refused, answer)
                others[shard] = [addition for addition in batch if addition not in refused]
            elif isinstance(answer, Refusals):
                # Nor must what is wrong with one key, or with new ones, refuse those that have another one, or none.
                others[shard] = []
                for addition in batch:
                    why = addition.key and answer.why.get(shard.key(addition.page, addition.key))
                    if isinstance(why, CacheError):
                        _tell([addition], why)
                    else:
                        others[shard].append(addition)
            elif isinstance(answer, Exception):
                _tell(batch, answer)
                if isinstance(answer, CacheUnavailable):
                    # Redis is away. Those who wait behind would learn it one call after the other.
                    _tell(self._waiting[shard], answer)
                    self._waiting[shard].clear()
            else:
                for addition in batch:
                    if not addition.told.done():
                        addition.told.set_result(answer[addition.page])
        others = {shard: batch for shard, batch in others.items() if batch}
        if others:
            await self._commit(others)


def _tell(additions: Iterable[Addition], error: Exception) -> None:
    for addition in additions:
        if not addition.told.done():
            addition.told.set_exception(error)


def _too_many(of_page: Sequence[Addition]) -> Sequence[Addition]:
    """Which additions to a page that would be too full are told so: one that outweighs all others, or else all."""
    largest = max(of_page, key=lambda addition: addition.count)
    return [largest] if 2 * largest.count > sum(addition.count for addition in of_page) else of_page


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
