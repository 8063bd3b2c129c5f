"""Page views in Postgres: each batch is counted once, and uncountable views are kept as dead letters."""

import asyncio
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import partial

import asyncpg
import pytest

from app.caching import made_at
from app.database import Database, open_database
from app.embedded import Endpoints
from app.errors import Conflict, DatabaseUnavailable, NotFound, Uncountable
from app.metrics import Metrics
from app.page_views.models import Counted, DeadLetter
from app.page_views.store import PageViewStore
from app.settings import Settings
from app.wiring import open_resources
from tests.caching.write_behind.views import batch_of, stored, sums
from tests.eventually import eventually
from tests.faults.postgres_wire import PostgresWire

LARGEST = 2**53 - 1
REFUSES = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.page = 'poison' THEN RAISE EXCEPTION 'Nobody may count this.' USING ERRCODE = '{state}'; END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON page_views FOR EACH ROW EXECUTE FUNCTION refuse();
"""
ALLOWS = "DROP TRIGGER IF EXISTS refuse ON page_views; DROP FUNCTION IF EXISTS refuse()"

UNCOUNTABLE = {
    "a NUL": ("a\0b", 1, "Its page is no text that Postgres can keep."),
    "half of a pair": ("\ud800", 1, "Its page is no text that Postgres can keep."),
    "a page that is too long": ("x" * 2049, 1, "page_length"),
    "no page": ("", 1, "page_length"),
    "too many views": ("many", 2**63, "9,223,372,036,854,775,808 views are more than Postgres can count."),
    "too many views in all": ("full", 1, "views_exact"),
    "what a trigger refuses": ("poison", 1, "Nobody may count this."),
}

AWAY = ["08006", "25006", "40001", "40P01", "53200", "57P01"]
"""A lost connection, a standby, a serialization failure, a deadlock, out of memory, a shutdown."""


@pytest.fixture
def store(database: Database) -> PageViewStore:
    """A new store."""
    return PageViewStore(database)


@pytest.fixture
async def sql(sql: asyncpg.Connection) -> asyncpg.Connection:
    """A connection like psql's, without the trigger that refuses pages."""
    await sql.execute(ALLOWS)
    return sql


def batch(deltas: Mapping[str, int], age: timedelta = timedelta(0)) -> Counted:
    """Returns a batch that was made that long ago."""
    name = batch_of(age)
    return Counted(name, made_at(name), deltas)


async def letters(store: PageViewStore) -> list[DeadLetter]:
    """Returns all dead letters."""
    return await store.dead_letters(limit=1000, after=0)


async def refuse(sql: asyncpg.Connection, state: str = "P0001") -> None:
    """Makes Postgres refuse the page `poison` from now on."""
    await sql.execute(REFUSES.format(state=state))


async def make_uncountable(sql: asyncpg.Connection) -> None:
    """Makes Postgres refuse each of UNCOUNTABLE from now on."""
    await sql.execute("INSERT INTO page_views VALUES ('full', $1)", LARGEST)
    await refuse(sql)


# Counted batches.


async def test_a_batch_is_counted_once(store: PageViewStore, sql: asyncpg.Connection) -> None:
    one, other = batch({"home": 2, "news": 3}), batch({"home": 5})
    assert await store.apply([one, other]) == 2
    assert await store.apply([one]) == 0
    assert await store.apply([other, batch({"home": 1}), one]) == 1
    assert await sums(sql) == {"home": 8, "news": 3}
    assert await store.salvage(one, 1) == (0, 0)
    assert await sums(sql) == {"home": 8, "news": 3}


async def test_a_batch_counted_by_several_flushers_at_once_counts_once(
    store: PageViewStore, sql: asyncpg.Connection
) -> None:
    batches = [batch({f"page {page}": 1 for page in range(50)}) for _ in range(20)]
    await asyncio.gather(*(store.apply(batches[place:] + batches[:place]) for place in range(6)))
    assert set((await sums(sql)).values()) == {20}


async def test_flushers_of_the_same_pages_do_not_deadlock(store: PageViewStore, sql: asyncpg.Connection) -> None:
    """Each flusher has its own batches, with the pages in another order."""
    pages = [f"page {page}" for page in range(300)]
    await store.apply([batch(dict.fromkeys(pages, 1))])
    orders = [pages[place * 50 :] + pages[: place * 50] for place in range(6)]
    for _ in range(3):
        await asyncio.gather(*(store.apply([batch(dict.fromkeys(order, 1))]) for order in orders))
    assert set((await sums(sql)).values()) == {19}


async def test_the_standing_contains_views_and_ledger(store: PageViewStore, sql: asyncpg.Connection) -> None:
    old, new, unknown = batch({"home": 2}, timedelta(hours=3)), batch({"home": 3}), batch({"home": 4})
    await store.apply([old, new])
    named = [(each.id, each.made_at) for each in (old, new, unknown)]
    views, applied, floor, ids_from = await store.standing(["home", "news"], named)
    assert (views, applied) == ({"home": 5}, frozenset({old.id, new.id}))
    assert floor <= ids_from <= new.hour
    assert await store.standing([], []) == ({}, frozenset(), floor, ids_from)


