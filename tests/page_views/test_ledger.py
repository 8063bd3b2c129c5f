"""The ledger: a batch counts once, no clock turns it into dead letters, and old partitions are dropped once that is
safe."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from functools import partial

import asyncpg
import pytest

from app.caching import made_at
from app.caching.write_behind.batch_id import YEAR_9999, ulid
from app.database import Database, open_database
from app.embedded import Endpoints
from app.errors import Uncountable
from app.page_views.ledger import AGE, HALF, KEPT, SOON
from app.page_views.models import Counted
from app.page_views.store import PageViewStore
from app.schema import migrate
from tests.caching.write_behind.views import batch_of, drop_partitions, stored, sums
from tests.eventually import eventually
from tests.fresh_database import fresh_database
from tests.histories.exactly_once.ends import psql
from tests.least_privilege import a_role, quoted

pytestmark = pytest.mark.usefixtures("ledger")

HOUR = timedelta(hours=1)
START = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def store(database: Database) -> PageViewStore:
    """A new store."""
    return PageViewStore(database)


def of(hour: datetime) -> Counted:
    """Returns a batch with one view, made in this hour."""
    name = ulid(hour.timestamp() * 1000)
    return Counted(name, made_at(name), {"home": 1})


def hours(number: int, first: datetime = START) -> list[datetime]:
    """Returns that many consecutive hours."""
    return [first + place * HOUR for place in range(number)]


async def opened(sql: asyncpg.Connection, some: list[datetime], ago: timedelta = 2 * AGE) -> None:
    """Opens these hours one after the other, as if that long ago by Postgres' clock."""
    for hour in some:
        await sql.fetchval("SELECT open_ledger_hour($1)", hour)
        await sql.execute("UPDATE ledger_hours SET created_at = now() - $2::interval WHERE hour = $1", hour, ago)


async def pruned(database: Database, sql: asyncpg.Connection, newest: datetime) -> list[datetime]:
    """Flushes a batch of the newest hour, which drops the hours that may be dropped. Returns the remaining hours."""
    await PageViewStore(database).apply([of(newest)])
    left = [row["hour"] for row in await sql.fetch("SELECT hour FROM ledger_hours ORDER BY hour")]
    there = await sql.fetch(
        "SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent = 'applied'::regclass"
    )
    assert sorted(row["name"] for row in there) == [f"applied_{hour:%Y%m%d%H}" for hour in left]
    return left


async def floor(sql: asyncpg.Connection) -> datetime:
    """Returns the ledger's floor."""
    found: datetime = await sql.fetchval("SELECT hour FROM ledger_floor")
    return found


async def ids_from(store: PageViewStore) -> datetime:
    """Returns the least time for new ids."""
    *_, found = await store.standing([], [])
    return found


async def counts_once(store: PageViewStore, sql: asyncpg.Connection, batch: Counted) -> None:
    """Checks that a batch counts once, however often it is written, and that every reader of the ledger finds it."""
    before, letters = await stored(sql), await store.count_dead_letters()
    assert await store.apply([batch]) == 1
    assert await store.apply([batch]) == 0
    assert await store.salvage(batch, 1) == (0, 0)
    _, applied, *_ = await store.standing([], [(batch.id, batch.made_at)])
    assert applied == {batch.id}
    assert await stored(sql) == before + 1
    assert await store.count_dead_letters() == letters


# The hour in which a batch is recorded.


@pytest.mark.parametrize(
    "age", [timedelta(hours=24, minutes=1), timedelta(days=9000), -2 * HOUR, -25 * HOUR, timedelta(days=-365_000)]
)
async def test_a_batch_counts_once_whatever_its_time(
    store: PageViewStore, sql: asyncpg.Connection, age: timedelta
) -> None:
    name = batch_of(age)
    await counts_once(store, sql, Counted(name, made_at(name), {"home": 1}))


async def test_a_batch_of_the_last_possible_hour_counts_once(store: PageViewStore, sql: asyncpg.Connection) -> None:
    name = ulid(YEAR_9999)
    await counts_once(store, sql, Counted(name, made_at(name), {"home": 1}))


