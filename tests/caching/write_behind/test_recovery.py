"""What Redis loses is accepted again, from the receipts of the process that accepted it. The database counts it once.

FLUSHALL stands for every loss: a crash of Redis' machine, a replica that takes over, an eviction.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis
from redis.exceptions import TimeoutError as RedisTimeout

from app.caching import BacklogFull, Cache, CacheUnavailable, Cap, Flow, TargetUnavailable, WriteBehind
from app.caching.write_behind import receipts, recovery
from app.caching.write_behind.shard import GROUP, number
from app.database import open_database
from app.embedded import Endpoints
from tests.caching.write_behind.views import HOME, Views, open_views, stored, sums
from tests.eventually import PATIENCE, eventually
from tests.faults.postgres_wire import PostgresWire

AGES = timedelta(days=1)
NOTHING = timedelta(0)
FULL = 2**53 - 1


@pytest.fixture
async def wire(endpoints: Endpoints) -> AsyncIterator[PostgresWire]:
    async with PostgresWire(endpoints.database_url) as wire:
        yield wire


@pytest.fixture
async def wired(endpoints: Endpoints, opened: Cache, wire: PostgresWire, impatient: None) -> AsyncIterator[Views]:
    """Page views whose Postgres is behind the wire."""
    async with (
        open_database(
            wire.url, connections=4, timeout=timedelta(seconds=10), counted=lambda resource: None
        ) as database,
        open_views(endpoints, opened, database) as views,
    ):
        yield views
        wire.heal()


def remembers_nothing(views: Views) -> bool:
    """Whether no receipts are left, except for a while those that the database already has."""
    kept = views.counters.receipts
    carried = {receipt.id for _since, _shard, receipt in views.counters.recovery._applied}
    return kept.amount == 0 and {receipt.id for receipt in kept._kept} <= carried


async def remove_newest(redis: Redis) -> None:
    """Deletes the newest entry, as somebody might by hand."""
    newest: Any = await redis.xrevrange(HOME.stream, count=1)
    assert await redis.xdel(HOME.stream, newest[0][0]) == 1


async def keep_one(views: Views, monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits the receipts so that from now on only the last accepted batch can be accepted again."""
    monkeypatch.setattr(receipts, "KEPT", views.counters.receipts._kept[-1].batch.bytes)  # type: ignore[union-attr]


async def test_views_that_redis_loses_are_accepted_again_and_counted_once(
    views: Views, redis: Redis, sql: asyncpg.Connection
) -> None:
    await sql.execute("INSERT INTO page_views VALUES ('home', 100)")
    await views.counters.add_many({"home": 5, "news": 3})
    assert await views.total() == 105
    assert views.counters.receipts.amount == 8
    await redis.flushall()
    assert await views.total() == 100
    await views.check()
    assert await views.total() == 105
    await views.check()
    assert views.flow[Flow.RECOVERED] == 8, "Once only: it waits again."
    await views.carry()
    assert (await stored(sql), await stored(sql, "news")) == (105, 3)
    assert await views.total() == 105
    await views.check()
    assert remembers_nothing(views)
    assert (views.flow[Flow.ACCEPTED], views.flow[Flow.RECOVERED], views.flow[Flow.FLUSHED]) == (8, 8, 8)
    assert views.flow[Flow.LOST] == 0


async def test_flushed_views_leave_no_receipt(views: Views) -> None:
    for place in range(20):
        await views.counters.add(f"page {place}", 1)
    await views.check()
    assert views.counters.receipts.amount == 20
    await views.carry()
    await views.check()
    assert remembers_nothing(views)
    assert views.flow[Flow.RECOVERED] == 0


@pytest.mark.parametrize("first", ["the flusher that held it", "another one"])
async def test_views_that_redis_loses_while_a_flusher_holds_them_count_once(
    views: Views, redis: Redis, sql: asyncpg.Connection, first: str
) -> None:
    """A flusher has gathered · FLUSHALL · the ledger has nothing, so the views are accepted again · both commit"""
    views.gathered.clear()
    views.commit.clear()
    await views.counters.add("home", 5)
    slow = asyncio.create_task(views.flusher.round())
    await views.gathered.wait()
    await redis.flushall()
    await views.check()
    assert await views.total() == 5
    other = views.another()
    if first == "another one":
        await other.carry()
        assert await views.total() == 5
    views.commit.set()
    await slow
    assert await views.total() == 5
    await views.carry()
    await other.carry(other.new_flusher())
    assert await stored(sql) == 5
    assert await views.total() == 5
    await views.check()
    assert remembers_nothing(views)
    assert views.flow[Flow.FLUSHED] + other.flow[Flow.FLUSHED] == 5


