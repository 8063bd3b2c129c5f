"""Acceptance: one call accepts a batch of additions, all or none. It may be repeated without harm.

    accept          a new batch: guard, idempotency keys, caps, one entry in the stream, and the cached totals
    accept again    the same batch, after Redis has lost it: the guard or the ledger rejects a batch that is known

Each call with an idempotency key leaves a record. The record of a call with many keys has eight bytes for each of them.
An addition without a record is counted, so no record is dropped early. If there is no room for more records, no
addition with a new idempotency key is accepted (`KeysFull`).

What can go wrong: `CacheUnavailable` if the outcome is unknown; `BacklogFull`, `TotalOverflow` and `Refusals`
(`KeysFull`, `KeyWorn`, `KeyUnreadable`) if the batch was not accepted.
"""

import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

from ..errors import BacklogFull, CacheError, CacheUnavailable, KeysFull, KeyUnreadable, KeyWorn, TotalOverflow
from .batch import Batch, Keyed
from .batch_clock import BatchClock
from .batch_id import ulid
from .group_commit import Addition, Answer, Refusals
from .life import Life
from .place import Place
from .receipts import Receipts
from .scripts import run_all, script
from .shard import COUNT, Shard
from .totals import TOTAL

KEY = timedelta(hours=24)
"""How long an idempotency key is remembered."""
GUARD = timedelta(minutes=10)
"""Lifetime of a guard. It outlives every repetition of the first call. `accept_again` may come later: then only the
ledger rejects a batch that is known."""
MOST_BATCHES = 100
"""The most batches remembered for one idempotency key in each shard. Each batch is a new use of the key."""


@dataclass(frozen=True, slots=True)
class Cap:
    """The most entries and bytes that may be pending, and the most bytes that the records of the idempotency keys of
    the last `KEY` may take: in all shards together."""

    entries: int = 40_000
    bytes: int = 128 * 2**20
    records: int = 512 * 2**20


CAP = Cap()