# The floor.


async def test_a_batch_below_the_floor_becomes_dead_letters_once(store: PageViewStore, sql: asyncpg.Connection) -> None:
    await sql.execute("UPDATE ledger_floor SET hour = $1", START)
    before = START - timedelta(seconds=1)
    gone = Counted(name := ulid(before.timestamp() * 1000), made_at(name), {"home": 5, "a\0b": 2})
    with pytest.raises(Uncountable, match=r"The ledger of its hour, 2026-02-28 23:00 UTC, is gone"):
        await store.apply([of(START), gone])
    assert await sums(sql) == {}
    answers = await asyncio.gather(*(store.salvage(gone, 1) for _ in range(3)))
    assert sorted(answers) == [(0, 0), (0, 0), (0, 7)]
    assert await store.salvage(gone, 2) == (0, 0)
    _, applied, *_ = await store.standing([], [(gone.id, gone.made_at)])
    assert applied == {gone.id}, "Whoever has its receipt does not take it on again."
    assert await sums(sql) == {}
    letters = await store.dead_letters(limit=9, after=0)
    assert {(letter.page, letter.delta, letter.batch) for letter in letters} == {
        ("home", 5, gone.id),
        (None, None, gone.id),
    }
    assert all("is gone: whether it was counted cannot be told" in letter.reason for letter in letters)
    told = await sql.fetch("SELECT key FROM outbox WHERE resource = 'page_views'")
    assert [row["key"] for row in told] == ["home"]
    await counts_once(store, sql, of(START))


# Dropped hours.


async def test_a_flush_drops_old_hours_and_raises_the_floor(database: Database, sql: asyncpg.Connection) -> None:
    some = hours(KEPT + 3)
    counted = of(some[0])
    await PageViewStore(database).apply([counted])
    await opened(sql, some)
    assert await pruned(database, sql, some[-1]) == some[3:]
    assert await floor(sql) == some[3]
    with pytest.raises(Uncountable):
        await PageViewStore(database).apply([counted])
    assert await stored(sql) == 2


async def test_no_hour_is_dropped_early_when_the_clock_of_postgres_steps_ahead(
    database: Database, sql: asyncpg.Connection
) -> None:
    some = hours(KEPT)
    await opened(sql, some, ago=timedelta(days=1000))
    assert await pruned(database, sql, some[-1]) == some


async def test_no_hour_is_dropped_early_when_the_clock_of_postgres_steps_back(
    database: Database, sql: asyncpg.Connection
) -> None:
    some = hours(KEPT + 3)
    await opened(sql, some, ago=timedelta(days=-2))
    assert await pruned(database, sql, some[-1]) == some


async def test_no_hour_is_dropped_early_when_many_are_opened_at_once(
    database: Database, sql: asyncpg.Connection
) -> None:
    """Postgres was away for two days, and a long backlog is flushed. Another flusher has pending batches of the hour in
    which Postgres went away. That hour was opened long ago, but the next one only now."""
    some = hours(2 * KEPT)
    await opened(sql, some[:3])
    await opened(sql, some[3:], ago=timedelta(0))
    assert await pruned(database, sql, some[-1]) == some[2:]
    await counts_once(PageViewStore(database), sql, of(some[2]))


async def test_a_future_hour_does_not_drop_the_hours_before_it(database: Database, sql: asyncpg.Connection) -> None:
    """A clock was ahead for a moment. The future hour is the first to be old enough, but earlier hours are in use."""
    some, ahead = hours(KEPT + 3), START + timedelta(days=365)
    await opened(sql, [ahead, *some])
    assert await pruned(database, sql, some[-1]) == [*some[3:], ahead]
    assert await floor(sql) == some[3]


