"""An idempotency key counts once per page, with one record per call. The size of these records is bounded."""

import asyncio
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis

from app.caching import BacklogFull, Cap, KeysFull, KeyUnreadable, KeyWorn
from app.caching.write_behind.acceptance import KEY, MOST_BATCHES
from app.caching.write_behind.batch_id import ulid
from app.caching.write_behind.shard import COUNT, number
from tests.caching.write_behind.views import HOME, Views, batch_of, stored, sums

DAY = timedelta(hours=24)
PAGES = {f"page {place}": place % 7 + 1 for place in range(4000)}
"""Two entries in each shard, and more than one call accepts."""
HERE = [f"here {place}" for place in range(1000) if number(f"here {place}") == HOME.number]
"""Pages of one shard."""


async def records(redis: Redis, views: Views) -> int:
    """Returns how many bytes Redis uses for the records of keys, by its own account."""
    names = [name async for name in redis.scan_iter("views:*") if b":key:" in name or b":call:" in name]
    async with redis.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.memory_usage(name)
        return sum(await pipeline.execute())


def bound(views: Views, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Sets how many bytes of records each shard may hold."""
    monkeypatch.setattr(views.counters._acceptance, "cap", Cap(records=COUNT * size))


# One record per call.


async def test_a_call_with_many_pages_leaves_one_record_per_shard(
    views: Views, redis: Redis, sql: asyncpg.Connection
) -> None:
    before = await redis.dbsize()
    for call in range(3):
        await views.counters.add_many(PAGES, f"call-{call}")
    left = [name async for name in redis.scan_iter("*")]
    assert len([name for name in left if b":call:" in name]) == 3 * COUNT
    assert not [name for name in left if b":key:" in name]
    assert len(left) - before < 200, "Guards of batches, and no more."
    assert await records(redis, views) < 3 * (len(PAGES) * 12 + COUNT * 2000)
    for call in range(3):
        await views.counters.add_many(PAGES, f"call-{call}")
    await views.carry()
    assert await sums(sql) == {page: 3 * count for page, count in PAGES.items()}


async def test_a_partly_accepted_call_is_completed_by_its_repetition(
    views: Views, redis: Redis, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One entry fills a shard, and the call has several entries for each."""
    monkeypatch.setattr(views.counters._acceptance, "cap", Cap(entries=COUNT, bytes=2**27))
    for _ in range(10):
        try:
            await views.counters.add_many(PAGES, "call")
        except BacklogFull:
            await views.carry()
    await views.carry()
    assert await sums(sql) == PAGES


async def test_calls_that_share_a_batch_are_recorded_separately(views: Views, sql: asyncpg.Connection) -> None:
    await asyncio.gather(
        views.counters.add("home", 1, "a"),
        views.counters.add_many({"home": 2, "news": 2}, "a"),
        views.counters.add_many({"home": 4, "news": 4}, "b"),
        views.counters.add_many({"home": 8, "news": 8}, "b"),
        views.counters.add_many({"home": 16, "news": 16}),
        views.counters.add("news", 32, "b"),
    )
    await views.carry()
    assert await sums(sql) == {"home": 1 + 4 + 16, "news": 2 + 4 + 16}


async def test_records_of_the_earlier_version_with_one_per_page_are_recognized(
    views: Views, redis: Redis, sql: asyncpg.Connection
) -> None:
    """The earlier version has accepted a part of a call; the call is repeated to this version."""
    for page in HERE[:100]:
        await redis.set(HOME.record(page, "call"), batch_of(), px=round(KEY / timedelta(milliseconds=1)))
    await views.counters.add_many(dict.fromkeys(HERE, 1), "call")
    await views.counters.add(HERE[0], 1, "call")
    await views.carry()
    assert await sums(sql) == dict.fromkeys(HERE[100:], 1)


async def test_a_batch_that_redis_lost_is_accepted_again_under_its_own_record(
    views: Views, redis: Redis, sql: asyncpg.Connection
) -> None:
    """The stream is lost, and the records are not."""
    await views.counters.add_many(dict.fromkeys(HERE, 1), "call")
    await redis.delete(HOME.stream)
    await views.check()
    await views.counters.add_many(dict.fromkeys(HERE, 1), "call")
    await views.carry()
    assert await sums(sql) == dict.fromkeys(HERE, 1)


async def test_a_page_is_remembered_for_a_day_whatever_else_its_key_is_used_for(views: Views, redis: Redis) -> None:
    await views.counters.add_many({"home": 1}, "call")
    call = HOME.call("call")
    found: Any = await redis.hgetall(call)
    ((batch, word),) = found.items()
    old = ulid((views.cache.clock.now()) - (DAY + timedelta(minutes=1)) / timedelta(milliseconds=1))
    await redis.hset(call, old, word)
    await redis.hdel(call, batch.decode())
    assert await views.total() == 1
    await views.counters.add_many({"home": 1}, "call")
    assert await views.total() == 2, "A day has gone."
    assert old.encode() not in await redis.hkeys(call)
    await views.counters.add_many({"home": 1}, "call")
    assert await views.total() == 2
    assert DAY / timedelta(milliseconds=1) - 60_000 < await redis.pttl(call) <= DAY / timedelta(milliseconds=1)


# The bound on records.


async def test_the_counted_size_of_records_is_at_least_their_real_size(views: Views, redis: Redis) -> None:
    for place, page in enumerate(HERE[:40]):
        await views.counters.add(page, 1, f"key-{place}".ljust(place + 10, "x"))
        await views.counters.add_many(dict.fromkeys(HERE[: 6 * place + 1], 1), f"call-{place}")
    backlog = await views.counters.backlog()
    used = await records(redis, views)
    assert used <= backlog.record_bytes <= 3 * used, (used, backlog.record_bytes)


async def test_at_the_bound_on_records_only_views_with_a_new_key_are_refused(
    views: Views, redis: Redis, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All additions come together, and go in one call."""
    await views.counters.add("home", 1, "known")
    await views.counters.add_many({"home": 2}, "known-call")
    bound(views, monkeypatch, (await views.counters.backlog()).record_bytes)
    answers = await asyncio.gather(
        views.counters.add("home", 4),
        views.counters.add("home", 8, "new"),
        views.counters.add("home", 16, "known"),
        views.counters.add_many({"home": 32}, "new-call"),
        views.counters.add_many({"home": 64}, "known-call"),
        views.counters.add_many({"home": 128}),
        return_exceptions=True,
    )
    assert [isinstance(answer, KeysFull) for answer in answers] == [False, True, False, True, False, False]
    assert "nothing with a new one is accepted" in str(answers[1])
    assert (await views.counters.backlog()).record_fill == 1
    await views.carry()
    assert await stored(sql) == 1 + 2 + 4 + 128


async def test_views_that_redis_lost_are_accepted_again_at_the_bound_on_records(
    views: Views, redis: Redis, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was accepted before."""
    await views.counters.add("home", 1, "known")
    bound(views, monkeypatch, 1)
    await redis.delete(HOME.stream, HOME.record("home", "known"))
    await views.check()
    await views.carry()
    assert await stored(sql) == 1


async def test_records_older_than_a_day_free_their_room(
    views: Views, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds, _ = await redis.time()
    hour = int(seconds) // 3600
    bound(views, monkeypatch, 1000)
    await redis.hset(HOME.keyed, mapping={str(hour - 23): 500, str(hour - 3): 400})
    assert (await views.counters.backlog()).record_bytes == 900
    with pytest.raises(KeysFull):
        await views.counters.add("home", 1, "new")
    await redis.hset(HOME.keyed, mapping={str(hour - 26): 500})
    await redis.hdel(HOME.keyed, str(hour - 23))
    assert (await views.counters.backlog()).record_bytes == 400
    await views.counters.add("home", 1, "new")
    assert str(hour - 26).encode() not in await redis.hkeys(HOME.keyed)
    assert 0 < await redis.ttl(HOME.keyed) <= 48 * 3600


async def test_a_key_used_for_very_many_calls_is_worn_out_and_other_keys_are_not(views: Views, redis: Redis) -> None:
    """Reading its large record would hold up all other clients of Redis. Pages already in the record are still
    recognized. All additions go in one call, in which other keys are new, too.
    """
    await views.counters.add_many({"home": 1}, "call")
    await redis.hset(HOME.call("call"), mapping={batch_of(): b"12345678" for _ in range(MOST_BATCHES)})
    await views.counters.add_many({"home": 1}, "call")
    # Entries of more than a day ago do not count.
    await redis.hset(HOME.call("other"), mapping={batch_of(DAY * 2): b"12345678" for _ in range(MOST_BATCHES)})
    answers = await asyncio.gather(
        views.counters.add_many({HERE[0]: 1}, "call"),
        views.counters.add(HERE[1], 1, "call"),
        views.counters.add_many({HERE[0]: 1}, "other"),
        views.counters.add("home", 1, "other"),
        return_exceptions=True,
    )
    assert [isinstance(answer, Exception) for answer in answers] == [True, False, False, False]
    assert isinstance(answers[0], KeyWorn)
    assert str(answers[0]).startswith("The idempotency key call was used 100 times for keys that it was not used for")
    assert [await views.total(page) for page in ("home", HERE[0], HERE[1])] == [2, 1, 1]


# Corrupt records.


LIST, TEXT = ("RPUSH", "LRANGE", "0", "-1"), ("SET", "GET")


@pytest.mark.parametrize(
    ("name", "put"),
    [(HOME.call("rotten"), LIST), (HOME.record("home", "rotten"), LIST), (HOME.record("home", "rotten"), TEXT)],
    ids=["a list for a call", "a list", "a text"],
)
async def test_a_corrupt_record_fails_only_the_calls_with_its_key(
    views: Views, redis: Redis, sql: asyncpg.Connection, name: str, put: tuple[str, ...]
) -> None:
    """Somebody has put something else there. Additions of the same tick are accepted by the same script."""
    write, read, *of_it = put
    await redis.execute_command(write, name, "theirs")  # type: ignore[no-untyped-call]
    add, add_many = views.counters.add, views.counters.add_many
    answers = await asyncio.gather(
        add("home", 1),
        add("home", 2, "rotten"),
        add("home", 4, "good"),
        add_many({"home": 8, HERE[0]: 8}, "rotten"),
        add_many({"home": 16, HERE[0]: 16}, "good-call"),
        add_many({"home": 32}),
        add("home", 64, "good"),
        return_exceptions=True,
    )
    assert [type(answer) is KeyUnreadable for answer in answers] == [False, True, False, True, False, False, False]
    assert not [answer for answer in answers if isinstance(answer, Exception) and type(answer) is not KeyUnreadable]
    assert str(answers[1]) == (
        f"What was counted under the idempotency key rotten cannot be told: what Redis has as {name} is no such record."
    )
    await views.carry()
    assert await stored(sql) == 1 + 4 + 16 + 32
    left = await redis.execute_command(read, name, *of_it)  # type: ignore[no-untyped-call]
    assert left in (b"theirs", [b"theirs"])


async def test_lost_views_are_accepted_again_even_if_their_records_are_corrupt(
    views: Views, redis: Redis, sql: asyncpg.Connection
) -> None:
    """The stream is lost, and the records are corrupt. Nobody else would look after the rest."""
    await views.counters.add("home", 1, "rotten")
    await views.counters.add_many({"home": 2}, "rotten-call")
    await views.counters.add("home", 4, "good")
    await redis.delete(HOME.stream)
    for name in (HOME.record("home", "rotten"), HOME.call("rotten-call")):
        await redis.delete(name)
        await redis.rpush(name, "theirs")
    await views.check()
    await views.carry()
    assert await stored(sql) == 1 + 2 + 4


@pytest.mark.parametrize("rot", ["a text", "no number", "no hour", "no whole number", "too many digits"])
async def test_a_corrupt_count_of_records_loses_no_view(
    views: Views, redis: Redis, sql: asyncpg.Connection, rot: str
) -> None:
    seconds, _ = await redis.time()
    hour = str(int(seconds) // 3600)
    await redis.delete(HOME.keyed)
    spoilt = {"no number": (hour, "x"), "no hour": ("x", "1"), "no whole number": (hour, "1.5")}
    if rot == "a text":
        await redis.set(HOME.keyed, "theirs")
    else:
        await redis.hset(HOME.keyed, *spoilt.get(rot, (hour, "9" * 30)))
    assert (await views.counters.backlog()).record_bytes == 0
    assert not [
        answer
        for answer in await asyncio.gather(
            views.counters.add("home", 1, "visit"), views.counters.add_many({"home": 2}, "call"), return_exceptions=True
        )
        if isinstance(answer, Exception)
    ]
    assert 200 < (await views.counters.backlog()).record_bytes < 1000
    await views.counters.add("home", 1, "visit")
    await views.carry()
    assert await stored(sql) == 3
