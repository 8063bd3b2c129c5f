"""Intake: one call takes the additions of a moment on, all or none, and may be repeated without harm.

    take        a new batch: guard, idempotency keys, caps, one entry in the stream, and the totals that are cached
    take again  the same batch, after Redis has lost it: whoever has it already refuses it, by its guard or the ledger

An idempotency key is known by a record for each call: of one page, or of many, with eight bytes for each of them. What
has no record is counted, so none goes early: where there is no room for more, no more keys are taken (`KeysFull`).

What can go wrong: `CacheUnavailable`, when the batch may have been taken on or not; `BacklogFull`, `TotalOverflow` and
`Refusals` (`KeysFull`, `KeyWorn`, `KeyUnreadable`), when it was not.
"""

import hashlib
import json
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Any

from redis.asyncio import Redis

from .batch_clock import BatchClock
from .breaker import Breaker
from .errors import (
    BacklogFull,
    CacheError,
    CacheUnavailable,
    KeysFull,
    KeyUnreadable,
    KeyWorn,
    TotalOverflow,
)
from .group_commit import Addition, Refusals
from .scripts import run_all, script
from .shards import COUNT, Shard, ulid
from .totals import TOTAL

KEY = timedelta(hours=24)
GUARD = timedelta(minutes=10)
"""A guard outlives every repetition of its batch."""
MOST_BATCHES = 100
"""So many batches of one idempotency key are known in each shard: a client has used it for something new each time."""


@dataclass(frozen=True, slots=True)
class Cap:
    """How many entries may wait for the database, and how many bytes; and how many bytes the idempotency keys of the
    last `KEY` may take: in all shards together."""

    entries: int
    bytes: int
    keys: int = 2**29


@dataclass(frozen=True, slots=True)
class Offer:
    """A batch that wants to be taken on: `sums` are the views without a key, by page; `items` those with one, as [page,
    views, key, call, whether it is one of many], where the places are those in `pages`, `keys` and `calls`, from 1."""

    shard: Shard
    batch: str
    pages: Sequence[str]
    keys: Sequence[str]
    calls: Sequence[str]
    sums: Mapping[str, int]
    items: Sequence[tuple[int, int, int, int, int]]

    @property
    def bytes(self) -> int:
        """What it takes to keep it, more or less."""
        return sum(map(len, self.pages)) + sum(map(len, self.keys)) + 200 * len(self.pages) + 80 * len(self.items)

    @property
    def keyed(self) -> "Offer":
        """The part of it that has idempotency keys."""
        return replace(self, sums={})


@dataclass(frozen=True, slots=True)
class Taken:
    """An offer that was taken on: as which entry of the stream (None: nothing in it was new), and how many views."""

    offer: Offer
    entry: str | None
    views: int


Answer = Mapping[str, int | None] | Refusals | CacheError
"""The totals of the pages of an offer, None where one is not cached; or why it was not taken on."""