async def test_views_that_the_database_already_has_are_not_accepted_again(
    views: Views, redis: Redis, sql: asyncpg.Connection
) -> None:
    """A flusher commits · FLUSHALL, before it could acknowledge"""
    await views.counters.add("home", 5)
    await views.commit_without_acknowledging()
    await redis.flushall()
    await views.check()
    assert remembers_nothing(views)
    assert await redis.xlen(HOME.stream) == 0
    assert await views.total() == await stored(sql) == 5


async def test_views_flushed_during_a_check_are_not_accepted_again(views: Views, redis: Redis) -> None:
    """A check that asked the ledger first and then the stream would find the views in neither."""
    await views.counters.add("home", 5)
    views.read.clear()
    views.behind.clear()
    check, asked = asyncio.create_task(views.check()), asyncio.create_task(views.read.wait())
    await asyncio.wait([check, asked], return_when=asyncio.FIRST_COMPLETED)
    await views.carry()
    views.behind.set()
    await check
    asked.cancel()
    assert views.flow[Flow.RECOVERED] == 0
    assert await redis.xlen(HOME.stream) == 0


async def test_views_accepted_again_are_not_added_to_a_total_that_already_has_them(
    views: Views, redis: Redis, sql: asyncpg.Connection
) -> None:
    """A check asks the ledger, which has nothing
                                        the flusher commits; a read builds the total, with these views
    the check accepts them again: added to that total, they would count twice
    """
    other = views.another()
    slow = await lost_while_held(views, redis)
    check = await asked_the_ledger(views)
    views.commit.set()
    await slow
    assert await other.total() == 5
    views.behind.set()
    await check
    assert await redis.xlen(HOME.stream) == 1
    assert await other.total() == 5
    await views.carry()
    assert await stored(sql) == await other.total() == 5


async def test_no_total_is_built_while_views_are_accepted_again(
    views: Views, redis: Redis, sql: asyncpg.Connection
) -> None:
    """A check asks the ledger, which has nothing
                                        the flusher commits; R reads the stream, and sees no entry
    the check accepts the views again
                                        R asks the database, which has them, and seeds: the stream has them, too
    """
    other = views.another()
    slow = await lost_while_held(views, redis)
    check = await asked_the_ledger(views)
    views.commit.set()
    await slow
    other.before.clear()
    reader = asyncio.create_task(other.total())
    await other.asked.wait()
    views.behind.set()
    await check
    assert await redis.xlen(HOME.stream) == 1
    other.before.set()
    assert await reader == 5
    await views.carry()
    assert await stored(sql) == await other.total() == 5


async def lost_while_held(views: Views, redis: Redis) -> "asyncio.Task[int]":
    """Leaves five views only with a flusher, which waits before its commit: Redis has lost them."""
    views.gathered.clear()
    views.commit.clear()
    await views.counters.add("home", 5)
    slow = asyncio.create_task(views.flusher.round())
    await views.gathered.wait()
    await redis.flushall()
    return slow


async def asked_the_ledger(views: Views) -> "asyncio.Task[None]":
    """Starts a check, and returns when it has read the ledger and waits at the gate after it."""
    views.read.clear()
    views.behind.clear()
    check = asyncio.create_task(views.check())
    await views.read.wait()
    return check


@pytest.mark.parametrize("key", [None, "click-1"])
@pytest.mark.parametrize("removed", ["the entry", "the stream"])
async def test_an_entry_that_was_removed_by_hand_is_accepted_again(
    views: Views, redis: Redis, sql: asyncpg.Connection, removed: str, key: str | None
) -> None:
    """Its guard is still there, and so is the idempotency key under which it was accepted."""
    await views.counters.add("home", 2)
    await views.counters.add("home", 5, key)
    if removed == "the entry":
        await remove_newest(redis)
    else:
        await redis.delete(HOME.stream)
    await views.check()
    await views.check()
    if key is not None:
        await views.counters.add("home", 5, key)
    await views.carry()
    assert await stored(sql) == 7
    assert await views.total() == 7
    await views.check()
    assert remembers_nothing(views)
    assert views.flow[Flow.RECOVERED] == (5 if removed == "the entry" else 7)


async def test_a_key_that_is_repeated_before_the_check_counts_once(
    views: Views, redis: Redis, sql: asyncpg.Connection
) -> None:
    """Two views are in a batch · FLUSHALL · the client of one repeats it · the batch is accepted again"""
    await asyncio.gather(views.counters.add("home", 5, "click-1"), views.counters.add("home", 2))
    await redis.flushall()
    await views.counters.add("home", 5, "click-1")
    await views.check()
    assert await views.total() == 7
    await views.counters.add("home", 5, "click-1")
    await views.carry()
    assert await stored(sql) == await views.total() == 7
    await views.check()
    assert remembers_nothing(views)
    assert views.flow[Flow.RECOVERED] == 2, "The others came again by themselves."


