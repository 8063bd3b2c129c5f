"""Accepted additions count once, and never exceed the caps."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis

from app.caching import BacklogFull, Batch, Cap, Flow, TotalOverflow
from app.caching.write_behind.acceptance import GUARD, KEY, batch_of
from app.caching.write_behind.group_commit import Addition, Refusals
from app.caching.write_behind.shard import Shard
from tests.caching.write_behind.views import HOME, Views, stored
from tests.caching.write_behind.views import batch_of as new_id

FULL = 2**53 - 1
EMPTY = (0, 0)


@dataclass(frozen=True, slots=True)
class Accepted:
    """An accepted batch: its entry (None: nothing was new), and its amount."""

    entry: str | None
    amount: int


@pytest.fixture
def accepted(views: Views, monkeypatch: pytest.MonkeyPatch) -> list[Accepted]:
    """The accepted batches, recorded in place of receipts."""
    accepted: list[Accepted] = []

    def keep(shard: Shard, batch: Batch, entry: str | None, amount: int) -> None:
        accepted.append(Accepted(entry, amount))

    monkeypatch.setattr(views.counters.receipts, "keep", keep)
    return accepted


def new_batch(*additions: tuple[str, int, str | None]) -> Batch:
    """Returns a batch with these keys, amounts, and idempotency keys."""
    total = asyncio.get_running_loop().create_future()
    return batch_of(new_id(), [Addition(*addition, total) for addition in additions])


async def accept(views: Views, batch: Batch) -> Sequence[int | None]:
    """Accepts a batch, for the first time or again, and returns its totals."""
    (answer,) = await views.counters._acceptance._call([(HOME, batch)], again=False)
    if isinstance(answer, Exception):
        raise answer
    assert not isinstance(answer, Refusals)
    return list(answer.values())


async def waiting(redis: Redis) -> list[dict[str, int]]:
    """Returns the deltas of the pending entries."""
    entries: Any = await redis.xrange(HOME.stream)
    return [json.loads(fields[b"deltas"]) for _id, fields in entries]


async def counted(redis: Redis) -> tuple[int, int]:
    """Returns how many views and bytes are pending, according to the counters."""
    views, size = await redis.mget(HOME.backlog, HOME.bytes)
    return int(views or 0), int(size or 0)


async def measured(redis: Redis) -> tuple[int, int]:
    """Returns the same, measured in the stream."""
    entries: Any = await redis.xrange(HOME.stream)
    deltas = [fields[b"deltas"] for _id, fields in entries]
    return sum(sum(json.loads(each).values()) for each in deltas), sum(map(len, deltas))


def cap(views: Views, monkeypatch: pytest.MonkeyPatch, *, entries: int = 10_000, size: int = 2**20) -> None:
    """Sets the caps of each shard."""
    monkeypatch.setattr(views.counters._acceptance, "cap", Cap(entries=4 * entries, bytes=4 * size))


async def test_at_the_cap_in_bytes_nothing_more_is_accepted_until_a_flush(
    views: Views, redis: Redis, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    cap(views, monkeypatch, size=30)
    for _ in range(3):  # Each needs 10 bytes: {"home":1}
        await views.counters.add("home", 1)
    assert await counted(redis) == (3, 30)
    with pytest.raises(BacklogFull, match="or 120 bytes wait"):
        await views.counters.add("home", 1, "click-1")
    assert (await views.counters.backlog()).bytes == 30
    assert await counted(redis) == await measured(redis)
    await views.carry()
    assert await counted(redis) == EMPTY
    await views.counters.add("home", 1, "click-1")
    await views.carry()
    assert await stored(sql) == 4


async def test_at_the_cap_in_entries_nothing_is_changed(
    views: Views, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    cap(views, monkeypatch, entries=1)
    assert await views.total() == 0
    assert await views.counters.add("home", 1) == 1
    before = await redis.dbsize()
    with pytest.raises(BacklogFull, match="4 entries"):
        await views.counters.add("home", 1, "click-1")
    assert (await redis.dbsize(), await views.total(), views.counters.receipts.amount) == (before, 1, 1)


async def test_a_repeated_batch_at_the_cap_is_answered(
    views: Views, redis: Redis, accepted: list[Accepted], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The repeated batch is the one that filled the backlog; its answer was lost."""
    cap(views, monkeypatch, entries=1)
    filled = new_batch(("home", 2, None))
    assert await accept(views, filled) == await accept(views, filled) == [None]
    assert accepted[0] == accepted[1]
    with pytest.raises(BacklogFull):
        await accept(views, new_batch(("home", 2, None)))
    assert await waiting(redis) == [{"home": 2}]