async def test_a_flush_that_contains_anything_uncountable_counts_nothing(
    store: PageViewStore, sql: asyncpg.Connection
) -> None:
    await make_uncountable(sql)
    good = batch({"home": 1})
    for page, delta, _reason in UNCOUNTABLE.values():
        with pytest.raises(Uncountable):
            await store.apply([good, batch({page: delta})])
        assert await stored(sql) == 0
    await store.apply([good])
    assert await stored(sql) == 1


# Salvaged batches.


@pytest.mark.parametrize("name", UNCOUNTABLE)
async def test_a_salvaged_batch_counts_everything_that_is_not_refused(
    store: PageViewStore, sql: asyncpg.Connection, name: str
) -> None:
    await make_uncountable(sql)
    page, delta, reason = UNCOUNTABLE[name]
    salvaged = batch({"home": 3, page: delta, "news": 4})
    before = datetime.now(UTC) - timedelta(minutes=1)
    assert await store.salvage(salvaged, 7) == (2, delta)
    assert {**await sums(sql), "full": 0} == {"home": 3, "news": 4, "full": 0}
    (letter,) = await letters(store)
    assert reason in letter.reason
    assert (letter.batch, letter.deliveries) == (salvaged.id, 7)
    assert letter.created_at > before
    if letter.entry is None:
        assert (letter.page, letter.delta) == (page, delta)
    else:
        assert (letter.page, letter.delta) == (None, None)
        assert json.loads(letter.entry) == {page: delta}
    assert await store.salvage(salvaged, 8) == (0, 0)
    assert await store.count_dead_letters() == 1
    assert await stored(sql, "news") == 4


async def test_each_refused_page_of_a_batch_becomes_a_dead_letter(
    store: PageViewStore, sql: asyncpg.Connection
) -> None:
    await make_uncountable(sql)
    poison = {page: delta for page, delta, _reason in UNCOUNTABLE.values()}
    good = {f"page {place}": place + 1 for place in range(490)}
    assert await store.salvage(batch(good | poison), 1) == (490, sum(poison.values()))
    assert await store.count_dead_letters() == len(poison)
    assert {page: views for page, views in (await sums(sql)).items() if page != "full"} == good


async def test_bytes_that_are_no_batch_become_one_dead_letter(store: PageViewStore) -> None:
    keep = partial(store.keep_unreadable, "views:{1} 17-0", b"\xff\x00{", "It is no batch.", 3)
    await asyncio.gather(*(keep() for _ in range(4)))
    await keep()
    await store.keep_unreadable("views:{1} 17-1", b"", "It is no batch.", 1)
    first, second = await letters(store)
    assert (first.page, first.delta, first.entry) == (None, None, b"\xff\x00{")
    assert (first.batch, first.reason, first.deliveries) == ("views:{1} 17-0", "It is no batch.", 3)
    assert second.entry == b""


# Errors that no view causes.


async def test_an_error_that_no_view_causes_makes_no_dead_letter(store: PageViewStore, sql: asyncpg.Connection) -> None:
    held = batch({"home": 3, "poison": 4})
    for state in AWAY:
        await refuse(sql, state)
        with pytest.raises(DatabaseUnavailable):
            await store.apply([held])
        with pytest.raises(DatabaseUnavailable):
            await store.salvage(held, 1)
        await sql.execute(ALLOWS)
    assert await store.count_dead_letters() == 0
    assert await sums(sql) == {}
    assert await store.salvage(held, 2) == (2, 0)
    assert await sums(sql) == {"home": 3, "poison": 4}


async def test_a_salvage_with_an_unknown_outcome_is_done_once(
    endpoints: Endpoints, sql: asyncpg.Connection, store: PageViewStore
) -> None:
    await refuse(sql)
    salvaged = batch({"home": 3, "poison": 4})
    async with (
        PostgresWire(endpoints.database_url) as wire,
        open_database(wire.url, connections=2, timeout=timedelta(seconds=20), counted=lambda resource: None) as behind,
    ):
        wired = PageViewStore(behind)
        await wired.apply([batch({"news": 1})])
        lost = wire.cut_after("^COMMIT")
        with pytest.raises(DatabaseUnavailable):
            await wired.salvage(salvaged, 1)
        assert lost.dropped.is_set()
    assert await store.salvage(salvaged, 2) == (0, 0)
    assert await store.count_dead_letters() == 1
    assert await sums(sql) == {"home": 3, "news": 1}


# Dead letters.


async def one_letter(store: PageViewStore, sql: asyncpg.Connection) -> int:
    """Returns the id of a new dead letter with four views of `poison`, which Postgres refuses."""
    await refuse(sql)
    await store.salvage(batch({"poison": 4}), 1)
    (letter,) = await letters(store)
    return letter.id


async def test_letters_are_listed_a_page_at_a_time(store: PageViewStore, sql: asyncpg.Connection) -> None:
    await refuse(sql)
    for _ in range(5):
        await store.salvage(batch({"poison": 4}), 1)
    first = await store.dead_letters(limit=3, after=0)
    second = await store.dead_letters(limit=3, after=first[-1].id)
    assert [letter.id for letter in first + second] == sorted(letter.id for letter in await letters(store))
    assert (len(first), len(second)) == (3, 2)
    assert await store.dead_letters(limit=3, after=second[-1].id) == []