class Intake:
    """The calls that take batches on. `taken` is told of each, and `doubtful` of those whose answer was lost."""

    def __init__(
        self,
        redis: Redis,
        cap: Cap,
        *,
        clock: BatchClock,
        breaker: Breaker,
        taken: Callable[[Taken], None],
        doubtful: Callable[[Offer], None],
    ) -> None:
        self._cap, self._clock, self._breaker = cap, clock, breaker
        self._taken, self._doubtful = taken, doubtful
        self._script = script(redis, "accept")

    async def take(self, batches: Mapping[Shard, Sequence[Addition]]) -> Mapping[Shard, Answer]:
        """Takes batches on."""
        offers = [_offer(shard, ulid(self._clock.now()), batch) for shard, batch in batches.items()]
        return dict(zip(batches, await self._call(offers, again=False), strict=True))

    async def take_again(self, offer: Offer) -> None:
        """Takes on what Redis has lost."""
        (answer,) = await self._call([offer], again=True)
        if isinstance(answer, CacheError):
            raise answer

    async def _call(self, offers: Sequence[Offer], *, again: bool) -> Sequence[Answer]:
        asked: set[str] = set()

        def question(offer: Offer, life: str | None) -> tuple[list[str], list[str | int | bytes]]:
            shard = offer.shard
            totals = (shard.total(page, life) for page in offer.pages)
            guard = shard.guard(offer.batch)
            names = [shard.stream, shard.backlog, shard.bytes, guard, shard.epoch, shard.keyed, *totals]
            # When this is no longer the first time, the batch may have been counted, and forgotten by Redis.
            epoch = secrets.token_hex(8) if again or offer.batch in asked else ""
            asked.add(offer.batch)
            most = (max(1, self._cap.entries // COUNT), max(1, self._cap.bytes // COUNT))
            keys = max(1, self._cap.keys // COUNT), ulid(max(0.0, self._clock.now() - _ms(KEY)))[:10]
            words = b"".join(map(_word, offer.pages)) if offer.items else b""
            args: tuple[str | int | bytes, ...] = (offer.batch, *LIFETIMES, *most, epoch, *keys, MOST_BATCHES)
            asked_for = [*args, *map(_json, (offer.pages, offer.sums, offer.items)), words]
            return [*names, *offer.keys, *offer.calls], asked_for

        questions = [partial(question, offer) for offer in offers]
        answers = await run_all(self._script, questions, self._breaker)
        return [
            self._answer(offer, answer, offer.batch in asked) for offer, answer in zip(offers, answers, strict=True)
        ]

    def _answer(self, offer: Offer, answer: Any, asked: bool) -> Answer:
        if isinstance(answer, CacheUnavailable):
            if asked:
                self._doubtful(offer)
            return answer
        if answer == b"full":
            return BacklogFull(
                f"{self._cap.entries:,} entries or {self._cap.bytes:,} bytes of page views wait for the database; no "
                "more are taken."
            )
        if isinstance(answer, int):
            return TotalOverflow(offer.pages[answer - 1])
        if answer[0] == b"refused":
            return self._refusals(offer, zip(answer[1::2], answer[2::2], strict=True))
        entry, views = answer[0].decode().split()
        self._taken(Taken(offer, None if entry == "-" else entry, int(views)))
        return {page: None if total is None else int(total) for page, total in zip(offer.pages, answer[1], strict=True)}

    def _refusals(self, offer: Offer, refused: Iterable[tuple[int, bytes]]) -> Refusals:
        why: dict[str, CacheError] = {}
        for place, word in refused:
            _page, _count, of_record, of_call, _many = offer.items[place - 1]
            record, call = offer.keys[of_record - 1], offer.calls[of_call - 1]
            key = call.removeprefix(offer.shard.call(""))
            if word == b"room":
                size = f"{self._cap.keys:,} bytes"
                why[record] = KeysFull(
                    f"The idempotency keys of a day take {size}; no more views with a new one are taken."
                )
            elif word == b"worn":
                why[record] = KeyWorn(key, MOST_BATCHES)
            else:
                why[record] = KeyUnreadable(key, record if word == b"record" else call)
        return Refusals(why)


def _offer(shard: Shard, batch: str, additions: Sequence[Addition]) -> Offer:
    pages: dict[str, int] = {}
    keys: dict[str, int] = {}
    calls: dict[str, int] = {}
    sums: dict[str, int] = {}
    items: list[tuple[int, int, int, int, int]] = []
    for addition in additions:
        page, count, key = addition.page, addition.count, addition.key
        place = pages.setdefault(page, len(pages) + 1)
        if key is None:
            sums[page] = sums.get(page, 0) + count
        else:
            record = keys.setdefault(shard.key(page, key), len(keys) + 1)
            call = calls.setdefault(shard.call(key), len(calls) + 1)
            items.append((place, count, record, call, int(addition.many)))
    return Offer(shard, batch, list(pages), list(keys), list(calls), sums, items)


def _word(page: str) -> bytes:
    """Eight bytes that tell a page from others: of 10,000 pages two have the same once in 10**11 calls."""
    return hashlib.blake2b(page.encode(), digest_size=8).digest()


def _ms(duration: timedelta) -> int:
    return round(duration / timedelta(milliseconds=1))


LIFETIMES = _ms(GUARD), _ms(KEY), _ms(TOTAL)

_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