async def test_pruning_does_not_wait_for_a_dump_and_blocks_no_flush(
    endpoints: Endpoints, sql: asyncpg.Connection
) -> None:
    """A dump reads the ledger · a flush wants to drop an old partition, and would wait for the dump · all later flushes
    would wait behind it"""
    some = hours(KEPT + 1)
    await opened(sql, some)
    async with open_database(
        endpoints.database_url, connections=2, timeout=timedelta(seconds=90), counted=lambda resource: None
    ) as patient:
        store = PageViewStore(patient)
        async with sql.transaction():
            await sql.execute("SELECT count(*) FROM applied")
            began = time.monotonic()
            for _ in range(2):
                await store.apply([of(some[-1])])
            assert time.monotonic() - began < 20, "It waits 100 ms, and without that limit 40 s."
        assert await stored(sql) == 2
        assert await floor(sql) < START
        assert await pruned(patient, sql, some[-1]) == some[1:]


async def test_the_ledger_is_not_pruned_at_each_flush(store: PageViewStore, sql: asyncpg.Connection) -> None:
    some = hours(KEPT + 1)
    await store.apply([of(some[0])])
    await opened(sql, some)
    await store.apply([of(some[-1])])
    assert await floor(sql) < START


# The least time for new ids.


async def test_ids_are_made_above_the_hours_that_have_reached_half_of_their_life(
    store: PageViewStore, sql: asyncpg.Connection
) -> None:
    """A process that has learned that time has the other half until that time is below the floor."""
    assert await ids_from(store) == await floor(sql)
    some = hours(SOON)
    await opened(sql, some, ago=timedelta(0))
    assert await ids_from(store) == await floor(sql)
    await opened(sql, [some[-1] + HOUR], ago=timedelta(0))
    assert await ids_from(store) == some[1]
    await sql.execute("UPDATE ledger_hours SET created_at = now() - $1::interval", HALF + timedelta(minutes=1))
    assert await ids_from(store) == some[-1] + HOUR, "So much time has gone: but the newest hour is in use."


async def test_a_future_hour_does_not_move_the_ids_into_the_future(
    store: PageViewStore, sql: asyncpg.Connection
) -> None:
    ahead = START + timedelta(days=365)
    await opened(sql, [ahead])
    assert await ids_from(store) == await floor(sql)
    await opened(sql, hours(SOON + 1))
    assert await ids_from(store) == hours(SOON + 1)[-1]


# Missing partitions.


async def test_a_partition_that_somebody_detached_is_attached_again(
    store: PageViewStore, sql: asyncpg.Connection
) -> None:
    """An empty partition in its place would not have the batch, and the batch would count twice."""
    counted = of(START)
    await store.apply([counted])
    for detach in ("DETACH PARTITION applied_2026030100", "DETACH PARTITION applied_2026030100 CONCURRENTLY"):
        await sql.execute(f"ALTER TABLE applied {detach}")
        assert await store.apply([counted]) == 0
        await sql.execute(f"ALTER TABLE applied {detach}")
        assert await PageViewStore(store._database).salvage(counted, 1) == (0, 0)
    assert await stored(sql) == 1


async def test_a_half_detached_partition_is_attached_again(
    store: PageViewStore, sql: asyncpg.Connection, endpoints: Endpoints
) -> None:
    """R reads the ledger · somebody detaches a partition, which waits for R · the detach is cancelled: nobody can write
    into the partition, but the catalogue still lists it"""
    counted = of(START)
    await store.apply([counted])
    async with (
        psql(endpoints.database_url) as impatient,
        psql(endpoints.database_url) as reader,
        reader.transaction(isolation="repeatable_read"),
    ):
        await reader.execute("SELECT count(*) FROM applied")
        await impatient.execute("SET statement_timeout = 500")
        with pytest.raises(asyncpg.QueryCanceledError):
            await impatient.execute("ALTER TABLE applied DETACH PARTITION applied_2026030100 CONCURRENTLY")
    assert await sql.fetchval("SELECT inhdetachpending FROM pg_inherits WHERE inhparent = 'applied'::regclass")
    assert await store.apply([counted]) == 0
    assert await store.apply([of(START)]) == 1
    assert await stored(sql) == 2


