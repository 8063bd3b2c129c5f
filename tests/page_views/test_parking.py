"""Views of a page whose row is locked or too slow are parked: they are counted, are in the total, and block no other
page."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta

import asyncpg
import pytest
from redis.asyncio import Redis

from app.caching import Cache, Flow, made_at
from app.caching.write_behind import gathering
from app.database import Database, open_database
from app.embedded import Endpoints
from app.errors import DatabaseUnavailable, TookTooLong
from app.page_views import parking, salvage
from app.page_views.models import Counted
from app.page_views.parking import Parking
from app.page_views.store import PageViewStore
from app.poller import Poller
from tests.caching.write_behind.test_flusher import views_over, wait
from tests.caching.write_behind.views import HOME, batch_of, stored, sums
from tests.eventually import eventually
from tests.faults.postgres_wire import PostgresWire

MANY = 10**9
STUCK = """
CREATE FUNCTION ill() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF NEW.page = 'stuck' THEN {does}; END IF;
  RETURN NEW;
END $$;
"""
TRIGGER = "CREATE TRIGGER ill BEFORE INSERT OR UPDATE ON page_views FOR EACH ROW EXECUTE FUNCTION ill()"
AT_COMMIT = (
    "CREATE CONSTRAINT TRIGGER ill AFTER INSERT OR UPDATE ON page_views DEFERRABLE INITIALLY DEFERRED "
    "FOR EACH ROW EXECUTE FUNCTION ill()"
)
RAISES = "RAISE EXCEPTION 'Not this one.' USING ERRCODE = '{}'"
KINDS = (
    "its row is locked",
    "it is being inserted",
    "it takes too long",
    "it takes too long at COMMIT",
    "Postgres says what nobody knows",
)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each page gets little time."""
    monkeypatch.setattr(salvage, "EACH", timedelta(milliseconds=300))


@pytest.fixture
async def database(endpoints: Endpoints) -> AsyncIterator[Database]:
    """A database in which a statement waits 0.3 s for a lock."""
    async with open_database(
        endpoints.database_url,
        connections=4,
        timeout=timedelta(milliseconds=600),
        within=timedelta(seconds=5),
        counted=lambda resource: None,
    ) as database:
        yield database


@pytest.fixture
def store(database: Database) -> PageViewStore:
    """A new store."""
    return PageViewStore(database)


@pytest.fixture
def dead() -> list[int]:
    """The numbers of views that became dead letters."""
    return []


@pytest.fixture
def parked(database: Database, poller: Poller, dead: list[int]) -> Parking:
    """The settling task, run pass by pass."""
    return Parking(database, poller, dead.append)


@pytest.fixture
async def sql(sql: asyncpg.Connection) -> AsyncIterator[asyncpg.Connection]:
    """A connection like psql's. Its triggers are dropped at the end."""
    yield sql
    await sql.execute("DROP FUNCTION IF EXISTS ill CASCADE")


@asynccontextmanager
async def stuck(sql: asyncpg.Connection, kind: str = "its row is locked") -> AsyncIterator[None]:
    """Holds open a state in which the page `stuck` cannot be counted in time."""
    if kind == "its row is locked":
        await sql.execute("INSERT INTO page_views VALUES ('stuck', 0) ON CONFLICT DO NOTHING")
        async with sql.transaction():
            await sql.execute("SELECT FROM page_views WHERE page = 'stuck' FOR UPDATE")
            yield
    elif kind == "it is being inserted":
        async with sql.transaction():
            await sql.execute("INSERT INTO page_views VALUES ('stuck', 0)")
            yield
    else:
        slow = "PERFORM pg_sleep(100)" if "too long" in kind else RAISES.format("38000")
        await sql.execute(STUCK.format(does=slow) + (AT_COMMIT if "COMMIT" in kind else TRIGGER))
        yield
        await sql.execute("DROP FUNCTION ill CASCADE")


def batch(deltas: Mapping[str, int]) -> Counted:
    """Returns a new batch."""
    name = batch_of()
    return Counted(name, made_at(name), deltas)


async def waiting(sql: asyncpg.Connection) -> dict[str, int]:
    """Returns the parked views by page."""
    rows = await sql.fetch("SELECT page, sum(delta)::bigint AS views FROM parked_views GROUP BY page")
    return {row["page"]: row["views"] for row in rows}


