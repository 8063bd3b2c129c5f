"""Group commit: while a call is in flight, the additions that arrive meanwhile gather for the next call.

One call for each addition would cost each a round trip. With one call at a time, the first addition waits one round
trip, and the others wait for the rest of it and then for their own. Databases commit in this way (DeWitt et al.,
"Implementation Techniques for Main Memory Database Systems", SIGMOD 1984).

What can go wrong: a failed call fails all of its additions.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from ..background import Background
from ..errors import CacheError, CacheUnavailable, TotalOverflow
from .countable import check
from .place import Place
from .shard import Shard, number

MOST_KEYS = 500
MOST_ADDITIONS = 5_000
"""The most keys and additions that one call accepts. More would block all other clients of Redis."""
SLICE = 500
"""How many additions are made in one turn of the event loop."""


@dataclass(slots=True, eq=False)
class Addition:
    """What one caller adds to a key. `total` resolves to the key's total, or to None if that is not cached."""

    key: str
    amount: int
    idempotency_key: str | None
    total: "asyncio.Future[int | None]"
    many: bool = False
    """Whether it belongs to a call with many additions, which share one record."""


@dataclass(frozen=True, slots=True)
class Refusals:
    """Some additions cannot be accepted, so nothing of their batch was accepted. `why` has the reasons, by the record
    of key and idempotency key."""

    why: Mapping[str, CacheError]


Answer = Mapping[str, int | None] | Refusals | Exception
"""The totals of the keys of a batch, None for a total that is not cached; or why the batch was not accepted."""
Accept = Callable[[Mapping[Shard, Sequence[Addition]]], Awaitable[Mapping[Shard, Answer]]]
"""Accepts additions as one batch for each shard: the whole batch or nothing of it."""


class GroupCommit:
    """The waiting additions, by shard. Each place has one call at a time: one that is silent delays no other. The calls
    run in `background`, so a caller that goes away does not stop them."""

    def __init__(self, places: Sequence[Place], accept: Accept, background: Background) -> None:
        self._accept, self._background = accept, background
        self._shards = [shard for place in places for shard in place.shards]
        self._waiting: dict[Shard, list[Addition]] = {shard: [] for shard in self._shards}
        self._together = [place.shards for place in places for _shard in place.shards]
        """For each shard, those of its place."""
        self._under_way: set[int] = set()
        """The numbers of the shards with a call."""

    def ask(
        self, key: str, amount: int, idempotency_key: str | None, *, many: bool = False
    ) -> "asyncio.Future[int | None]":
        """Returns a future of the key's total, which resolves once the addition is accepted. `many` says that the
        addition is one of many in its call.

        Raises CacheUnavailable before and after the `async with`: nothing would supervise the call, and the end of the
        `async with`, which waits for pending calls, would never come."""
        if not self._background.is_open:
            raise CacheUnavailable("Nothing is accepted outside of the `async with` of these counters.")
        total: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        place = number(key)
        self._waiting[self._shards[place]].append(Addition(key, amount, idempotency_key, total, many))
        if place not in self._under_way:
            self._under_way.update(shard.number for shard in self._together[place])
            self._background.start(self._drain(self._together[place]))
        return total

    async def ask_many(self, amounts: Mapping[str, int], idempotency_key: str | None) -> None:
        """Returns when all additions are accepted. Raises the first error if some are not accepted. Raises ValueError,
        before any is sent, if one of them is invalid."""
        # Ten thousand at once would block the event loop for too long.
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
                total.cancel() or total.cancelled() or total.exception()  # Marks its exception as retrieved.

    async def _drain(self, shards: Sequence[Shard]) -> None:
        try:
            while any(self._waiting[shard] for shard in shards):
                # A caller that has just got its answer may add more at once: that joins this call.
                await asyncio.sleep(0)
                batches = {shard: _first(waiting) for shard in shards if (waiting := self._waiting[shard])}
                for shard, batch in batches.items():
                    del self._waiting[shard][: len(batch)]
                await self._commit(batches)
        finally:
            self._under_way.difference_update(shard.number for shard in shards)

    async def _commit(self, batches: Mapping[Shard, Sequence[Addition]]) -> None:
        answers: Mapping[Shard, Answer]
        try:
            answers = await self._accept(batches)
        except Exception as error:  # noqa: BLE001  # Nothing else would pass it on to the waiting callers.
            answers = dict.fromkeys(batches, error)
        others: dict[Shard, list[Addition]] = {}
        for shard, batch in batches.items():
            answer = answers[shard]
            if isinstance(answer, TotalOverflow):
                # Nothing was accepted. One full key must not fail the additions to other keys.
                refused = set(_too_large([addition for addition in batch if addition.key == answer.key]))
                _fail(refused, answer)
                others[shard] = [addition for addition in batch if addition not in refused]
            elif isinstance(answer, Refusals):
                # Nor must a problem with one idempotency key, or with new ones, fail additions that have another one or
                # none.
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
                    # Redis is down. The additions behind these would find that out one call after the other.
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
    """Returns the additions to refuse for a key whose total would overflow: one that outweighs all others, else all."""
    largest = max(of_key, key=lambda addition: addition.amount)
    return [largest] if 2 * largest.amount > sum(addition.amount for addition in of_key) else of_key


def _first(waiting: Sequence[Addition]) -> list[Addition]:
    """Returns as many of the first additions as one call accepts."""
    keys: set[str] = set()
    batch: list[Addition] = []
    for addition in waiting[:MOST_ADDITIONS]:
        keys.add(addition.key)
        if len(keys) > MOST_KEYS:
            break
        batch.append(addition)
    return batch