async def test_an_hour_that_cannot_be_dropped_blocks_no_other_hour_and_no_flush(
    database: Database, sql: asyncpg.Connection
) -> None:
    """Somebody has created a view on the partition of the hour."""
    some = hours(KEPT + 3)
    await opened(sql, some)
    await sql.execute("CREATE VIEW somebodys AS SELECT * FROM applied_2026030101")
    try:
        assert await PageViewStore(database).apply([of(some[-1])]) == 1
        left = [row["hour"] for row in await sql.fetch("SELECT hour FROM ledger_hours ORDER BY hour")]
        assert left == [some[1], *some[3:]]
    finally:
        await sql.execute("DROP VIEW somebodys")


async def test_a_partition_of_another_role_blocks_no_other_hour(endpoints: Endpoints) -> None:
    """It was made by the service's role, before partitions were made with the owner's rights."""
    some = hours(KEPT + 3)
    async with a_role(endpoints.database_url) as name, fresh_database(endpoints.database_url) as url:
        await asyncio.to_thread(migrate, url)
        sql = await asyncpg.connect(url)
        await opened(sql, some)
        await sql.execute(f"GRANT ALL ON ledger_hours, ledger_floor TO {quoted(name)}")
        await sql.execute(f"ALTER FUNCTION drop_ledger_hour OWNER TO {quoted(name)}")
        for table in ("applied", *(f"applied_{hour:%Y%m%d%H}" for hour in some if hour != some[1])):
            await sql.execute(f"ALTER TABLE {table} OWNER TO {quoted(name)}")
        async with open_database(
            url, connections=2, timeout=timedelta(seconds=20), counted=lambda resource: None
        ) as database:
            assert await PageViewStore(database).apply([of(some[-1])]) == 1
        left = [row["hour"] for row in await sql.fetch("SELECT hour FROM ledger_hours ORDER BY hour")]
        assert left == [some[1], *some[3:]]
        await sql.close()


async def test_a_partition_that_somebody_dropped_is_created_again(
    store: PageViewStore, sql: asyncpg.Connection
) -> None:
    await store.apply([of(START)])
    for write in (partial(store.apply, [of(START)]), partial(store.salvage, of(START), 1)):
        await drop_partitions(sql)
        await write()
    assert await stored(sql) == 3


async def test_an_hour_dropped_by_another_process_is_not_opened_again(
    store: PageViewStore, sql: asyncpg.Connection
) -> None:
    """A has opened an hour, and holds a batch of it · B drops the hour · A flushes: it finds no partition, checks, and
    learns the floor. If A opened the hour again, the new partition would have none of the old batches."""
    await store.apply([counted := of(START)])
    await sql.execute("SELECT drop_ledger_hour($1)", START)
    with pytest.raises(Uncountable):
        await store.apply([counted])
    assert await store.salvage(counted, 1) == (0, 1)
    assert await stored(sql) == 1


async def test_an_hour_is_not_opened_while_it_is_being_dropped(
    store: PageViewStore, sql: asyncpg.Connection, endpoints: Endpoints
) -> None:
    """B drops an hour, and has not committed · A wants to open it: unless A waits, it sees the old floor"""
    await store.apply([counted := of(START)])
    async with psql(endpoints.database_url) as other:
        async with other.transaction():
            await other.execute("SELECT drop_ledger_hour($1)", START)
            opening = asyncio.create_task(sql.fetchval("SELECT open_ledger_hour($1)", START))

            async def it_waits_or_is_done() -> bool:
                waits = "SELECT count(*) FROM pg_locks WHERE pid = $1 AND NOT granted"
                return opening.done() or bool(await other.fetchval(waits, sql.get_server_pid()))

            await eventually(it_waits_or_is_done)
        assert await opening is False
    with pytest.raises(Uncountable):
        await store.apply([counted])


async def test_bytes_that_are_no_batch_are_recognized_whenever_they_come_again(
    store: PageViewStore, sql: asyncpg.Connection
) -> None:
    """Such bytes have no time. They belong to no hour of the ledger, so no dropped hour removes them."""
    await store.keep_unreadable("views:{1} 18-0", b"{", "It is no batch.", 1)
    await drop_partitions(sql)
    await store.keep_unreadable("views:{1} 18-0", b"{", "It is no batch.", 2)
    assert await store.count_dead_letters() == 1