async def test_a_letter_is_replayed_once_when_its_cause_is_gone(store: PageViewStore, sql: asyncpg.Connection) -> None:
    letter = await one_letter(store, sql)
    await sql.execute(ALLOWS)
    answers = await asyncio.gather(*(store.replay(letter) for _ in range(3)), return_exceptions=True)
    assert sum(isinstance(answer, NotFound) for answer in answers) == 2
    assert ("poison", 4) in answers
    assert await stored(sql, "poison") == 4
    assert await store.count_dead_letters() == 0
    with pytest.raises(NotFound):
        await store.replay(letter)


async def test_a_dead_letter_writes_an_outbox_row_for_its_page(store: PageViewStore, sql: asyncpg.Connection) -> None:
    await one_letter(store, sql)
    rows = await sql.fetch("SELECT resource, key, version, done_at FROM outbox")
    assert [tuple(row) for row in rows] == [("page_views", "poison", 0, None)]


async def test_a_letter_that_is_still_refused_stays(store: PageViewStore, sql: asyncpg.Connection) -> None:
    letter = await one_letter(store, sql)
    await sql.execute("TRUNCATE outbox")
    with pytest.raises(Conflict, match=f"Dead letter {letter} is still refused: Nobody may count this."):
        await store.replay(letter)
    assert [found.id for found in await letters(store)] == [letter]
    assert await sql.fetchval("SELECT count(*) FROM outbox") == 0


async def test_a_replay_while_postgres_is_away_leaves_the_letter(store: PageViewStore, sql: asyncpg.Connection) -> None:
    letter = await one_letter(store, sql)
    await sql.execute(ALLOWS)
    await refuse(sql, "40P01")
    with pytest.raises(DatabaseUnavailable):
        await store.replay(letter)
    assert await store.count_dead_letters() == 1


async def test_a_replay_and_its_outbox_row_are_one_transaction(
    store: PageViewStore, sql: asyncpg.Connection, endpoints: Endpoints
) -> None:
    """The connection is cut before COMMIT: the views are not counted, the letter remains, and no outbox row is left."""
    letter = await one_letter(store, sql)
    await sql.execute("TRUNCATE outbox")
    await sql.execute(ALLOWS)
    async with (
        PostgresWire(endpoints.database_url) as wire,
        open_database(wire.url, connections=2, timeout=timedelta(seconds=20), counted=lambda resource: None) as behind,
    ):
        wired = PageViewStore(behind)
        await wired.count_dead_letters()
        for statement in ("INSERT INTO outbox", "INSERT INTO page_views", "DELETE FROM dead_letters"):
            wire.cut_after(statement)
            with pytest.raises(DatabaseUnavailable):
                await wired.replay(letter)
            assert await sums(sql) == {}
            assert await sql.fetchval("SELECT count(*) FROM outbox") == 0
            assert await store.count_dead_letters() == 1
    await store.replay(letter)
    assert await sums(sql) == {"poison": 4}
    row = await sql.fetchrow("SELECT resource, key, version, done_at FROM outbox")
    assert row is not None
    assert tuple(row) == ("page_views", "poison", 0, None)


async def test_a_letter_without_a_page_can_only_be_discarded(store: PageViewStore) -> None:
    await store.keep_unreadable("views:{1} 19-0", b"{", "It is no batch.", 1)
    (letter,) = await letters(store)
    with pytest.raises(Conflict, match="it can only be discarded"):
        await store.replay(letter.id)
    assert await store.count_dead_letters() == 1
    await store.discard(letter.id)
    assert await store.count_dead_letters() == 0


async def test_a_discarded_letter_is_never_counted(store: PageViewStore, sql: asyncpg.Connection) -> None:
    letter = await one_letter(store, sql)
    await sql.execute(ALLOWS)
    await store.discard(letter)
    for again in (store.discard, store.replay):
        with pytest.raises(NotFound, match=f"There is no dead letter {letter}."):
            await again(letter)
    assert await sums(sql) == {}


async def test_a_cached_total_follows_a_replay(settings: Settings, sql: asyncpg.Connection) -> None:
    """A replay counts the views without the stream, and the relay drops the total."""
    await refuse(sql)
    async with open_resources(settings, Metrics()) as resources:
        store, counters = resources.page_view_store, resources.page_views
        await store.salvage(batch({"poison": 4}), 1)
        (letter,) = await letters(store)

        async def carried() -> bool:
            return not await sql.fetchval("SELECT count(*) FROM outbox WHERE done_at IS NULL")

        await eventually(carried)  # The new letter also makes the relay drop the total.
        assert (await counters.get("poison")).amount == 0
        assert (await counters.get("poison")).cached
        await sql.execute(ALLOWS)
        await store.replay(letter.id)

        async def is_told() -> bool:
            return (await counters.get("poison")).amount == 4

        await eventually(is_told)