async def test_views_are_accepted_again_after_a_full_stream_was_emptied_by_hand(
    views: Views, redis: Redis, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An eviction removes the stream, or somebody trims it. The counters still include what it held."""
    cap(views, monkeypatch, size=10)
    await views.counters.add("home", 1)
    with pytest.raises(BacklogFull):
        await views.counters.add("home", 1)
    await redis.delete(HOME.stream)
    await views.counters.add("home", 1)
    await views.carry()
    assert await stored(sql) == 1
    assert await counted(redis) == EMPTY


async def test_the_size_of_the_backlog_is_exact_during_a_partial_flush(views: Views, redis: Redis) -> None:
    for page in ("home", "über", "a/b", 'with "quotes"', "a\nb"):
        await accept(views, new_batch((page, 7, None), ("home", 1, None)))
        assert await counted(redis) == await measured(redis)
    some = views.new_flusher(amount=10**9)
    some._held = (await some._gathering.read(0.001))[:2]
    await some.round()
    assert await redis.xlen(HOME.stream) == 3
    assert await counted(redis) == await measured(redis)
    await redis.xgroup_destroy(HOME.stream, "flushers")
    await views.carry(views.new_flusher())
    assert await counted(redis) == EMPTY
    assert not await redis.exists(HOME.backlog, HOME.bytes)


@pytest.mark.parametrize("rot", ["no number", "no whole number", "too many digits", "a list"])
@pytest.mark.parametrize("counter", ["backlog", "bytes"])
async def test_a_corrupt_backlog_counter_is_rebuilt_and_loses_no_view(
    views: Views, redis: Redis, sql: asyncpg.Connection, counter: str, rot: str
) -> None:
    """Somebody has overwritten the counter, before a batch is accepted or before an entry is removed."""
    name = HOME.backlog if counter == "backlog" else HOME.bytes

    async def spoil() -> None:
        await redis.delete(name)
        texts = {"no number": "x", "no whole number": "1.5", "too many digits": "9" * 5000}
        await (redis.set(name, texts[rot]) if rot in texts else redis.rpush(name, "theirs"))

    await views.counters.add("home", 1)
    await spoil()
    assert (await views.counters.backlog()).oldest is not None
    assert await views.counters.add("home", 2) is None
    assert await redis.xlen(HOME.stream) == 2
    assert await counted(redis) == await measured(redis)
    some = views.new_flusher(amount=10**9)
    some._held = (await some._gathering.read(0.001))[:1]
    await spoil()
    await some.round()
    assert (await views.counters.backlog()).oldest is not None
    await views.counters.add("home", 4)
    assert await counted(redis) == await measured(redis)
    await redis.xgroup_destroy(HOME.stream, "flushers")
    await views.carry(views.new_flusher())
    assert await counted(redis) == EMPTY
    assert (await stored(sql), views.flow[Flow.FLUSHED]) == (7, 7)


async def test_a_repeated_batch_counts_once(views: Views, redis: Redis, accepted: list[Accepted]) -> None:
    """Its guard recognizes it, even after it was flushed, and whatever its keys are."""
    assert await views.total() == 0
    batch = new_batch(("home", 2, "click-1"), ("home", 3, None), ("news", 1, None))
    assert await accept(views, batch) == await accept(views, batch) == [5, None]
    assert await waiting(redis) == [{"home": 5, "news": 1}]
    await views.carry()
    assert await accept(views, batch) == [5, None]
    assert await waiting(redis) == []
    assert len({(each.entry, each.amount) for each in accepted}) == 1


async def test_a_guard_outlives_the_repetitions_of_its_batch_and_then_expires(
    views: Views, redis: Redis, accepted: list[Accepted]
) -> None:
    batch = new_batch(("home", 2, "click-1"))
    await accept(views, batch)
    left = await redis.pttl(HOME.guard(batch.id)), await redis.pttl(HOME.record("home", "click-1"))
    for milliseconds, lifetime in zip(left, (GUARD, KEY), strict=True):
        assert lifetime - timedelta(minutes=5) < timedelta(milliseconds=milliseconds) <= lifetime


async def test_an_idempotency_key_counts_once_per_page_within_and_across_batches(
    views: Views, redis: Redis, accepted: list[Accepted]
) -> None:
    await accept(views, new_batch(("home", 2, "click-1"), ("home", 9, "click-1"), ("news", 4, "click-1")))
    await accept(views, new_batch(("home", 9, "click-1"), ("home", 1, "click-2")))
    await accept(views, new_batch(("home", 9, "click-1"), ("news", 9, "click-1")))
    assert await waiting(redis) == [{"home": 2, "news": 4}, {"home": 1}]
    assert [(each.entry is None, each.amount) for each in accepted] == [(False, 6), (False, 1), (True, 0)]


async def test_a_batch_that_overflows_one_total_changes_nothing(
    views: Views, redis: Redis, accepted: list[Accepted]
) -> None:
    await redis.set(HOME.total("home", views.cache.identity.run), FULL)
    before = await redis.dbsize()
    with pytest.raises(TotalOverflow, match="home"):
        await accept(views, new_batch(("news", 1, "click-1"), ("home", 1, "click-1")))
    assert (await redis.dbsize(), await waiting(redis), accepted) == (before, [], [])


async def test_a_batch_still_in_the_stream_is_not_accepted_again(
    views: Views, redis: Redis, accepted: list[Accepted]
) -> None:
    batch = new_batch(("home", 2, None))
    await accept(views, batch)
    generation = await redis.get(HOME.generation)
    await views.counters._acceptance.accept_again(HOME, batch)
    assert await waiting(redis) == [{"home": 2}]
    assert accepted[0] == accepted[1]
    assert await redis.get(HOME.generation) == generation, "Nothing has changed."


async def test_a_batch_whose_entry_is_gone_is_accepted_again_only_explicitly(
    views: Views, redis: Redis, accepted: list[Accepted]
) -> None:
    """To a repetition, a missing entry means that it was flushed."""
    batch = new_batch(("home", 2, None))
    await accept(views, batch)
    await redis.xtrim(HOME.stream, maxlen=0, approximate=False)
    await accept(views, batch)
    assert await waiting(redis) == []
    await views.counters._acceptance.accept_again(HOME, batch)
    await views.counters._acceptance.accept_again(HOME, batch)
    assert await waiting(redis) == [{"home": 2}]
    assert accepted[0].entry == accepted[1].entry
    assert accepted[1].entry != accepted[2].entry
    assert accepted[2].entry == accepted[3].entry


async def test_a_batch_without_anything_new_is_not_accepted_again(
    views: Views, redis: Redis, accepted: list[Accepted]
) -> None:
    await accept(views, new_batch(("home", 2, "click-1")))
    known = new_batch(("home", 2, "click-1"))
    await accept(views, known)
    await redis.delete(HOME.record("home", "click-1"))  # Its guard recognizes the batch anyway.
    await views.counters._acceptance.accept_again(HOME, known)
    assert await waiting(redis) == [{"home": 2}]
    assert accepted[-1].entry is None


@pytest.mark.parametrize("count", [10**14 + 1, FULL])
async def test_very_large_counts_are_exact(views: Views, redis: Redis, sql: asyncpg.Connection, count: int) -> None:
    assert await views.total() == 0
    assert await views.counters.add("home", count) == count
    assert (await views.counters.backlog()).amount == count
    await views.carry()
    assert await stored(sql) == await views.total() == count
    assert views.flow[Flow.DEAD] == 0


async def test_an_addition_extends_a_total_and_a_doubtful_total_is_dropped(
    views: Views, redis: Redis, accepted: list[Accepted]
) -> None:
    """A batch is accepted, and its answer is lost · Redis loses the batch, but not the total · the batch comes again"""
    assert await views.total() == 0
    total = HOME.total("home", views.cache.identity.run)
    await redis.pexpire(total, 5_000)
    offered = new_batch(("home", 2, None))
    assert await accept(views, offered) == [2]
    assert await redis.pttl(total) > 5_000
    await redis.delete(HOME.stream, HOME.guard(offered.id))
    (answer,) = await views.counters._acceptance._call([(HOME, offered)], again=True)
    assert answer == {"home": None}
    assert await redis.get(total) is None
