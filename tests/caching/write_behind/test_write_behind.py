"""Totals are exact, pending views included, and never go back; every view that was taken on is counted once.

The rules are C1 to C8: a cold page is written without its total; a total counts what is pending; pending batches are
held against the ledger; an acknowledgement begins a new epoch; a seed knows of deliveries; a batch has a guard, and
counts once in a flush; entries that are gone take their totals with them; the ledger knows batches, and not entries.
"""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis
from redis.exceptions import TimeoutError as RedisTimeout

from app.caching import (
    BacklogFull,
    Batch,
    Behind,
    Breaker,
    Cache,
    CacheUnavailable,
    Cap,
    RedisClock,
    TotalOverflow,
    WriteBehind,
    made_at,
    open_redis,
)
from app.caching.write_behind import flusher, gathering, totals
from app.caching.write_behind.shard import GROUP, number
from app.caching.write_behind.totals import TOTAL
from tests.caching.write_behind.views import HOME, Views, batch_of, stored, sums


async def test_a_view_of_a_cold_page_needs_no_database_and_makes_no_total(
    views: Views, redis: Redis, sql: asyncpg.Connection
) -> None:
    """C1. A view creates the total of a page that is not cached: the database's hundred views are gone from it."""
    await sql.execute("INSERT INTO page_views VALUES ('home', 100)")
    views.before.clear()  # The database does not answer.
    assert await views.counters.add("home", 1) is None
    assert await redis.get(HOME.total("home", views.breaker.run)) is None
    views.before.set()
    assert await views.total() == 101
    assert await views.counters.add("home", 2) == 103


async def test_a_total_counts_what_is_pending(views: Views, redis: Redis, sql: asyncpg.Connection) -> None:
    """C2. A total that is read anew from the database alone lacks what waits, and goes back."""
    await views.counters.add("home", 5)
    assert await views.total() == 5
    await redis.delete(HOME.total("home", views.breaker.run))
    assert await views.total() == 5
    assert await stored(sql) == 0
    await views.flusher.round()
    assert await stored(sql) == 5
    assert await views.total() == 5


async def test_a_batch_that_is_committed_and_not_acknowledged_is_not_counted_twice(views: Views, redis: Redis) -> None:
    """C3. The flusher commits · it dies · the total is evicted · a read adds the database and what still waits"""
    await views.counters.add("home", 8)
    await views.commit_without_acknowledging()
    await redis.delete(HOME.total("home", views.breaker.run))
    assert await views.total() == 8
    await views.flusher.round()
    assert await views.total() == 8


async def test_a_total_is_not_built_over_an_acknowledgement(views: Views, sql: asyncpg.Connection) -> None:
    """C4. R looks, and asks the database
                                        a view is accepted, flushed, and acknowledged
    R seeds what it saw: neither the old views of the database nor the stream have the new one
    """
    await views.counters.add("home", 31)
    await views.flusher.round()
    views.behind.clear()
    reader = asyncio.create_task(views.total())
    await views.read.wait()
    await views.counters.add("home", 16)
    await views.flusher.round()
    views.behind.set()
    assert await reader == 47
    assert await views.total() == 47


async def test_a_total_does_not_count_a_delivered_entry_twice(views: Views) -> None:
    """C5. R looks
                                        a view is accepted, and its flush commits, and is not yet acknowledged
    R asks the database, which has the view, and seeds: the stream has it, too
    """
    await views.counters.add("home", 31)
    await views.flusher.round()
    views.before.clear()
    reader = asyncio.create_task(views.total())
    await views.asked.wait()
    await views.counters.add("home", 16)
    await views.commit_without_acknowledging()
    views.before.set()
    assert await reader == 47
    await views.flusher.round()
    assert await views.total() == 47


