"""One entry that the database does not count in time, or at all, stands aside; the others are carried meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis

from app.caching import Breaker, Flow, NotDone, RedisClock, gathering, set_aside
from app.caching.flusher import Flusher
from app.caching.set_aside import TRIES
from app.caching.shards import GROUP
from app.embedded import Endpoints
from app.page_views import salvage
from app.page_views.models import Counted
from tests.caching.test_flusher import ill, letters, pending, views_over, wait, well
from tests.caching.views import HOME, Lost, Views, batch_of, made_at, stored, sums
from tests.eventually import PATIENCE

NOW, NEVER = timedelta(0), timedelta(days=1)
MANY = 10**9
SLOW = "IF NEW.page = 'slow' THEN RAISE EXCEPTION 'Too slow.' USING ERRCODE = '{state}'; END IF;"
"""As if the statement had taken too long: what Postgres says then."""
STATES = {"a statement takes too long": "57014", "a lock is not to be had": "55P03", "nobody knows": "38000"}
SLOW_COMMIT = """
CREATE FUNCTION ill() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER ill AFTER INSERT OR UPDATE ON page_views DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION ill();
"""


@pytest.fixture
async def sql(sql: asyncpg.Connection) -> AsyncIterator[asyncpg.Connection]:
    """Somebody with psql, whose triggers are gone at the end."""
    yield sql
    await sql.execute("DROP FUNCTION IF EXISTS ill CASCADE")


@pytest.fixture
def restless(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands aside is tried in each round."""
    for name in ("FIRST", "LONGEST", "OUTAGE"):
        monkeypatch.setattr(set_aside, name, NOW)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands aside is not tried again on its own account."""
    for name in ("FIRST", "LONGEST", "OUTAGE"):
        monkeypatch.setattr(set_aside, name, NEVER)


async def carry(flusher: Flusher, redis: Redis, left: int = 0) -> int:
    """Carries until no more than so many entries are left, and answers how many rounds have failed."""
    failures = 0
    async with asyncio.timeout(PATIENCE):
        while await redis.xlen(HOME.stream) > left:
            try:
                await flusher.round()
            except NotDone:
                failures += 1
    return failures


async def try_once(flusher: Flusher, redis: Redis, page: str = "home") -> None:
    """Another view is counted, and what stands aside is tried."""
    await wait(redis, {page: 1})
    await flusher.round()


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
async def test_one_entry_that_is_not_counted_holds_up_nothing_else(
    views: Views, redis: Redis, sql: asyncpg.Connection, patient: None, state: str
) -> None:
    await ill(sql, SLOW.format(state=state))
    await wait(redis, *({"home": 2} for _ in range(99)), {"home": 7, "slow": 1}, *({"home": 2} for _ in range(100)))
    carrying = views.new_flusher(views=MANY)
    assert await carry(carrying, redis, left=1) <= 8 + 8
    assert await sums(sql) == {"home": 2 * 199}
    assert (await letters(sql), await pending(redis)) == ([], 1)
    assert await views.total() == 2 * 199 + 7, "What waits is in the total, once."


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
async def test_after_all_its_tries_an_entry_is_counted_page_by_page_and_the_rest_is_a_dead_letter(
    views: Views, redis: Redis, sql: asyncpg.Connection, restless: None, state: str
) -> None:
    await ill(sql, SLOW.format(state=state))
    good = {f"page {place}": place + 1 for place in range(20)}
    (batch,) = await wait(redis, {**good, "slow": 5})
    with pytest.raises(NotDone):
        await views.carry()
    for _ in range(TRIES):
        await try_once(views.flusher, redis)
        assert await letters(sql) == []
    assert await sums(sql) == {"home": TRIES}
    await try_once(views.flusher, redis)
    assert await sums(sql) == {"home": TRIES + 1, **good}
    assert [(letter["page"], letter["delta"], letter["batch"]) for letter in await letters(sql)] == [("slow", 5, batch)]
    assert (await redis.xlen(HOME.stream), await pending(redis)) == (0, 0)
    assert (views.flow[Flow.DEAD], views.flow[Flow.FLUSHED]) == (5, TRIES + 1 + sum(good.values()))


async def test_while_no_others_are_counted_no_entry_becomes_a_dead_letter(
    views: Views, redis: Redis, sql: asyncpg.Connection, restless: None
) -> None:
    """All take too long, for longer than any entry has tries; then the database is well again."""
    await ill(sql, "RAISE EXCEPTION 'Too slow.' USING ERRCODE = '57014';")
    await wait(redis, *({f"page {place}": 1} for place in range(2)))
    carrying = views.new_flusher(views=MANY)
    for _ in range(3 * TRIES):
        try:
            await carrying.round()
        except NotDone:
            continue
    assert (await letters(sql), await sums(sql), await pending(redis)) == ([], {}, 2)
    await well(sql)
    assert await carry(carrying, redis) == 0
    assert await sums(sql) == {f"page {place}": 1 for place in range(2)}
    assert await letters(sql) == []


async def test_what_was_too_slow_while_all_were_is_tried_when_the_first_one_was_counted(
    views: Views, redis: Redis, sql: asyncpg.Connection, patient: None
) -> None:
    await ill(sql, "RAISE EXCEPTION 'Too slow.' USING ERRCODE = '57014';")
    await wait(redis, {"home": 1}, {"home": 2})
    carrying = views.new_flusher(views=MANY)
    for _ in range(3):
        with pytest.raises(NotDone):
            await carrying.round()
    assert await carrying.round() == 0, "Both stand aside."
    await well(sql)
    assert await carrying.round() == 0
    await try_once(carrying, redis)
    assert await stored(sql) == 4


async def test_a_process_that_dies_between_a_last_try_and_its_acknowledgement_counts_once(
    views: Views, redis: Redis, sql: asyncpg.Connection, restless: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ill(sql, SLOW.format(state="57014"))
    await wait(redis, {"home": 3, "slow": 5})
    with pytest.raises(NotDone):
        await views.carry()
    for _ in range(TRIES):
        await try_once(views.flusher, redis, "news")
    views.dies_after_salvage = True
    with pytest.raises(Lost):
        await try_once(views.flusher, redis, "news")
    views.dies_after_salvage = False
    monkeypatch.setattr(gathering, "ABANDONED", NOW)
    await carry(views.new_flusher(), redis)
    assert (await stored(sql), len(await letters(sql)), await pending(redis)) == (3, 1, 0)


@pytest.mark.parametrize("slow", ["a lock", "a COMMIT"])
async def test_what_really_takes_too_long_is_counted_once(
    endpoints: Endpoints,
    redis: Redis,
    clock: RedisClock,
    breaker: Breaker,
    sql: asyncpg.Connection,
    impatient: None,
    restless: None,
    slow: str,
) -> None:
    """Postgres itself breaks it off, or the time for the whole call is over."""
    async with views_over(endpoints, endpoints.database_url, redis, clock, breaker, timedelta(seconds=1)) as views:
        await sql.execute("INSERT INTO page_views VALUES ('slow', 0), ('home', 0)")
        await wait(redis, {"home": 4, "slow": 1}, {"home": 8})
        async with made_slow(sql, slow):
            await carry(views.new_flusher(views=MANY), redis, left=1)
            assert await sums(sql) == {"home": 8, "slow": 0}
        await abandon(redis, "nobody")
        await carry(views.new_flusher(views=MANY), redis)
        assert await sums(sql) == {"home": 12, "slow": 1}
        assert await letters(sql) == []


@asynccontextmanager
async def made_slow(sql: asyncpg.Connection, slow: str) -> AsyncIterator[None]:
    """To count the page `slow` takes too long."""
    body = "IF NEW.page = 'slow' THEN PERFORM pg_sleep(100); END IF;"
    if slow == "a lock":
        async with sql.transaction():
            await sql.execute("SELECT FROM page_views WHERE page = 'slow' FOR UPDATE")
            yield
        return
    await (sql.execute(SLOW_COMMIT.format(body=body)) if slow == "a COMMIT" else ill(sql, body))
    yield
    await well(sql)


async def abandon(redis: Redis, consumer: str) -> None:
    """All entries are `consumer`'s, who has not been heard of for a minute."""
    entries: Any = await redis.xrange(HOME.stream)
    await redis.xclaim(HOME.stream, GROUP, consumer, 0, [entry for entry, _fields in entries], idle=60_000)


