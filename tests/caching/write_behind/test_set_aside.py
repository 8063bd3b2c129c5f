"""An entry that the database does not count in time, or at all, is set aside. The others are flushed meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis

from app.caching import Cache, NotDone, made_at
from app.caching.write_behind import gathering, set_aside
from app.caching.write_behind.flushing import Flushing
from app.caching.write_behind.shard import GROUP
from app.embedded import Endpoints
from app.page_views.models import Counted
from tests.caching.write_behind.test_flusher import letters, pending, views_over, wait, well
from tests.caching.write_behind.views import HOME, Views, batch_of, stored, sums
from tests.eventually import PATIENCE

NOW, NEVER = timedelta(0), timedelta(days=1)
MANY = 10**9
STUCK = """
CREATE FUNCTION ill() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF NEW.batch = '{batch}' THEN RAISE EXCEPTION 'Too slow.' USING ERRCODE = '{state}'; END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER ill BEFORE INSERT ON applied FOR EACH ROW EXECUTE FUNCTION ill();
"""
"""A trigger by which Postgres fails as if it took too long to record one batch."""
STATES = {"a statement takes too long": "57014", "a lock is not to be had": "55P03", "nobody knows": "38000"}


@pytest.fixture
async def sql(sql: asyncpg.Connection) -> AsyncIterator[asyncpg.Connection]:
    """An operator's connection, as with psql. Its triggers are removed at the end."""
    yield sql
    await sql.execute("DROP FUNCTION IF EXISTS ill CASCADE")


@pytest.fixture
def restless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes each round retry the entries that are set aside."""
    for name in ("FIRST", "LONGEST", "OUTAGE"):
        monkeypatch.setattr(set_aside, name, NOW)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Disables the timed retries of entries that are set aside."""
    for name in ("FIRST", "LONGEST", "OUTAGE"):
        monkeypatch.setattr(set_aside, name, NEVER)


async def carry(flusher: Flushing, redis: Redis, left: int = 0) -> int:
    """Flushes until at most `left` entries are left. Returns how many rounds failed."""
    failures = 0
    async with asyncio.timeout(PATIENCE):
        while await redis.xlen(HOME.stream) > left:
            try:
                await flusher.round()
            except NotDone:
                failures += 1
    return failures


async def try_once(flusher: Flushing, redis: Redis, page: str = "home") -> None:
    """Flushes one more view, and so retries the entries that are set aside."""
    await wait(redis, {page: 1})
    await flusher.round()


async def stick(sql: asyncpg.Connection, batch: str, state: str = "57014") -> None:
    """Makes Postgres refuse to count this batch from now on, or every batch when it is '%'."""
    stuck = STUCK.format(batch=batch, state=state)
    await sql.execute(stuck.replace("NEW.batch = '%'", "true"))


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
async def test_an_entry_that_is_not_counted_holds_up_no_other_entry(
    views: Views, redis: Redis, sql: asyncpg.Connection, patient: None, state: str
) -> None:
    batches = await wait(redis, *({"home": 2} for _ in range(99)), {"home": 7}, *({"home": 2} for _ in range(100)))
    await stick(sql, batches[99], state)
    carrying = views.new_flusher(amount=MANY)
    assert await carry(carrying, redis, left=1) <= 8 + 8
    assert await sums(sql) == {"home": 2 * 199}
    assert (await letters(sql), await pending(redis)) == ([], 1)
    assert await views.total() == 2 * 199 + 7, "What waits is in the total, once."


async def test_entries_of_a_locked_partition_of_the_ledger_hold_up_no_others(
    endpoints: Endpoints,
    opened: Cache,
    redis: Redis,
    sql: asyncpg.Connection,
    patient: None,
    impatient: None,
) -> None:
    """Somebody has locked one partition for maintenance. Postgres itself cancels statements that wait for it."""
    old = batch_of(timedelta(hours=3))
    async with views_over(endpoints, endpoints.database_url, opened, timedelta(seconds=1)) as views:
        await views.store.apply([Counted(batch_of(timedelta(hours=3)), made_at(old), {"home": 1})])
        await redis.xadd(HOME.stream, {"batch": old, "deltas": '{"home": 5}', "views": 5})
        await wait(redis, {"home": 2}, {"home": 2})
        async with sql.transaction():
            await sql.execute(f"LOCK applied_{made_at(old):%Y%m%d%H}")
            await carry(views.new_flusher(amount=MANY), redis, left=1)
            assert await sums(sql) == {"home": 1 + 4}
        await abandon(redis, "nobody")
        await carry(views.new_flusher(amount=MANY), redis)
        assert await sums(sql) == {"home": 1 + 4 + 5}


