"""Intake: one call takes the additions of a moment on, all or none, and may be repeated without harm.

    take        a new batch: guard, idempotency keys, caps, one entry in the stream, and the totals that are cached
    take again  the same batch, after Redis has lost it: whoever has it already refuses it, by its guard or the ledger

What can go wrong: `CacheUnavailable`, when the batch may have been taken on or not; `BacklogFull` and `TotalOverflow`,
when it was not.
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from redis.asyncio import Redis

from app.caching.breaker import Breaker
from app.caching.clock import RedisClock
from app.caching.errors import BacklogFull, CacheUnavailable, TotalOverflow
from app.caching.group_commit import Addition
from app.caching.scripts import run, script
from app.caching.shards import COUNT, Shard, ulid
from app.caching.totals import TOTAL

KEY = timedelta(hours=24)
GUARD = timedelta(minutes=10)
"""A guard outlives every repetition of its batch."""


@dataclass(frozen=True, slots=True)
class Cap:
    """How many entries may wait for the database, and how many bytes: in all shards together."""

    entries: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Offer:
    """A batch that wants to be taken on: its `items` are (page, delta, key), by place, from 1; key 0 is none."""

    shard: Shard
    batch: str
    pages: Sequence[str]
    keys: Sequence[str]
    items: Sequence[int]

    @property
    def bytes(self) -> int:
        """What it takes to keep it, more or less."""
        return sum(map(len, self.pages)) + sum(map(len, self.keys)) + 100 * len(self.pages) + 24 * len(self.items)

    @property
    def keyed(self) -> "Offer":
        """The part of it that has idempotency keys."""
        triples = [self.items[start : start + 3] for start in range(0, len(self.items), 3)]
        return replace(self, items=[number for triple in triples if triple[2] for number in triple])


@dataclass(frozen=True, slots=True)
class Taken:
    """An offer that was taken on: as which entry of the stream (None: nothing in it was new), and how many views."""

    offer: Offer
    entry: str | None
    views: int


class Intake:
    """The calls that take batches on. `taken` is told of each, and `doubtful` of those whose answer was lost."""

    def __init__(
        self,
        redis: Redis,
        cap: Cap,
        *,
        clock: RedisClock,
        breaker: Breaker,
        taken: Callable[[Taken], None],
        doubtful: Callable[[Offer], None],
    ) -> None:
        self._cap, self._clock, self._breaker = cap, clock, breaker
        self._taken, self._doubtful = taken, doubtful
        self._script = script(redis, "accept")

    async def take(self, shard: Shard, additions: Sequence[Addition]) -> Mapping[str, int | None]:
        """Takes additions of one shard on, and answers the totals of their pages, None where none is cached."""
        offer = _offer(shard, ulid(self._clock.now()), additions)
        totals = await self._call(offer, again=False)
        return {page: None if total is None else int(total) for page, total in zip(offer.pages, totals, strict=True)}

    async def take_again(self, offer: Offer) -> None:
        """Takes on what Redis has lost."""
        await self._call(offer, again=True)

    async def _call(self, offer: Offer, *, again: bool) -> Sequence[bytes | None]:
        runs: list[str | None] = []

        def question(run: str | None) -> tuple[list[str], list[str | int]]:
            runs.append(run)
            shard = offer.shard
            totals = (shard.total(page, run) for page in offer.pages)
            names = [shard.stream, shard.backlog, shard.bytes, shard.guard(offer.batch), shard.epoch, *totals]
            # When this is no longer the first time, the batch may have been counted, and forgotten by Redis.
            epoch = secrets.token_hex(8) if again or len(runs) > 1 else ""
            most = (max(1, self._cap.entries // COUNT), max(1, self._cap.bytes // COUNT))
            limits = (offer.batch, _ms(GUARD), _ms(KEY), _ms(TOTAL), *most, epoch)
            return [*names, *offer.keys], [*limits, len(offer.pages), *offer.pages, *offer.items]

        try:
            answer: Any = await run(self._script, question, self._breaker)
        except CacheUnavailable:
            if runs:
                self._doubtful(offer)
            raise
        if answer == b"full":
            raise BacklogFull(
                f"{self._cap.entries:,} entries or {self._cap.bytes:,} bytes of page views wait for the database; no "
                "more are taken."
            )
        if isinstance(answer, int):
            raise TotalOverflow(offer.pages[answer - 1])
        entry, views = answer[0].decode().split()
        self._taken(Taken(offer, None if entry == "-" else entry, int(views)))
        totals: Sequence[bytes | None] = answer[1]
        return totals


def _offer(shard: Shard, batch: str, additions: Sequence[Addition]) -> Offer:
    pages = {page: place for place, page in enumerate(dict.fromkeys(addition.page for addition in additions), 1)}
    keys: dict[str, int] = {}
    items: list[int] = []
    for addition in additions:
        place = 0
        if addition.key is not None:
            place = keys.setdefault(shard.key(addition.page, addition.key), len(keys) + 1)
        items += (pages[addition.page], addition.count, place)
    return Offer(shard, batch, list(pages), list(keys), items)


def _ms(duration: timedelta) -> int:
    return round(duration / timedelta(milliseconds=1))