@pytest.mark.parametrize("slow", ["a lock", "a statement"])
async def test_the_last_try_gives_each_page_a_time_of_its_own(
    views: Views, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, slow: str
) -> None:
    monkeypatch.setattr(salvage, "EACH", timedelta(milliseconds=300))
    monkeypatch.setattr(salvage, "LOCK", timedelta(milliseconds=200))
    await sql.execute("INSERT INTO page_views VALUES ('slow', 0)")
    letter = await last_try(views, sql, {"about": 1, "slow": 2, "z": 3}, slow)
    assert await sums(sql) == {"about": 1, "slow": 0, "z": 3}
    assert letter == {"slow": f"canceling statement due to {slow.removeprefix('a ')} timeout"}


async def test_what_the_last_try_has_no_time_for_is_a_dead_letter(
    views: Views, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(salvage, "EACH", timedelta(milliseconds=300))
    monkeypatch.setattr(salvage, "ALL", timedelta(milliseconds=200))
    letter = await last_try(views, sql, {"slow": 2, "z": 3}, "a statement")
    assert await sums(sql) == {}
    assert letter.keys() == {"slow", "z"}
    assert letter["z"] == "The others were too slow, and left no time to try it."


async def last_try(views: Views, sql: asyncpg.Connection, deltas: Mapping[str, int], slow: str) -> dict[str, str]:
    """The dead letters of a batch, tried for the last time."""
    name = batch_of()
    one = Counted(name, made_at(name), deltas)
    async with made_slow(sql, slow):
        rows, dead = await views.store.salvage(one, "Too slow.", 1, last=True)
        assert await views.store.salvage(one, "Too slow.", 2, last=True) == (0, 0)
    found = {letter["page"]: letter["reason"] for letter in await letters(sql)}
    assert (rows, dead) == (len(deltas) - len(found), sum(deltas[page] for page in found))
    return found


# Who has it.


async def test_an_entry_that_stands_aside_is_not_taken_over_while_its_flusher_lives(
    views: Views, redis: Redis, sql: asyncpg.Connection, patient: None
) -> None:
    await ill(sql, SLOW.format(state="57014"))
    await wait(redis, {"slow": 1})
    with pytest.raises(NotDone):
        await views.carry()
    await abandon(redis, views.flusher._gathering.consumer)
    await views.flusher.round()
    assert await views.new_flusher().round() == 0


async def test_a_flusher_does_not_take_over_what_it_has_set_aside_itself(
    views: Views, redis: Redis, sql: asyncpg.Connection, patient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering, "ABANDONED", NOW)
    await ill(sql, SLOW.format(state="57014"))
    await wait(redis, {"slow": 1})
    with pytest.raises(NotDone):
        await views.carry()
    tries = len(views.flushes)
    assert await views.flusher.round() == 0
    assert len(views.flushes) == tries


async def test_when_too_many_stand_aside_nothing_more_is_set_aside(
    views: Views, redis: Redis, sql: asyncpg.Connection, restless: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are tried first, so that there is room again."""
    monkeypatch.setattr(set_aside, "MOST", 2)
    await ill(sql, SLOW.format(state="57014"))
    await wait(redis, *({"slow": 1} for _ in range(5)))
    for _ in range(20):
        with pytest.raises(NotDone):
            await views.flusher.round()
    assert len(views.flusher._aside.entries) == 2
    await well(sql)
    assert await carry(views.flusher, redis) == 0
    assert await stored(sql, "slow") == 5


async def test_what_stands_aside_is_told_as_trouble(
    views: Views, redis: Redis, sql: asyncpg.Connection, restless: None
) -> None:
    await ill(sql, SLOW.format(state="57014"))
    await wait(redis, {"slow": 1})
    with pytest.raises(NotDone):
        await views.carry()
    assert views.flusher.trouble is None, "Once is no trouble yet."
    for _ in range(2):
        await try_once(views.flusher, redis)
    assert str(views.flusher.trouble) == "The database does not do it: Too slow."
    await well(sql)
    await try_once(views.flusher, redis)
    assert views.flusher.trouble is None