async def test_an_entry_that_is_set_aside_is_retried_until_it_is_counted(
    views: Views, redis: Redis, sql: asyncpg.Connection, restless: None
) -> None:
    (batch,) = await wait(redis, {"home": 5})
    await stick(sql, batch)
    with pytest.raises(NotDone):
        await views.carry()
    for _ in range(20):
        await try_once(views.flusher, redis, "news")
    assert (await sums(sql), await letters(sql)) == ({"news": 20}, [])
    await well(sql)
    await carry(views.flusher, redis)
    assert (await sums(sql), await letters(sql)) == ({"news": 20, "home": 5}, [])


async def test_entries_are_counted_after_an_outage_of_any_length(
    views: Views, redis: Redis, sql: asyncpg.Connection, restless: None
) -> None:
    """All entries take too long; then the database recovers."""
    await stick(sql, "%")
    await wait(redis, *({f"page {place}": 1} for place in range(2)))
    carrying = views.new_flusher(amount=MANY)
    for _ in range(30):
        try:
            await carrying.round()
        except NotDone:
            continue
    assert (await letters(sql), await sums(sql), await pending(redis)) == ([], {}, 2)
    await well(sql)
    assert await carry(carrying, redis) == 0
    assert await sums(sql) == {f"page {place}": 1 for place in range(2)}
    assert await letters(sql) == []


async def test_entries_set_aside_in_an_outage_are_retried_once_another_one_is_counted(
    views: Views, redis: Redis, sql: asyncpg.Connection, patient: None
) -> None:
    await stick(sql, "%")
    await wait(redis, {"home": 1}, {"home": 2})
    carrying = views.new_flusher(amount=MANY)
    for _ in range(3):
        with pytest.raises(NotDone):
            await carrying.round()
    assert await carrying.round() == 0, "Both stand aside."
    await well(sql)
    assert await carrying.round() == 0
    await try_once(carrying, redis)
    assert await stored(sql) == 4


async def abandon(redis: Redis, consumer: str) -> None:
    """Assigns all entries to `consumer`, which was last heard of a minute ago."""
    entries: Any = await redis.xrange(HOME.stream)
    await redis.xclaim(HOME.stream, GROUP, consumer, 0, [entry for entry, _fields in entries], idle=60_000)


# Ownership.


async def test_an_entry_that_is_set_aside_is_not_taken_over_while_its_flusher_lives(
    views: Views, redis: Redis, sql: asyncpg.Connection, patient: None
) -> None:
    (batch,) = await wait(redis, {"slow": 1})
    await stick(sql, batch)
    with pytest.raises(NotDone):
        await views.carry()
    await abandon(redis, views.flusher._gathering.consumer)
    await views.flusher.round()
    assert await views.new_flusher().round() == 0


async def test_a_flusher_does_not_take_over_entries_that_it_set_aside_itself(
    views: Views, redis: Redis, sql: asyncpg.Connection, patient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering, "ABANDONED", NOW)
    (batch,) = await wait(redis, {"slow": 1})
    await stick(sql, batch)
    with pytest.raises(NotDone):
        await views.carry()
    tries = len(views.flushes)
    assert await views.flusher.round() == 0
    assert len(views.flushes) == tries


async def test_at_most_the_allowed_number_of_entries_is_set_aside(
    views: Views, redis: Redis, sql: asyncpg.Connection, restless: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are tried first, so that there is room again."""
    monkeypatch.setattr(set_aside, "MOST", 2)
    await stick(sql, "%")
    await wait(redis, *({"slow": 1} for _ in range(5)))
    for _ in range(20):
        with pytest.raises(NotDone):
            await views.flusher.round()
    assert len(views.flusher._aside.entries) == 2
    await well(sql)
    assert await carry(views.flusher, redis) == 0
    assert await stored(sql, "slow") == 5


async def test_an_entry_that_stays_set_aside_is_reported_as_trouble(
    views: Views, redis: Redis, sql: asyncpg.Connection, restless: None
) -> None:
    (batch,) = await wait(redis, {"slow": 1})
    await stick(sql, batch)
    with pytest.raises(NotDone):
        await views.carry()
    assert views.flusher.trouble is None, "Once is no trouble yet."
    for _ in range(2):
        await try_once(views.flusher, redis)
    assert str(views.flusher.trouble) == "The database does not do it: Too slow."
    await well(sql)
    await try_once(views.flusher, redis)
    assert views.flusher.trouble is None