class Acceptance:
    """The calls that accept batches. `receipts` receives each accepted batch, and each batch whose answer was lost."""

    def __init__(self, places: Sequence[Place], cap: Cap, clock: BatchClock, receipts: Receipts) -> None:
        self._places = {shard: place for place in places for shard in place.shards}
        self.cap, self._clock, self._receipts = cap, clock, receipts
        self._script = script(places[0].redis, "accept")

    async def accept(self, additions: Mapping[Shard, Sequence[Addition]]) -> Mapping[Shard, Answer]:
        """Accepts additions, as one new batch for each shard. These shards are in one place."""
        batches = [(shard, batch_of(ulid(self._clock.now()), some)) for shard, some in additions.items()]
        return dict(zip(additions, await self._call(batches, again=False), strict=True))

    async def accept_again(self, shard: Shard, batch: Batch) -> None:
        """Accepts a batch that Redis has lost."""
        (answer,) = await self._call([(shard, batch)], again=True)
        if isinstance(answer, CacheError):
            raise answer

    async def _call(self, batches: Sequence[tuple[Shard, Batch]], *, again: bool) -> Sequence[Answer]:
        asked: set[str] = set()

        def question(shard: Shard, batch: Batch, life: Life) -> tuple[list[str], list[str | int | bytes]]:
            # After the first time, the batch may already have been counted and forgotten by Redis.
            generation = secrets.token_hex(8) if again or batch.id in asked else ""
            asked.add(batch.id)
            most = max(1, self.cap.entries // COUNT), max(1, self.cap.bytes // COUNT)
            records = max(1, self.cap.records // COUNT), ulid(max(0.0, self._clock.now() - _ms(KEY)))[:10]
            names = [shard.stream, shard.backlog, shard.bytes, shard.guard(batch.id), shard.generation, shard.keyed]
            names += [shard.total(key, life.name) for key in batch.amounts]
            args: list[str | int | bytes]
            args = [batch.id, *LIFETIMES, *most, generation, *records, MOST_BATCHES, life.tag]
            args += [_json(list(batch.amounts))]
            return _with_keyed(shard, batch, names, args)

        questions = [partial(question, shard, batch) for shard, batch in batches]
        answers = await run_all(self._script, questions, self._places[batches[0][0]])
        return [
            self._answer(shard, batch, answer, batch.id in asked)
            for (shard, batch), answer in zip(batches, answers, strict=True)
        ]

    def _answer(self, shard: Shard, batch: Batch, answer: Any, asked: bool) -> Answer:
        if isinstance(answer, CacheUnavailable):
            if asked:
                self._receipts.doubt(shard, batch)
            return answer
        if answer == b"full":
            return BacklogFull(
                f"{self.cap.entries:,} entries or {self.cap.bytes:,} bytes wait for the database; no more are accepted."
            )
        if isinstance(answer, int):
            return TotalOverflow(list(batch.amounts)[answer - 1])
        if answer[0] == b"refused":
            refused = zip(answer[1::2], answer[2::2], strict=True)
            return self._refusals(shard, ((batch.keyed[place - 1], why) for place, why in refused))
        entry, amount = answer[0].decode().split()
        self._receipts.keep(shard, batch, None if entry == "-" else entry, int(amount))
        totals = zip(batch.amounts, answer[1], strict=True)
        return {key: None if total is None else int(total) for key, total in totals}

    def _refusals(self, shard: Shard, refused: Iterable[tuple[Keyed, bytes]]) -> Refusals:
        why: dict[str, CacheError] = {}
        for (key, _amount, idempotency_key, _many), word in refused:
            record, call = shard.record(key, idempotency_key), shard.call(idempotency_key)
            if word == b"room":
                size = f"{self.cap.records:,} bytes"
                why[record] = KeysFull(
                    f"The idempotency keys of a day take {size}; nothing with a new one is accepted."
                )
            elif word == b"worn":
                why[record] = KeyWorn(idempotency_key, MOST_BATCHES)
            else:
                why[record] = KeyUnreadable(idempotency_key, record if word == b"record" else call)
        return Refusals(why)


def batch_of(id_: str, additions: Iterable[Addition]) -> Batch:
    """Returns a batch of these additions."""
    amounts: dict[str, int] = {}
    keyed: list[Keyed] = []
    for addition in additions:
        key, amount = addition.key, addition.amount
        if addition.idempotency_key is None:
            amounts[key] = amounts.get(key, 0) + amount
        else:
            amounts.setdefault(key, 0)
            keyed.append((key, amount, addition.idempotency_key, addition.many))
    return Batch(id_, amounts, keyed)


def _with_keyed(
    shard: Shard, batch: Batch, names: list[str], args: list[str | int | bytes]
) -> tuple[list[str], list[str | int | bytes]]:
    """Returns the names and args of the accept script, including those of additions with an idempotency key."""
    if not batch.keyed:
        return names, [*args, _json(batch.amounts), "[]", b""]
    places = {key: place for place, key in enumerate(batch.amounts, 1)}
    records: dict[str, int] = {}
    calls: dict[str, int] = {}
    items = []
    for key, amount, idempotency_key, many in batch.keyed:
        record = records.setdefault(shard.record(key, idempotency_key), len(records) + 1)
        call = calls.setdefault(shard.call(idempotency_key), len(calls) + 1)
        items.append((places[key], amount, record, call, int(many)))
    amounts = {key: amount for key, amount in batch.amounts.items() if amount}
    return [*names, *records, *calls], [*args, _json(amounts), _json(items), b"".join(map(_word, batch.amounts))]


def _word(key: str) -> bytes:
    """Returns eight bytes that stand for a key: of 10,000 keys, two have the same bytes once in 10**11 calls."""
    return hashlib.blake2b(key.encode(), digest_size=8).digest()


def _ms(duration: timedelta) -> int:
    return round(duration / timedelta(milliseconds=1))


LIFETIMES = _ms(GUARD), _ms(KEY), _ms(TOTAL)

_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
