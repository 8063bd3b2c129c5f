"""Group commit: while one call is under way for a shard, the additions that come meanwhile gather for the next one.

One call for each addition would cost a round trip each; one call at a time costs the first a round trip, and the others
the rest of it. Databases commit like this (DeWitt et al., "Implementation Techniques for Main Memory Database Systems",
SIGMOD 1984).

What can go wrong: a call that fails, fails for all its additions.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from ..background import Background
from ..errors import CacheError, CacheUnavailable, TotalOverflow
from .countable import check
from .shard import Shard, number

MOST_KEYS = 500
MOST_ADDITIONS = 5_000
"""What one call accepts at most: more would hold up everybody else in Redis."""
SLICE = 500
"""So many additions are made in one turn of the event loop."""


@dataclass(slots=True, eq=False)
class Addition:
    """What one caller adds to a key. `total` becomes the key's total, or None where that is not cached."""

    key: str
    amount: int
    idempotency_key: str | None
    total: "asyncio.Future[int | None]"
    many: bool = False
    """Whether it is one of many of one call, which have a record together."""


@dataclass(frozen=True, slots=True)
class Refusals:
    """Some additions cannot be accepted, so nothing of their batch was: why, by the record of key and idempotency
    key."""

    why: Mapping[str, CacheError]


Answer = Mapping[str, int | None] | Refusals | Exception
"""The totals of the keys of a batch, None where one is not cached; or why it was not accepted."""
Accept = Callable[[Mapping[Shard, Sequence[Addition]]], Awaitable[Mapping[Shard, Answer]]]
"""Accepts additions as one batch for each shard, the whole batch or nothing of it."""


class GroupCommit:
    """Additions, by shard. The calls run in `background`: a caller who goes away does not stop them."""

    def __init__(self, shards: Sequence[Shard], accept: Accept, background: Background) -> None:
        self._accept, self._background = accept, background
        self._waiting: dict[Shard, list[Addition]] = {shard: [] for shard in shards}
        self._shards = list(shards)
        self._under_way = False

    def ask(
        self, key: str, amount: int, idempotency_key: str | None, *, many: bool = False
    ) -> "asyncio.Future[int | None]":
        """The key's total, when the addition was accepted, perhaps as one of `many` of its call.

        Raises CacheUnavailable before and after the `async with`: nobody would look after it, and its end, which waits
        for what was asked, would never come."""
        if not self._background.is_open:
            raise CacheUnavailable("Nothing is accepted outside of the `async with` of these counters.")
        total: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        self._waiting[self._shards[number(key)]].append(Addition(key, amount, idempotency_key, total, many))
        if not self._under_way:
            self._under_way = True
            self._background.start(self._drain())
        return total

    async def ask_many(self, amounts: Mapping[str, int], idempotency_key: str | None) -> None:
        """Returns when all of them were accepted. Raises the first error of those that were not, and ValueError before
        any is sent, when one of them cannot be added."""
        # Ten thousand at once would hold up everybody else in this process for long.
        slices = [list(islice(amounts.items(), start, start + SLICE)) for start in range(0, len(amounts), SLICE)]
        for place, some in enumerate(slices):
            if place:
                await asyncio.sleep(0)
            for key, amount in some:
                check(key, amount, idempotency_key)
        asked: list[asyncio.Future[int | None]] = []
        try:
            for place, some in enumerate(slices):
                if place:
                    await asyncio.sleep(0)
                asked += [self.ask(key, amount, idempotency_key, many=True) for key, amount in some]
            errors: list[CacheError] = []
            for total in asked:  # `gather` would call back for each.
                try:
                    await total
                except CacheError as error:
                    errors.append(error)
            if errors:
                raise errors[0]
        finally:
            for total in asked:
                total.cancel() or total.cancelled() or total.exception()  # It is heard of.

    async def _drain(self) -> None:
        try:
            while any(self._waiting.values()):
                # Whoever got an answer a moment ago may have more to add, and then it comes with this call.
                await asyncio.sleep(0)
                batches = {shard: _first(waiting) for shard, waiting in self._waiting.items() if waiting}
                for shard, batch in batches.items():
                    del self._waiting[shard][: len(batch)]
                await self._commit(batches)
        finally:
            self._under_way = False

    async def _commit(self, batches: Mapping[Shard, Sequence[Addition]]) -> None:
        answers: Mapping[Shard, Answer]
        try:
            answers = await self._accept(batches)
        except Exception as error:  # noqa: BLE001  # Whatever it is: nobody else would raise it for those who wait.
            answers = dict.fromkeys(batches, error)
        others: dict[Shard, list[Addition]] = {}
        for shard, batch in batches.items():
            answer = answers[shard]
            if isinstance(answer, TotalOverflow):
                # Nothing was accepted. One key that is full must not refuse the others.
                refused = set(_too_large([addition for addition in batch if addition.key == answer.key]))
                _fail(refused, answer)
                others[shard] = [addition for addition in batch if addition not in refused]
            elif isinstance(answer, Refusals):
                # Nor must what is wrong with one idempotency key, or with new ones, refuse those that have another one,
                # or none.
                others[shard] = []
                for addition in batch:
                    record = addition.idempotency_key and shard.record(addition.key, addition.idempotency_key)
                    if record and record in answer.why:
                        _fail([addition], answer.why[record])
                    else:
                        others[shard].append(addition)
            elif isinstance(answer, Exception):
                _fail(batch, answer)
                if isinstance(answer, CacheUnavailable):
                    # Redis is away. Those who wait behind would learn it one call after the other.
                    _fail(self._waiting[shard], answer)
                    self._waiting[shard].clear()
            else:
                for addition in batch:
                    if not addition.total.done():
                        addition.total.set_result(answer[addition.key])
        others = {shard: batch for shard, batch in others.items() if batch}
        if others:
            await self._commit(others)


def _fail(additions: Iterable[Addition], error: Exception) -> None:
    for addition in additions:
        if not addition.total.done():
            addition.total.set_exception(error)


def _too_large(of_key: Sequence[Addition]) -> Sequence[Addition]:
    """Which additions to a key that would be too full are refused: one that outweighs all others, or else all."""
    largest = max(of_key, key=lambda addition: addition.amount)
    return [largest] if 2 * largest.amount > sum(addition.amount for addition in of_key) else of_key


def _first(waiting: Sequence[Addition]) -> list[Addition]:
    """As many of the first additions as one call accepts."""
    keys: set[str] = set()
    batch: list[Addition] = []
    for addition in waiting[:MOST_ADDITIONS]:
        keys.add(addition.key)
        if len(keys) > MOST_KEYS:
            break
        batch.append(addition)
    return batch
