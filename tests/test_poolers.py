"""Postgres behind PgBouncer, which gives each transaction any session: the service works as without it, its limits
hold, and nobody else finds a trace of it in a session."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

import asyncpg
import httpx
import pytest
from sqlalchemy import BigInteger, ColumnClause, column, text

from app.check import check
from app.connection import Connection, connect
from app.database import Database, open_database
from app.embedded import Endpoints
from app.errors import DatabaseUnavailable, StandbyMet
from app.inventory.models import Adjustment, Setting
from app.inventory.store import StockStore
from app.look import Look
from app.schema import migrate
from app.settings import Settings
from app.users.models import NewUser
from app.users.store import UserStore
from tests.eventually import PATIENCE, eventually
from tests.faults.another_redis import another_redis
from tests.faults.pgbouncer import MODES, PgBouncer, pgbouncer
from tests.faults.postgres_wire import PostgresWire
from tests.faults.standby import Standby
from tests.fresh_database import fresh_database
from tests.in_process import application

LONG = timedelta(seconds=PATIENCE)
SHORT = timedelta(seconds=2)
LIMITS = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "transaction_isolation")
SHOWN = text("SELECT " + ", ".join(f"current_setting('{name}')" for name in (*LIMITS, "timezone", "work_mem")))
"""Besides the limits, what the database has by default, and what the operator has written into the URL."""
OURS = ("1min", "30s", "1min", "read committed", "UTC", "7MB")
THEIRS = ("0", "0", "0", "serializable", "Asia/Tokyo", "4MB")
FOUND: ColumnClause[int] = column("found", BigInteger)
CARRIED = {"application_name", "client_encoding", "DateStyle", "TimeZone", "standard_conforming_strings"}
"""What PgBouncer itself sets in a session, to what each client has."""
WITH_WORK_MEM = "?options=-c%20work_mem%3D7MB"


@pytest.fixture
async def database_url(servers: Endpoints) -> AsyncIterator[str]:
    """An empty database."""
    async with fresh_database(servers.database_url) as url:
        yield url


@pytest.fixture(params=MODES)
async def pooler(request: pytest.FixtureRequest, database_url: str) -> AsyncIterator[PgBouncer]:
    """PgBouncer in front of it, in each mode."""
    async with pgbouncer(database_url, request.param) as pooler:
        yield pooler


@pytest.fixture
async def narrow(database_url: str) -> AsyncIterator[PgBouncer]:
    """PgBouncer in transaction mode, with one session for all clients."""
    async with pgbouncer(database_url, "transaction", sessions=1) as pooler:
        yield pooler


@pytest.fixture
async def settings(pooler: PgBouncer) -> AsyncIterator[Settings]:
    """Settings that name a migrated database behind the pooler, and an empty Redis."""
    await asyncio.to_thread(migrate, pooler.url)
    async with another_redis() as redis_url:
        yield Settings(
            _env_file=None, redis_url=redis_url, database_url=pooler.url, database_timeout=timedelta(seconds=5)
        )


@asynccontextmanager
async def pool(url: str, connections: int = 1) -> AsyncIterator[Database]:
    """Yields a pool, made as the application makes its own."""
    async with open_database(
        url, connections=connections, timeout=LONG, within=LONG, counted=lambda resource: None
    ) as database:
        yield database


@asynccontextmanager
async def connected(url: str, timeout: timedelta = LONG) -> AsyncIterator[Connection]:
    """Yields one connection, as a pool makes it."""
    connection = await connect(url, timeout)
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def somebody(pooler: PgBouncer) -> AsyncIterator[asyncpg.Connection]:
    """Yields a connection of another application, which shares the sessions."""
    connection = await asyncpg.connect(pooler.url, statement_cache_size=0)
    try:
        yield connection
    finally:
        await connection.close()


async def is_ready(client: httpx.AsyncClient) -> bool:
    return bool((await client.get("/health/ready")).json()["status"] == "ready")


async def test_all_four_strategies_work_behind_a_pooler_and_so_do_the_migrations(
    pooler: PgBouncer, settings: Settings
) -> None:
    async with application(settings) as client:
        await eventually(lambda: is_ready(client))
        user = await client.post("/users", json={"name": "Ada", "email": "ada@example.com"})
        await client.post("/products", json={"sku": "CUP", "name": "Cup", "price": "7.50"})
        await client.put("/inventory/CUP", json={"quantity": 9})
        path = f"/users/{user.json()['id']}"
        for read in (path, "/products/CUP", "/inventory/CUP"):
            assert [(await client.get(read)).status_code for _ in range(2)] == [200, 200], read
            await eventually(lambda read=read: is_hit(client, read))  # type: ignore[misc]
        assert (await client.patch(path, json={"name": "Grace"})).status_code == 200
        assert (await client.get(path)).json()["name"] == "Grace"
        assert (await client.post("/inventory/CUP/adjustments", json={"delta": -2})).json()["quantity"] == 7
        assert (await client.post("/page-views/home", json={"count": 5})).status_code == 202
        async with somebody(pooler) as other:

            async def is_flushed() -> bool:
                return bool(await other.fetchval("SELECT views FROM page_views WHERE page = 'home'") == 5)

            await eventually(is_flushed)
        assert await is_ready(client)
        assert set((await check(settings, workers=1)).values()) == {"ok"}


async def is_hit(client: httpx.AsyncClient, read: str) -> bool:
    return "; hit" in (await client.get(read)).headers["cache-status"]


async def with_other_defaults(database_url: str, pooler: PgBouncer) -> None:
    """Gives new sessions defaults that the service must override."""
    sql = await asyncpg.connect(database_url)
    name = await sql.fetchval("SELECT current_database()")
    for setting in ("default_transaction_isolation = serializable", "timezone = 'Asia/Tokyo'"):
        await sql.execute(f"ALTER DATABASE {name} SET {setting}")
    await sql.close()
    await pooler.stop()
    await pooler.start()


async def test_the_limits_hold_in_each_transaction_whatever_the_session_has(
    database_url: str, pooler: PgBouncer
) -> None:
    """Also in one that is a single statement, and where the database has another isolation by default."""
    await with_other_defaults(database_url, pooler)
    async with pool(pooler.url + WITH_WORK_MEM) as database:
        for _ in range(2):
            async with database.reading("tests") as connection:
                assert [(await connection.execute(SHOWN)).one() for _ in range(2)] == [OURS, OURS]
            async with database.writing("tests") as connection:
                assert [(await connection.execute(SHOWN)).one() for _ in range(2)] == [OURS, OURS]


async def test_nobody_finds_our_settings_or_statements_in_a_shared_session(
    database_url: str, narrow: PgBouncer
) -> None:
    """Neither our own, nor those of asyncpg, which asks Postgres for types that it does not know."""
    await with_other_defaults(database_url, narrow)
    async with pool(narrow.url + WITH_WORK_MEM) as database, somebody(narrow) as other:
        async with database.reading("tests") as connection:
            assert (await connection.execute(SHOWN)).one() == OURS
            assert (await connection.execute(text("SELECT ARRAY[7::bigint]"))).scalar_one() == [7]
            ours = (await connection.execute(text("SELECT pg_backend_pid()"))).scalar_one()
        async with database.writing("tests") as connection:
            await connection.execute(SHOWN)
            assert (await connection.execute(text("SELECT ARRAY[7::int]"))).scalar_one() == [7]
        assert await other.fetchval("SELECT pg_backend_pid()") == ours
        assert tuple(await other.fetchrow(str(SHOWN)) or ()) == THEIRS
        changed = {row["name"] for row in await other.fetch("SELECT name FROM pg_settings WHERE source = 'session'")}
        assert changed <= CARRIED
        assert await other.fetchval("SELECT count(*) FROM pg_prepared_statements WHERE name <> ''") == 0


@pytest.mark.parametrize("in_transaction", [False, True])
async def test_postgres_ends_a_statement_behind_a_pooler_in_time(narrow: PgBouncer, in_transaction: bool) -> None:
    async with connected(narrow.url, SHORT) as connection:
        slow = await connection.prepare("SELECT pg_sleep(3600)")
        if in_transaction:
            await connection.execute("BEGIN")
        with pytest.raises(asyncpg.QueryCanceledError, match="statement timeout"):
            await slow.fetch()


async def test_a_locked_table_is_a_503_behind_a_pooler(pooler: PgBouncer, settings: Settings) -> None:
    async with application(settings) as client:
        await eventually(lambda: is_ready(client))
        created = await client.post("/users", json={"name": "Ada", "email": "ada@example.com"})
        async with somebody(pooler) as other, other.transaction():
            await other.execute("LOCK TABLE users")
            refused = await client.patch(f"/users/{created.json()['id']}", json={"name": "Grace"})
        assert (refused.status_code, refused.json()["type"]) == (503, "database-unavailable")

        async def is_changed() -> bool:
            answer = await client.patch(f"/users/{created.json()['id']}", json={"name": "Grace"})
            return answer.status_code == 200

        await eventually(is_changed)


async def test_no_statement_meets_one_of_another_client(database_url: str, pooler: PgBouncer) -> None:
    """Each client executes each statement in turn, so that the sessions go round:

    A prepares `a` in session 1                         and executes it in session 2, which does not know it, or knows
                                                        B's statement of the same name
    """
    async with pool(pooler.url, 4) as one, pool(pooler.url, 4) as other:

        async def look(client: int) -> list[int]:
            found = []
            for which in range(21):
                (row,) = await (one, other)[client % 2].look(
                    "tests", Look(text(f"SELECT {which % 7} AS found").columns(FOUND))
                )
                found.append(int(row["found"]))
            return found

        assert await asyncio.gather(*map(look, range(8))) == [[*range(7)] * 3] * 8


async def test_each_connection_finds_out_for_itself_whether_there_is_a_pooler(
    database_url: str, narrow: PgBouncer
) -> None:
    """The pooler comes and goes while the service lives:

    the name leads to Postgres      A sets its session, and names its statements
    the name leads to the pooler    A connects anew, changes nothing in the session, and B finds nothing there
    """
    async with PostgresWire(database_url) as wire, pool(wire.url) as database, somebody(narrow) as other:
        for url, shared in ((database_url, False), (narrow.url, True), (database_url, False)):
            await wire.move_to(url)
            wire.cut()
            for _ in range(2):
                async with database.reading("tests") as connection:
                    assert (await connection.execute(SHOWN)).one()[:4] == OURS[:4]
                    driver = (await connection.get_raw_connection()).driver_connection
                    assert isinstance(driver, Connection)
                    assert (driver.limits is not None) == shared
        assert await other.fetchval("SHOW statement_timeout") == "0"


async def test_a_connection_outlives_a_change_of_the_mode(database_url: str) -> None:
    async with pgbouncer(database_url) as pooler, pool(pooler.url) as database:
        for mode in (*MODES, *MODES):
            await pooler.switch_to(mode)
            for _ in range(2):
                async with database.reading("tests") as connection:
                    assert (await connection.execute(SHOWN)).one()[:4] == OURS[:4]
                async with database.writing("tests") as connection:
                    assert (await connection.execute(SHOWN)).one()[:4] == OURS[:4]


async def test_a_promotion_behind_a_pooler_wears_no_connection_out(servers: Endpoints) -> None:
    """The pooler goes on reporting what was true when it first connected:

    the pooler connects to a standby, which reports that it is one
                                                        the standby is promoted
    A connects, and the pooler reports a standby: A would replace this connection before each statement
    """
    with Standby.started(servers.database_url) as standby:
        async with pgbouncer(standby.url, "transaction") as pooler, pool(pooler.url) as database:
            with pytest.raises(StandbyMet):
                await database.look("tests", Look(text("SELECT 1 AS found").columns(FOUND)))
            await standby.promote()
            drivers = set()
            for _ in range(3):
                async with database.writing("tests") as connection:
                    await connection.execute(SHOWN)
                    drivers.add((await connection.get_raw_connection()).driver_connection)
            assert len(drivers) == 1


async def test_a_pooler_may_be_started_anew(database_url: str, pooler: PgBouncer) -> None:
    async with pool(pooler.url) as database:
        for _ in range(2):
            async with database.writing("tests") as connection:
                assert (await connection.execute(SHOWN)).one()[:4] == OURS[:4]
            await pooler.stop()
            await pooler.start()


async def unfit(connection: Connection, sql: asyncpg.Connection) -> None:
    """A value does not fit: asyncpg finds that when the limits are sent, and the statement is not."""
    statement = await connection.prepare("SELECT CAST($1 AS bigint)")
    with pytest.raises(asyncpg.DataError, match="invalid input for query argument"):
        await statement.fetch("seven")


async def cancelled(connection: Connection, sql: asyncpg.Connection) -> None:
    """A client disconnects in the middle of a statement. The pooler has invented the number that cancels it."""
    statement = await connection.prepare("SELECT pg_sleep(3600) AS cancelled")
    running = asyncio.create_task(statement.fetch())
    await eventually(lambda: is_running(sql))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def failed(connection: Connection, sql: asyncpg.Connection) -> None:
    """Postgres refuses a statement."""
    statement = await connection.prepare("SELECT 1 / CAST($1 AS bigint)")
    with pytest.raises(asyncpg.DivisionByZeroError):
        await statement.fetch(0)


async def undescribed(connection: Connection, sql: asyncpg.Connection) -> None:
    """Postgres does not know what a statement is about."""
    with pytest.raises(asyncpg.UndefinedTableError):
        await connection.prepare("SELECT * FROM nowhere")


async def is_running(sql: asyncpg.Connection) -> bool:
    query = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%3600) AS cancelled')"
    return bool(await sql.fetchval(query))


@pytest.mark.parametrize("end", [cancelled, failed, undescribed, unfit], ids=lambda end: end.__name__)
async def test_a_statement_that_ends_badly_keeps_no_session_of_the_pooler(
    database_url: str, narrow: PgBouncer, end: Callable[[Connection, asyncpg.Connection], Awaitable[None]]
) -> None:
    sql = await asyncpg.connect(database_url)
    async with connected(narrow.url, 10 * LONG) as connection, somebody(narrow) as other:
        await end(connection, sql)
        assert await asyncio.wait_for(other.fetchval("SELECT 1"), PATIENCE) == 1
    await sql.close()


async def test_a_late_answer_behind_a_pooler_is_nobody_elses(narrow: PgBouncer) -> None:
    """Limits are sent without a look at what is still to come:

    A executes a statement, and the answer is late: A's time runs out
    A sends limits for the next statement               the late answer arrives, as that to the limits
    """
    async with PostgresWire(narrow.url) as wire, connected(wire.url, SHORT) as connection:
        statement = await connection.prepare("SELECT 1 AS late")
        async with wire.holding_replies("AS late"):
            with pytest.raises(TimeoutError):
                await statement.fetch()
            assert connection.is_closed()


async def test_a_table_that_was_altered_is_described_again(database_url: str, narrow: PgBouncer) -> None:
    """No session keeps the statement, so Postgres does not say that it has become another one:

    A has Postgres describe `SELECT found`: an integer
                                                        B makes it a bigint
    A executes it, and cannot read the row
    """
    sql = await asyncpg.connect(database_url)
    await sql.execute("CREATE TABLE numbers AS SELECT 7 AS found")
    look = Look(text("SELECT found FROM numbers").columns(FOUND))
    async with pool(narrow.url) as database:
        assert await database.look("tests", look) == [{"found": 7}]
        await sql.execute("ALTER TABLE numbers ALTER found TYPE bigint")
        with pytest.raises(DatabaseUnavailable, match="altered a moment ago"):
            await database.look("tests", look)
        assert await database.look("tests", look) == [{"found": 7}]
    await sql.close()


async def test_a_pooler_without_a_free_session_is_a_503_until_it_has_one(database_url: str) -> None:
    async with pgbouncer(database_url, "transaction", sessions=1) as narrow, another_redis() as redis_url:
        await asyncio.to_thread(migrate, narrow.url)
        async with application(
            Settings(_env_file=None, redis_url=redis_url, database_url=narrow.url, database_timeout=SHORT)
        ) as client:
            await eventually(lambda: is_ready(client))
            async with somebody(narrow) as other, other.transaction():
                refused = await client.post("/users", json={"name": "Ada", "email": "ada@example.com"})
            assert (refused.status_code, refused.json()["type"]) == (503, "database-unavailable")
            await eventually(lambda: is_ready(client))

            async def is_created() -> bool:
                answer = await client.post("/users", json={"name": "Ada", "email": "ada@example.com"})
                return answer.status_code == 201

            await eventually(is_created)


PRICES = {"read": 2, "change": 4, "adjustment": 5, "adjustment with a key": 7}
"""Round trips: a ping, and the statement; or a ping, BEGIN, the statements, COMMIT."""


@pytest.mark.parametrize("pooled", [False, True])
async def test_a_pooler_costs_no_round_trip(database_url: str, narrow: PgBouncer, pooled: bool) -> None:
    await asyncio.to_thread(migrate, database_url)
    async with PostgresWire(narrow.url if pooled else database_url) as wire, pool(wire.url) as database:
        users, shelf = UserStore(database), StockStore(database)
        ada = await users.insert(NewUser(name="Ada", email="ada@example.com"))
        await shelf.save("CUP", Setting(9), revoked)
        keys = itertools.count()
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "read": lambda: users.get(ada.id),
            "change": lambda: users.update(ada.id, {"name": "Grace"}, None),
            "adjustment": lambda: shelf.save("CUP", Adjustment(1), revoked),
            "adjustment with a key": lambda: shelf.save("CUP", Adjustment(1, f"{next(keys)}"), revoked),
        }
        found = {}
        for name, call in calls.items():
            await call()  # Each statement is described once.
            before = wire.round_trips
            await call()
            found[name] = wire.round_trips - before
        assert found == PRICES


async def revoked() -> None:
    """There is no cache."""


async def test_a_setting_that_postgres_refuses_is_a_fault_of_the_url(pooler: PgBouncer) -> None:
    with pytest.raises(asyncpg.ConnectionRejectionError, match="no_such_setting"):
        await connect(f"{pooler.url}?options=-c%20no_such_setting%3D1", LONG)


async def test_a_read_only_default_in_the_url_counts_behind_a_pooler(narrow: PgBouncer) -> None:
    """A default that is set in a transaction would count from the next one on, which has another session."""
    async with pool(f"{narrow.url}?options=-c%20default_transaction_read_only%3Don") as database:
        for using in (database.reading, database.writing):
            async with using("page_views") as connection:
                assert (await connection.execute(text("SHOW transaction_read_only"))).scalar_one() == "on"