async def total(store: PageViewStore, page: str = "stuck") -> int:
    """Returns the total that a read finds, in one snapshot."""
    return (await store.standing([page], []))[0].get(page, 0)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_stuck_page_is_parked_and_settled_and_all_other_pages_are_counted(
    store: PageViewStore, parked: Parking, sql: asyncpg.Connection, hasty: None, kind: str
) -> None:
    others = {f"page {place}": place + 1 for place in range(20)}
    some = [batch({**others, "stuck": 3}), batch({"home": 5}), batch({"stuck": 4, "zebra": 1})]
    async with stuck(sql, kind):
        await store.apply(some)
        assert (await store.apply(some), await store.salvage(some[0], 1)) == (0, (0, 0)), "Each batch counts once."
        found = await sums(sql)
        assert {page: views for page, views in found.items() if page != "stuck"} == {**others, "home": 5, "zebra": 1}
        await parked.settle()
        assert await waiting(sql) == {"stuck": 7}
        assert await total(store) == 7
    await sql.execute("UPDATE parked_views SET tried_at = '-infinity'")
    await parked.settle()
    assert (await stored(sql, "stuck"), await total(store), await waiting(sql)) == (7, 7, {})


async def test_no_flush_waits_for_a_parked_page(
    store: PageViewStore, sql: asyncpg.Connection, endpoints: Endpoints
) -> None:
    """More views of the page arrive in every batch: a flush does not touch the row of the page."""
    async with stuck(sql):
        await store.apply([batch({"stuck": 1, "home": 1})])
        async with open_database(
            endpoints.database_url, connections=1, timeout=timedelta(seconds=60), counted=lambda resource: None
        ) as patient:  # It would wait half a minute for the lock.
            async with asyncio.timeout(20):
                for _ in range(20):
                    await PageViewStore(patient).apply([batch({"stuck": 1, "home": 1})])
        assert (await waiting(sql), await stored(sql)) == ({"stuck": 21}, 21)