async def test_a_key_that_is_repeated_after_the_check_counts_once(
    views: Views, redis: Redis, sql: asyncpg.Connection
) -> None:
    """The receipt has the keys, and restores them together with the batch."""
    await views.counters.add("home", 5, "click-1")
    await redis.flushall()
    await views.check()
    await views.counters.add("home", 5, "click-1")
    assert views.counters.receipts.amount == 5
    await views.carry()
    assert await stored(sql) == 5


async def test_a_batch_without_anything_new_leaves_no_receipt(views: Views, redis: Redis) -> None:
    await views.counters.add("home", 5, "click-1")
    await views.carry()
    await views.check()
    await views.counters.add("home", 5, "click-1")
    assert remembers_nothing(views)
    await redis.flushall()
    await views.check()
    assert await redis.xlen(HOME.stream) == 0


async def test_beyond_the_kept_bytes_only_the_newest_views_are_accepted_again_and_others_are_lost(
    views: Views, redis: Redis, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await views.counters.add("home", 5)
    await keep_one(views, monkeypatch)
    await views.counters.add("home", 2)
    assert views.counters.receipts.amount == 7
    await redis.flushall()
    await views.check()
    await views.check()
    assert (views.flow[Flow.RECOVERED], views.flow[Flow.LOST]) == (2, 0), "A flusher may have the others."
    monkeypatch.setattr(recovery, "IN_HAND", NOTHING)
    await views.check()
    await views.check()
    assert (views.flow[Flow.RECOVERED], views.flow[Flow.LOST]) == (2, 5)
    await views.carry()
    assert await stored(sql) == await views.total() == 2
    await views.check()
    assert remembers_nothing(views)


async def test_views_without_a_kept_batch_are_lost_only_after_they_were_missing_for_long(
    views: Views, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was accepted long ago, and left the stream a moment ago."""
    monkeypatch.setattr(receipts, "KEPT", 0)
    monkeypatch.setattr(recovery, "IN_HAND", NOTHING)
    await views.counters.add("home", 5)
    await views.check()
    await redis.flushall()
    await views.check()
    assert views.flow[Flow.LOST] == 0
    await views.check()
    assert views.flow[Flow.LOST] == 5


async def test_views_that_a_flusher_commits_meanwhile_are_not_lost(
    views: Views, redis: Redis, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flusher has gathered · FLUSHALL · a check finds views that nobody can accept again · the flusher commits"""
    monkeypatch.setattr(receipts, "KEPT", 0)
    monkeypatch.setattr(recovery, "IN_HAND", NOTHING)
    slow = await lost_while_held(views, redis)
    await views.check()
    views.commit.set()
    await slow
    await views.check()
    assert views.flow[Flow.LOST] == 0
    assert await stored(sql) == 5
    assert remembers_nothing(views)


async def test_views_of_a_page_that_has_become_full_are_counted_as_lost(
    views: Views, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "IN_HAND", NOTHING)
    await views.counters.add("home", 5)
    await redis.flushall()
    await redis.set(HOME.total("home", views.cache.identity.run), FULL)
    await views.check()
    assert (views.counters.receipts.amount, views.counters.receipts._bytes) == (5, 0)
    await views.check()
    assert views.flow[Flow.LOST] == 5
    assert remembers_nothing(views)


async def test_young_additions_are_not_checked(views: Views, redis: Redis) -> None:
    await views.counters.add("home", 5)
    await redis.flushall()
    views.asked.clear()
    await views.counters.recovery.check(young=AGES)
    assert not views.asked.is_set()
    assert await redis.xlen(HOME.stream) == 0
    await views.check()
    assert await redis.xlen(HOME.stream) == 1


async def raise_floor(sql: asyncpg.Connection) -> None:
    """Raises the floor: the ledger of all batches until now is gone."""
    await sql.execute("UPDATE ledger_floor SET hour = now() + interval '1 hour'")


async def test_views_below_the_floor_of_the_ledger_are_not_accepted_again_and_count_as_lost(
    views: Views, redis: Redis, sql: asyncpg.Connection, ledger: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a day this process could not reach the database, and others could."""
    await views.counters.add("home", 5)
    await raise_floor(sql)
    await redis.flushall()
    await views.check()
    assert await redis.xlen(HOME.stream) == 0
    assert views.flow[Flow.LOST] == 0, "A flusher may have them."
    monkeypatch.setattr(recovery, "IN_HAND", NOTHING)
    await views.check()
    assert (views.flow[Flow.RECOVERED], views.flow[Flow.LOST]) == (0, 5)
    assert remembers_nothing(views)


async def test_views_that_become_dead_letters_below_the_floor_are_not_lost(
    views: Views, redis: Redis, sql: asyncpg.Connection, ledger: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flusher has gathered · FLUSHALL · the floor is raised · the flusher sets it aside · a check finds it there"""
    monkeypatch.setattr(recovery, "IN_HAND", NOTHING)
    slow = await lost_while_held(views, redis)
    await raise_floor(sql)
    await views.check()
    views.commit.set()
    await slow
    await views.check()
    assert (views.flow[Flow.RECOVERED], views.flow[Flow.LOST], views.flow[Flow.DEAD]) == (0, 0, 5)
    assert remembers_nothing(views)
    assert await sql.fetchval("SELECT sum(delta) FROM dead_letters") == 5


async def test_a_check_stops_at_entries_that_still_wait(
    views: Views, redis: Redis, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream is flushed in order. While the oldest entries wait, a check of a long backlog each second is waste."""
    monkeypatch.setattr(recovery, "CHUNK", 2)
    for _ in range(6):
        await views.counters.add("home", 1)
    await remove_newest(redis)
    await views.check()
    assert views.flow[Flow.RECOVERED] == 0
    await views.carry()
    await views.check()
    assert views.flow[Flow.RECOVERED] == 1
    await views.carry()
    assert await stored(sql) == 6


async def test_during_an_outage_of_the_database_all_receipts_are_kept_and_none_count_as_lost(
    wired: Views, wire: PostgresWire, redis: Redis, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "IN_HAND", NOTHING)
    await wired.counters.add("home", 5)
    await redis.flushall()
    wire.refuse()
    for _ in range(3):
        with pytest.raises(TargetUnavailable):
            await wired.check()
    assert wired.counters.receipts.amount == 5
    assert (wired.flow[Flow.RECOVERED], wired.flow[Flow.LOST]) == (0, 0)
    wire.heal()

    async def is_back() -> bool:
        try:
            await wired.check()
        except TargetUnavailable:
            return False
        return True

    await eventually(is_back)
    assert wired.flow[Flow.RECOVERED] == 5
    await wired.carry()
    assert await stored(sql) == 5


async def test_views_that_meet_a_full_backlog_are_accepted_again_later(
    views: Views, redis: Redis, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "IN_HAND", NOTHING)
    await views.counters.add("home", 1)
    await views.counters.add("home", 2)
    await redis.flushall()
    monkeypatch.setattr(views.counters._acceptance, "cap", Cap(entries=4, bytes=2**27))
    for _ in range(3):
        with pytest.raises(BacklogFull):
            await views.check()
    assert views.counters.receipts.amount == 3
    await views.carry()
    assert await stored(sql) == 1
    await views.check()
    await views.carry()
    assert await stored(sql) == 3
    await views.check()
    assert remembers_nothing(views)
    assert (views.flow[Flow.RECOVERED], views.flow[Flow.LOST]) == (3, 0)


async def test_a_full_shard_does_not_block_views_that_other_shards_have_lost(
    views: Views, redis: Redis, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views.counters._acceptance, "cap", Cap(entries=4, bytes=2**27))
    pages = [next(page for page in map(str, range(99)) if number(page) == shard) for shard in range(4)]
    for page in pages:
        await views.counters.add(page, 1)
    await redis.flushall()
    await views.counters.add(pages[0], 1)
    with pytest.raises(BacklogFull):
        await views.check()
    await views.carry()
    assert await sums(sql) == dict.fromkeys(pages, 1)
    await views.check()
    await views.carry()
    assert await sums(sql) == dict.fromkeys(pages, 1) | {pages[0]: 2}


async def test_a_lost_answer_does_not_accept_views_twice(
    views: Views, redis: Redis, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FLUSHALL · the views are accepted again, and that answer is lost · they are accepted again"""
    await views.counters.add("home", 5)
    await redis.flushall()
    accept = views.counters._acceptance._script

    async def lossy(*, keys: Sequence[str], args: Sequence[object]) -> object:
        await accept(keys=keys, args=args)
        raise RedisTimeout("The answer is lost.")

    with monkeypatch.context() as patch:
        patch.setattr(views.counters._acceptance, "_script", lossy)
        with pytest.raises(CacheUnavailable):
            await views.check()
    await views.check()
    assert await redis.xlen(HOME.stream) == 1
    await views.carry()
    assert await stored(sql) == await views.total() == 5
    await views.check()
    assert remembers_nothing(views)


async def test_running_receipts_are_checked_regularly(views: Views, redis: Redis, sql: asyncpg.Connection) -> None:
    async with views.counters.recovery.running():
        assert views.counters.recovery.alive
        await views.counters.add("home", 5)
        await redis.flushall()

        async def is_back() -> bool:
            return bool(await redis.xlen(HOME.stream) == 1)

        await eventually(is_back)
    assert not views.counters.recovery.alive
    await views.carry()
    assert await stored(sql) == 5


async def test_an_open_write_behind_checks_its_own_receipts(
    views: Views, redis: Redis, sql: asyncpg.Connection
) -> None:
    """Callers need not think of its receipts: they start and stop with it."""
    async with WriteBehind(views.cache, "views", views.target) as counters:
        assert counters.recovery.alive
        await counters.add("home", 5)
        await redis.flushall()
    assert not counters.recovery.alive
    assert await redis.xlen(HOME.stream) == 1
    await views.carry()
    assert await stored(sql) == 5


async def test_a_process_checks_once_more_when_it_stops(views: Views, redis: Redis) -> None:
    """Nobody has its receipts after that."""
    async with views.counters.recovery.running():
        await views.counters.add("home", 5)
        await redis.flushall()
    assert await redis.xlen(HOME.stream) == 1
    assert views.flow[Flow.RECOVERED] == 5


async def test_a_process_that_stops_does_not_wait_for_an_unavailable_database(
    wired: Views, wire: PostgresWire, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    async with asyncio.timeout(PATIENCE), wired.counters.recovery.running():
        await wired.counters.add("home", 5)
        await redis.flushall()
        wire.refuse()
    assert "the fate of an amount of 5 is unknown" in caplog.text


async def test_each_of_two_processes_accepts_its_own_views_again(
    views: Views, redis: Redis, sql: asyncpg.Connection
) -> None:
    other = views.another()
    async with other.counters:
        await views.counters.add("home", 5)
        await other.counters.add("home", 2)
        await redis.flushall()
        await asyncio.gather(views.check(), other.check())
        assert await redis.xlen(HOME.stream) == 2
        assert await views.total() == await other.total() == 7
        await views.carry()
        assert await stored(sql) == 7


async def test_a_batch_that_became_dead_letters_is_not_accepted_again(
    views: Views, redis: Redis, sql: asyncpg.Connection
) -> None:
    """The ledger has it, although none of it was counted."""
    await views.counters.add("home", 5)
    await sql.execute("INSERT INTO page_views VALUES ('home', $1)", 2**53 - 1)
    await views.carry()
    assert await sql.fetchval("SELECT sum(delta) FROM dead_letters") == 5
    await redis.flushall()
    await views.check()
    assert remembers_nothing(views)
    assert (await redis.xlen(HOME.stream), views.flow[Flow.RECOVERED], views.flow[Flow.LOST]) == (0, 0, 0)


async def test_a_deleted_group_loses_no_views(views: Views, redis: Redis, sql: asyncpg.Connection) -> None:
    await views.counters.add("home", 5)
    await redis.xgroup_destroy(HOME.stream, GROUP)
    await views.check()
    assert views.flow[Flow.RECOVERED] == 0
    await views.carry()
    assert await stored(sql) == 5


async def test_a_batch_whose_answer_was_lost_is_kept_only_for_a_client_that_repeats_it(
    views: Views, redis: Redis, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Views are accepted, and the answer is lost, again and again: the clients are told that the outcome is unknown
    One client repeats its call under its key, and is told that all is well · FLUSHALL, before the views were flushed

    A client without a key cannot repeat its call, and its views may count once or not at all.
    """
    accept = views.counters._acceptance._script

    async def lossy(*, keys: Sequence[str], args: Sequence[object]) -> object:
        await accept(keys=keys, args=args)
        raise RedisTimeout("The answer is lost.")

    with monkeypatch.context() as patched:
        patched.setattr(views.counters._acceptance, "_script", lossy)
        asked = (views.counters.add("home", 5, "click-1"), views.counters.add("home", 2))
        told = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(each) for each in told] == [CacheUnavailable, CacheUnavailable]
    assert await views.counters.add("home", 5, "click-1") is None
    await redis.flushall()
    await views.check()
    await views.carry()
    assert await stored(sql) == 5
    assert await views.total() == 5
    await views.check()
    assert remembers_nothing(views)
    assert (views.flow[Flow.RECOVERED], views.flow[Flow.LOST]) == (0, 0)