async def test_a_lost_answer_does_not_count_twice(
    views: Views, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C6. The script has run · its answer is lost · the call is repeated"""
    assert await views.total() == 0
    accept = views.counters._acceptance._script
    answers = 0

    async def lossy(*, keys: Sequence[str], args: Sequence[object]) -> object:
        nonlocal answers
        answer = await accept(keys=keys, args=args)
        answers += 1
        if answers == 1:
            raise RedisTimeout("The answer is lost.")
        return answer

    monkeypatch.setattr(views.counters._acceptance, "_script", lossy)
    assert await views.counters.add("home", 5) == 5
    assert answers == 2
    await views.flusher.round()
    assert await stored(sql) == 5
    assert await views.total() == 5


async def test_two_entries_of_one_batch_in_one_flush_count_once(
    views: Views, redis: Redis, sql: asyncpg.Connection
) -> None:
    """C6. Redis was restored from a copy, and the batch accepted again: the ledger only knows earlier transactions."""
    await views.counters.add("home", 5)
    entries: Any = await redis.xrange(HOME.stream)
    await redis.xadd(HOME.stream, entries[0][1])
    assert await views.flusher.round() == 2
    assert await stored(sql) == 5


async def test_after_a_flush_of_redis_totals_are_not_below_the_database(
    views: Views, redis: Redis, sql: asyncpg.Connection
) -> None:
    """C7. A flusher has gathered views · FLUSHALL · a read builds the total from the database · the flush commits"""
    await views.counters.add("home", 79)
    await views.flusher.round()
    views.gathered.clear()
    await views.counters.add("home", 32)
    views.commit.clear()
    slow = asyncio.create_task(views.flusher.round())
    await views.gathered.wait()
    await redis.flushall()
    await views.new_flusher().round()  # The group is made anew.
    assert await views.total() == 79
    views.commit.set()
    await slow
    assert await stored(sql) == 111
    assert await views.total() == 111


async def test_what_a_dead_flusher_held_is_taken_over_and_counted_once(
    views: Views, redis: Redis, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C8. One flusher dies before COMMIT, and one after it: a third one gets all their entries."""
    monkeypatch.setattr(gathering, "ABANDONED", timedelta(milliseconds=1))
    await views.counters.add("home", 3)
    await views.new_flusher()._gathering.read(0.001)
    await views.counters.add("home", 4)
    await views.commit_without_acknowledging()
    heir = views.new_flusher()
    while await redis.xlen(HOME.stream):
        await heir.round()
    assert await stored(sql) == 7
    assert await views.total() == 7
    assert (await redis.xpending(HOME.stream, GROUP))["pending"] == 0


async def test_a_repeated_key_counts_once_for_its_page(views: Views, sql: asyncpg.Connection) -> None:
    await asyncio.gather(*(views.counters.add("home", 2, "click-1") for _ in range(50)))
    await views.counters.add("home", 2, "click-1")
    await views.counters.add("news", 1, "click-1")
    await views.counters.add_many({"home": 7, "news": 7}, "batch-1")
    await views.counters.add_many({"home": 7, "news": 7, "about": 7}, "batch-1")
    assert [await views.total(page) for page in ("home", "news", "about")] == [9, 8, 7]
    while await views.flusher.round():
        pass
    assert [await stored(sql, page) for page in ("home", "news", "about")] == [9, 8, 7]


async def test_views_of_one_moment_share_a_call(views: Views, redis: Redis, sql: asyncpg.Connection) -> None:
    await redis.config_resetstat()
    await asyncio.gather(*(views.counters.add("home", 1) for _ in range(1000)))
    assert (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"] < 10
    while await views.flusher.round():
        pass
    assert await stored(sql) == 1000


async def test_more_pages_than_an_entry_may_have_are_several_entries(views: Views, sql: asyncpg.Connection) -> None:
    await views.counters.add_many({f"page {place}": place for place in range(1, 5001)})
    backlog = await views.counters.backlog()
    assert backlog.amount == 5000 * 5001 // 2
    assert backlog.oldest is not None
    while await views.flusher.round():
        pass
    assert await sql.fetchval("SELECT sum(views) FROM page_views") == 5000 * 5001 // 2
    backlog = await views.counters.backlog()
    assert (backlog.amount, backlog.oldest) == (0, None)


async def test_at_its_cap_the_backlog_takes_nothing_more(
    views: Views, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views.counters._acceptance, "cap", Cap(entries=8, bytes=2**27))
    await views.counters.add("home", 1)
    await views.counters.add("home", 1)
    with pytest.raises(BacklogFull):
        await views.counters.add("home", 1)
    while await views.flusher.round():
        pass
    assert await stored(sql) == 2
    await views.counters.add("home", 1)


async def test_a_cold_total_behind_a_long_backlog_is_not_told_wrong(
    views: Views, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(totals, "MOST_LOOKED_AT", 1)
    await views.counters.add("home", 1)
    await views.counters.add("home", 1)
    with pytest.raises(Behind, match="More than 1 entries wait"):
        await views.total()
    while await views.flusher.round():
        pass
    assert await views.total() == 2


async def test_what_is_no_batch_becomes_a_dead_letter(views: Views, redis: Redis, sql: asyncpg.Connection) -> None:
    await redis.xadd(HOME.stream, {"batch": "01ARZ3NDEKTSV4RRFFQ69G5FAV", "deltas": b"\xff{"})
    await views.counters.add("home", 1)
    assert await views.total() == 1
    while await views.flusher.round():
        pass
    assert await stored(sql) == 1
    assert await views.total() == 1
    letter = await sql.fetchrow("SELECT entry, batch, reason, deliveries FROM dead_letters")
    assert letter is not None
    assert letter["entry"] == b"\xff{"
    assert letter["batch"].startswith("views:{")
    assert (letter["reason"], letter["deliveries"]) == ("It is no batch.", 1)


async def test_without_redis_nothing_is_accepted(clock: RedisClock, breaker: Breaker, views: Views) -> None:
    async with (
        open_redis("unix:///nowhere/redis.sock", timeout=timedelta(seconds=1), connections=1) as nowhere,
        WriteBehind(Cache(nowhere, clock, breaker), "views", views.target) as counters,
    ):
        for question in (
            counters.add("home", 1),
            counters.add_many({"home": 1}),
            counters.get("home"),
            counters.backlog(),
        ):
            with pytest.raises(CacheUnavailable, match="Redis did not answer for counters"):
                await question


async def test_a_backlog_larger_than_a_transaction_takes_is_carried_in_several(
    views: Views, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the database was away, more has come than it can count within a statement's time."""
    monkeypatch.setattr(flusher, "MOST_ROWS", 700)
    for place in range(4):
        await views.counters.add_many({f"page {place} {number}": 1 for number in range(1000)})
    sizes: list[int] = []
    flush = views.flusher._flush

    async def measured(batches: Sequence[Batch]) -> int:
        sizes.append(sum(len(batch.amounts) for batch in batches))
        return await flush(batches)

    monkeypatch.setattr(views.flusher, "_flush", measured)
    while await views.flusher.round():
        pass
    assert await sql.fetchval("SELECT sum(views) FROM page_views") == 4000
    assert max(sizes) <= 700


async def test_the_ledger_can_be_read_by_a_dump_while_a_new_hour_begins(
    views: Views, sql: asyncpg.Connection, redis: Redis
) -> None:
    async with sql.transaction():
        await sql.execute("SELECT count(*) FROM applied")
        await redis.xadd(HOME.stream, {"batch": batch_of(timedelta(hours=23)), "deltas": '{"home": 5}'})
        assert await views.flusher.round() == 1
    assert await stored(sql) == 5


async def test_a_partition_that_somebody_dropped_is_made_again(
    views: Views, sql: asyncpg.Connection, redis: Redis
) -> None:
    for times in (1, 2, 3):
        batch = batch_of(timedelta(hours=3))
        await redis.xadd(HOME.stream, {"batch": batch, "deltas": '{"home": 5}'})
        while await views.flusher.round():
            pass
        assert await stored(sql) == 5 * times
        await sql.execute(f"DROP TABLE applied_{made_at(batch):%Y%m%d%H}")
    assert await sql.fetchval("SELECT count(*) FROM dead_letters") == 0


async def test_an_entry_that_was_trimmed_while_it_was_pending_does_not_keep_totals_away(
    views: Views, redis: Redis
) -> None:
    await views.counters.add("home", 5)
    await views.new_flusher()._gathering.read(0.001)  # It is delivered, and its flusher dies.
    await redis.xtrim(HOME.stream, maxlen=0, approximate=False)
    assert await views.total() == 0


async def test_no_total_is_built_over_a_new_group(views: Views, redis: Redis, sql: asyncpg.Connection) -> None:
    """R looks · a view is delivered and committed · the group is deleted, and made again · R asks the database, and
    seeds: the new group does not know that the view was delivered
    """
    views.before.clear()
    reader = asyncio.create_task(views.total())
    await views.asked.wait()
    await views.counters.add("home", 5)
    await views.commit_without_acknowledging()
    await redis.xgroup_destroy(HOME.stream, GROUP)
    await views.new_flusher()._gathering.create_groups()
    views.before.set()
    assert await reader == 5
    assert await views.total() == 5


async def test_views_of_all_shards_go_together_though_redis_has_forgotten_the_script(
    views: Views, redis: Redis, sql: asyncpg.Connection
) -> None:
    pages = {f"page-{place}": place for place in range(1, 21)}
    assert {number(page) for page in pages} == {0, 1, 2, 3}
    await redis.script_flush()
    await views.counters.add_many(pages)
    await views.counters.add_many(pages)
    await views.carry()
    assert await sql.fetchval("SELECT sum(views) FROM page_views") == 2 * sum(pages.values())
    assert await sql.fetchval("SELECT count(*) FROM page_views") == 20


async def test_a_shard_that_refuses_does_not_refuse_for_the_others(
    views: Views, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are asked in one round trip, and each answers for itself."""
    monkeypatch.setattr(views.counters._acceptance, "cap", Cap(entries=4, bytes=2**27))
    full, *others = (next(page for page in map(str, range(100)) if number(page) == shard) for shard in range(4))
    await views.counters.add(full, 1)
    answers = await asyncio.gather(*(views.counters.add(page, 1) for page in (full, *others)), return_exceptions=True)
    assert isinstance(answers[0], BacklogFull)
    assert not any(isinstance(answer, BaseException) for answer in answers[1:])


UNCOUNTABLE: list[tuple[str, Any, str | None, str]] = [
    ("home", -1, None, "-1 cannot be added: an amount must be 1 to 9,007,199,254,740,991."),
    ("home", 0, None, "0 cannot be added"),
    ("home", 2**53, None, "9,007,199,254,740,992 cannot be added"),
    ("home", 1.5, None, "1.5 is no amount: it must be a whole number."),
    ("home", True, None, "True is no amount: it must be a whole number."),
    ("", 1, None, "'' is no key"),
    ("a\0b", 1, None, "is no key"),
    ("\ud800", 1, None, "is no key"),
    ("home", 1, "a b", "'a b' is no idempotency key"),
    ("home", 1, "\ud800", "is no idempotency key"),
]


@pytest.mark.parametrize(("page", "count", "key", "says"), UNCOUNTABLE)
async def test_what_nobody_can_count_joins_no_others(
    views: Views, sql: asyncpg.Connection, page: str, count: Any, key: str | None, says: str
) -> None:
    """They are asked in one tick, and would go in one call."""
    assert await views.total() == 0
    many = {"home": 1, "news": 1, page: count}
    answers = await asyncio.gather(
        views.counters.add("home", 5),
        views.counters.add(page, count, key),
        views.counters.add_many(many, key),
        return_exceptions=True,
    )
    assert answers[0] == 5
    for error in answers[1:]:
        assert isinstance(error, ValueError)
        assert says in str(error)
    await views.carry()
    assert (await stored(sql), await stored(sql, "news")) == (5, 0)
    assert await sql.fetchval("SELECT count(*) FROM dead_letters") == 0


async def test_an_addition_that_fills_a_page_is_refused_and_not_those_that_came_with_it(views: Views) -> None:
    assert await views.total() == 0
    answers = await asyncio.gather(
        *(views.counters.add("home", count) for count in (1, 2**53 - 2, 1, 1)), return_exceptions=True
    )
    assert [isinstance(answer, TotalOverflow) for answer in answers] == [False, True, False, False]
    assert await views.total() == 3


async def test_to_ask_for_pages_that_nobody_has_viewed_leaves_nothing_lasting(views: Views, redis: Redis) -> None:
    """Their names are as long as they may be. A page that was viewed once is kept, though its total was 0 before."""
    pages = [f"{place:04}".ljust(2048, "x") for place in range(40)]
    before = {key async for key in redis.scan_iter("*")}
    assert set(await asyncio.gather(*map(views.total, pages))) == {0}
    assert await views.total("home") == 0
    assert await views.counters.add("home", 1) == 1
    kept = {key: await redis.pttl(key) async for key in redis.scan_iter("*") if key not in before}
    short = {key for key, left in kept.items() if left != -1 and left <= totals.NOTHING / timedelta(milliseconds=1)}
    assert len(short) == 40
    home = HOME.total("home", views.breaker.run).encode()
    assert kept[home] > TOTAL / timedelta(milliseconds=1) / 2
    assert max(len(key) for key in kept.keys() - short) < 100


@pytest.mark.parametrize("page", ["a\0b", "\ud800", ""])
async def test_to_ask_for_what_is_no_page_asks_for_no_others_in_vain(views: Views, page: str) -> None:
    await views.counters.add("home", 5)
    answers = await asyncio.gather(views.total("home"), views.total(page), views.total("news"), return_exceptions=True)
    assert (answers[0], answers[2]) == (5, 0)
    assert isinstance(answers[1], ValueError)


@pytest.mark.parametrize("rot", ["many", str(2**53), "9" * 17, "9" * 5000, None])
async def test_a_total_that_is_none_is_built_anew_and_spoils_nothing_of_others(
    views: Views, redis: Redis, sql: asyncpg.Connection, rot: str | None
) -> None:
    """It is no number, or none that can be counted on, or of another type. They are read, built, and added to
    together."""
    pages = [page for page in map(str, range(99)) if number(page) == HOME.number][:9]
    await views.counters.add_many(dict.fromkeys(["home", *pages], 1))

    async def spoil() -> None:
        total = HOME.total("home", views.breaker.run)
        await redis.delete(total)
        await (redis.hset(total, "many", "1") if rot is None else redis.set(total, rot))

    await spoil()
    assert await asyncio.gather(*map(views.total, [*pages, "home"])) == [1] * 10
    await spoil()
    answers = await asyncio.gather(*(views.counters.add(page, 2) for page in ["home", *pages]))
    assert answers == [None] + [3] * 9
    assert await asyncio.gather(*map(views.total, ["home", *pages])) == [3] * 10
    await views.carry()
    assert await sums(sql) == dict.fromkeys(["home", *pages], 3)


@pytest.mark.parametrize("delta", ['"many"', "null", "{}"])
async def test_an_entry_that_is_no_batch_spoils_no_total_that_is_being_built(
    views: Views, redis: Redis, delta: str
) -> None:
    """R looks, and asks the database       somebody writes into the stream       R seeds: what came since is added"""
    views.before.clear()
    reader = asyncio.create_task(views.total())
    await views.asked.wait()
    await redis.xadd(HOME.stream, {"batch": batch_of(), "deltas": f'{{"home": {delta}}}', "views": 1})
    await views.counters.add("home", 5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(views.counters._totals, "_look", None)  # There is no second look.
        views.before.set()
        assert await reader == 5


async def test_what_is_no_epoch_of_a_shard_is_another_one(views: Views, redis: Redis) -> None:
    await redis.delete(HOME.epoch)
    await redis.rpush(HOME.epoch, "theirs")
    await views.counters.add("home", 5)
    assert await views.total() == 5