async def test_after_a_slow_flush_no_later_flush_waits_for_a_row(
    store: PageViewStore, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody changes one row after the other in a long transaction. For each row, a flush would have to wait."""
    await sql.execute("INSERT INTO page_views VALUES ('next', 0)")
    async with stuck(sql):
        await store.apply([batch({"stuck": 1})])
        await sql.execute("SELECT FROM page_views WHERE page = 'next' FOR UPDATE")
        monkeypatch.delattr(PageViewStore, "_apply_at_once")
        await store.apply([batch({"next": 2, "home": 3})])
        assert (await waiting(sql), await stored(sql)) == ({"stuck": 1, "next": 2}, 3)


async def test_while_the_table_is_locked_all_views_are_parked(
    store: PageViewStore, parked: Parking, sql: asyncpg.Connection
) -> None:
    """Somebody creates an index, for example. Totals can be read meanwhile."""
    async with sql.transaction():
        await sql.execute("LOCK page_views IN SHARE MODE")
        await store.apply([batch({"home": 1, "news": 2}), batch({"home": 4})])
        assert (await total(store, "home"), await waiting(sql)) == (5, {"home": 5, "news": 2})
        reasons = await sql.fetch("SELECT DISTINCT reason FROM parked_views")
        assert [row["reason"] for row in reasons] == [salvage.IS_LOCKED], "No page was tried by itself."
        await parked.settle()
        assert await waiting(sql) == {"home": 5, "news": 2}
    await parked.settle()
    assert (await sums(sql), await waiting(sql)) == ({"home": 5, "news": 2}, {})


async def test_pages_for_which_no_time_is_left_are_parked_too(
    store: PageViewStore, parked: Parking, sql: asyncpg.Connection, hasty: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(salvage, "ALL", timedelta(milliseconds=200))
    async with stuck(sql, "it takes too long"):
        await store.apply([batch({"stuck": 2, "z": 3})])
        assert await waiting(sql) == {"stuck": 2, "z": 3}
        assert await sql.fetchval("SELECT blocked FROM parked_views WHERE page = 'z'") is False
        await parked.settle()
        assert (await stored(sql, "z"), await waiting(sql)) == (3, {"stuck": 2})


async def test_views_parked_late_do_not_block_their_page(
    store: PageViewStore, parked: Parking, sql: asyncpg.Connection, endpoints: Endpoints
) -> None:
    """A flush sees that the page is blocked · the row becomes free, and all views are settled · the flush parks its
    views

    If these views blocked the page, the next flush would park too, and so on, as long as flushes overlap.
    """
    async with stuck(sql):
        await store.apply([batch({"stuck": 1})])
    async with sql.transaction():
        late = batch({"stuck": 2, "home": 1})
        await sql.execute("INSERT INTO page_views VALUES ('home', 0)")  # This delays the flush, after its check.
        flush = asyncio.create_task(slow_apply(endpoints, late))
        await waits_for_lock(sql)
        await parked.settle()
    await flush
    assert await waiting(sql) == {"stuck": 2}
    await store.apply([batch({"stuck": 4})])
    assert (await stored(sql, "stuck"), await waiting(sql)) == (5, {"stuck": 2})
    await parked.settle()
    assert (await stored(sql, "stuck"), await waiting(sql)) == (7, {})


async def slow_apply(endpoints: Endpoints, late: Counted) -> None:
    """Flushes a batch with generous deadlines."""
    async with open_database(
        endpoints.database_url,
        connections=1,
        timeout=timedelta(seconds=60),
        within=timedelta(seconds=60),
        counted=lambda resource: None,
    ) as patient:
        await PageViewStore(patient).apply([late])


async def waits_for_lock(sql: asyncpg.Connection) -> None:
    """Waits until a session waits for a lock of `sql`."""
    waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid))"

    async def does() -> bool:
        return bool(await sql.fetchval(waits))

    await eventually(does)


@pytest.mark.parametrize("state", ["XX001", "55000", "38000"])
async def test_a_page_with_a_damaged_row_blocks_no_other(
    store: PageViewStore, parked: Parking, sql: asyncpg.Connection, state: str
) -> None:
    async with sql.transaction():
        await sql.execute("LOCK page_views IN SHARE MODE")
        await store.apply([batch({"stuck": 1, "home": 2})])
    await sql.execute(STUCK.format(does=RAISES.format(state)) + TRIGGER)
    await parked.settle()
    assert (await sums(sql), await waiting(sql)) == ({"home": 2}, {"stuck": 1})
    await PageViewStore(store._database).apply([batch({"stuck": 4, "news": 3})])
    assert (await sums(sql), await waiting(sql)) == ({"home": 2, "news": 3}, {"stuck": 5})


async def test_a_pass_ends_however_many_pages_are_slow(
    store: PageViewStore, parked: Parking, sql: asyncpg.Connection, hasty: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each pass tries at least one single page, and the next pass begins with the pages that were not tried. Otherwise
    the slow pages, which come first by name, would be tried forever. (On a busy machine, a page that is not slow may
    take too long.)"""
    monkeypatch.setattr(salvage, "ALL", timedelta(0))
    monkeypatch.setattr(PageViewStore, "_apply_at_once", _too_long)
    await sql.execute(STUCK.format(does="PERFORM pg_sleep(100)").replace("= 'stuck'", "LIKE 'stuck%'") + TRIGGER)
    pages = {f"stuck {place}": 1 for place in range(4)}
    await store.apply([batch({**pages, "zebra": 1})])
    passes = 1
    while await stored(sql, "zebra") == 0:
        await parked.settle()
        passes += 1
    assert passes <= 20
    assert await waiting(sql) == pages
    assert await sql.fetchval("SELECT count(*) FROM parked_views WHERE tries >= 1") >= 3


async def _too_long(store: PageViewStore, batches: object) -> int:
    raise TookTooLong("The database does not answer in time.")


async def test_a_row_locked_only_by_a_foreign_key_counts_as_free(
    store: PageViewStore, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sql.execute("INSERT INTO page_views VALUES ('home', 0)")
    monkeypatch.setattr(PageViewStore, "_apply_at_once", _too_long)
    async with sql.transaction():
        await sql.execute("SELECT FROM page_views WHERE page = 'home' FOR KEY SHARE")
        await store.apply([batch({"home": 2})])
        assert await waiting(sql) == {}
    assert await stored(sql) == 2


async def test_concurrent_settlings_add_views_once(
    store: PageViewStore, parked: Parking, sql: asyncpg.Connection
) -> None:
    pages = [f"page {place}" for place in range(30)]
    async with sql.transaction():
        await sql.execute("LOCK page_views IN SHARE MODE")
        await store.apply([batch(dict.fromkeys(pages, 1))])
    await asyncio.gather(*(parked.settle() for _ in range(4)))
    await parked.settle()
    assert (await sums(sql), await waiting(sql)) == (dict.fromkeys(pages, 1), {})


async def test_a_settling_with_an_unknown_outcome_adds_views_once(
    endpoints: Endpoints, store: PageViewStore, poller: Poller, parked: Parking, sql: asyncpg.Connection
) -> None:
    async with stuck(sql):
        await store.apply([batch({"stuck": 3})])
    async with (
        PostgresWire(endpoints.database_url) as wire,
        open_database(wire.url, connections=2, timeout=timedelta(seconds=20), counted=lambda resource: None) as behind,
    ):
        lost = wire.cut_after("^COMMIT")
        with pytest.raises(DatabaseUnavailable):
            await Parking(behind, poller, lambda views: None).settle()
        assert lost.dropped.is_set()
    await parked.settle()
    assert (await stored(sql, "stuck"), await waiting(sql)) == (3, {})


async def test_the_most_viewed_pages_include_parked_views(store: PageViewStore, sql: asyncpg.Connection) -> None:
    await store.apply([batch({"a": 5, "b": 4, "c": 3, "d": 1})])
    async with sql.transaction():
        await sql.execute("LOCK page_views IN SHARE MODE")
        await store.apply([batch({"d": 3, "e": 9, "c": 2})])
        assert await store.top(4) == [("e", 9), ("a", 5), ("c", 5), ("b", 4)]
        assert await store.top(1) == [("e", 9)]


async def test_parked_views_of_a_page_that_is_now_refused_become_a_dead_letter(
    store: PageViewStore, parked: Parking, sql: asyncpg.Connection, dead: list[int]
) -> None:
    async with stuck(sql):
        await store.apply([batch({"stuck": 3}), batch({"stuck": 4})])
    await sql.execute(STUCK.format(does=RAISES.format("P0001")) + TRIGGER)
    await parked.settle()
    letters = await store.dead_letters(10, 0)
    assert [(letter.page, letter.delta, letter.reason) for letter in letters] == [("stuck", 7, "Not this one.")]
    assert (await waiting(sql), await total(store), sum(dead)) == ({}, 0, 7)
    told = "SELECT count(*) FROM outbox WHERE resource = 'page_views' AND key = 'stuck'"
    assert await sql.fetchval(told) == 1, "Caches are told: it is in no total any more."


async def test_a_salvaged_batch_parks_the_views_of_a_locked_page(
    store: PageViewStore, parked: Parking, sql: asyncpg.Connection
) -> None:
    async with stuck(sql):
        await sql.execute("SAVEPOINT it")
        assert await store.salvage(batch({"": 2, "stuck": 3, "home": 1}), 1) == (1, 2)
        assert (await sums(sql), await waiting(sql)) == ({"stuck": 0, "home": 1}, {"stuck": 3})
    await parked.settle()
    assert await sums(sql) == {"stuck": 3, "home": 1}


async def test_the_parked_views_of_one_page_are_merged_into_few_rows(
    store: PageViewStore, parked: Parking, sql: asyncpg.Connection
) -> None:
    async with stuck(sql):
        for _ in range(parking.WORTH_MERGING + 5):
            await store.apply([batch({"stuck": 1})])
        await parked.settle()
        assert await sql.fetchval("SELECT count(*) FROM parked_views") == 2
        assert await total(store) == parking.WORTH_MERGING + 5


async def test_a_page_that_was_too_slow_is_retried_after_the_others_and_later(
    store: PageViewStore, parked: Parking, sql: asyncpg.Connection, hasty: None
) -> None:
    async with stuck(sql, "it takes too long"):
        await store.apply([batch({"stuck": 2})])
        assert await sql.fetchval("SELECT max(tries) FROM parked_views") == 1
        await parked.settle()
        assert await sql.fetchval("SELECT max(tries) FROM parked_views") == 1, "It is not due yet."
        await sql.execute("UPDATE parked_views SET tried_at = '-infinity'")
        await parked.settle()
        assert await sql.fetchval("SELECT max(tries) FROM parked_views") == 2


async def test_views_that_are_parked_for_long_are_reported_as_trouble(
    store: PageViewStore, parked: Parking, sql: asyncpg.Connection
) -> None:
    async with stuck(sql):
        await store.apply([batch({"stuck": 2})])
        await parked.settle()
        assert parked.trouble is None, "A moment is no trouble yet."
        await sql.execute("SAVEPOINT it")
    await sql.execute("UPDATE parked_views SET parked_at = now() - interval '1 minute'")
    async with stuck(sql):
        await parked.settle()
        assert (
            str(parked.trouble) == "views of the page 'stuck' wait for its row: Its row is locked, or was a moment ago."
        )
    await parked.settle()
    assert parked.trouble is None


async def test_parked_views_of_a_process_that_dies_before_acknowledging_count_once(
    endpoints: Endpoints,
    opened: Cache,
    redis: Redis,
    sql: asyncpg.Connection,
    parked: Parking,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A flusher has counted and parked views, and committed · it is killed · another one reclaims its entries"""
    monkeypatch.setattr(gathering, "ABANDONED", timedelta(0))
    monkeypatch.setattr(gathering, "BLOCK", timedelta(milliseconds=5))
    async with views_over(endpoints, endpoints.database_url, opened, timedelta(seconds=1)) as views:
        async with stuck(sql):
            await wait(redis, {"stuck": 2, "home": 1}, {"stuck": 3}, {"home": 4})
            views.flusher = views.new_flusher(amount=MANY)
            await views.commit_without_acknowledging()
            assert (await views.total("stuck"), await views.total()) == (5, 5)
            await views.carry(views.new_flusher(amount=MANY))
            assert (await redis.xlen(HOME.stream), await waiting(sql), await stored(sql)) == (0, {"stuck": 5}, 5)
            assert await views.total("stuck") == 5
        await parked.settle()
        assert (await stored(sql, "stuck"), await views.total("stuck")) == (5, 5)
        assert (views.flow[Flow.DEAD], views.flow[Flow.FLUSHED]) == (0, 10)
