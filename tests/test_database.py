"""How the application reports the state of Postgres, and connections that lead to the wrong Postgres."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from app.availability import MISPLACED
from app.coherence.outbox import Outbox
from app.database import FAILURES, Database, open_database
from app.embedded import Endpoints
from app.errors import DatabaseUnavailable, NotFound, OtherHistory, StandbyMet
from app.inventory.models import Adjustment, Removal, Setting
from app.inventory.store import StockStore
from app.page_views.store import PageViewStore
from app.products.models import NewProduct
from app.products.store import ProductStore
from app.row_tag import Expected
from app.users.models import NewUser
from app.users.store import UserStore
from tests.faults.name import Name
from tests.faults.postgres_wire import PostgresWire
from tests.faults.standby import Standby
from tests.fresh_database import fresh_database
from tests.service import free_port

PID = text("SELECT pg_backend_pid()")
ADA = NewUser(name="Ada Lovelace", email="ada@example.com")
CUP = NewProduct(sku="CUP", name="Cup", price="6.20")

Work = Callable[[Database], Awaitable[object]]


async def nothing() -> None:
    """Revokes nothing: there is no cache here."""


async def kept(database: Database, *, undone_up_to: int | None) -> None:
    """Reads the whole outbox."""
    async for _changes in Outbox(database).kept(undone_up_to=undone_up_to):
        pass


LOOKS: dict[str, Work] = {
    "a user": lambda database: UserStore(database).get(7),
    "users": lambda database: UserStore(database).page(after=0, limit=5),
    "products by sku": lambda database: ProductStore(database).get_many(["CUP"]),
    "products": lambda database: ProductStore(database).page(after="", limit=5),
    "stock": lambda database: StockStore(database).load("CUP"),
    "totals": lambda database: PageViewStore(database).standing(["/"], []),
    "the top": lambda database: PageViewStore(database).top(5),
    "dead letters": lambda database: PageViewStore(database).dead_letters(5, 0),
    "their count": lambda database: PageViewStore(database).count_dead_letters(),
    "undone changes": lambda database: Outbox(database).undone(5),
    "whether a change waits": lambda database: Outbox(database).waits("users", "7"),
    "changes": lambda database: kept(database, undone_up_to=None),
    "changes up to an id": lambda database: kept(database, undone_up_to=5),
}
"""Every read whose result is answered or trusted. The rows do not exist."""

WRITES: dict[str, tuple[Work, str]] = {
    "a new user": (lambda database: UserStore(database).insert(ADA), "users"),
    "a changed user": (lambda database: UserStore(database).update(1, {"name": "Ada King"}, None), "users"),
    "no user": (lambda database: UserStore(database).delete(1, None), "users"),
    "a new product": (lambda database: ProductStore(database).insert(CUP), "products"),
    "a changed product": (lambda database: ProductStore(database).update("MUG", {"name": "Jug"}, None), "products"),
    "no product": (lambda database: ProductStore(database).delete("MUG", None), "products"),
    "new stock": (lambda database: StockStore(database).save("CUP", Setting(quantity=5), nothing), "stock"),
    "known stock": (
        lambda database: StockStore(database).save("MUG", Setting(5, Expected(there=True)), nothing),
        "stock",
    ),
    "adjusted stock": (lambda database: StockStore(database).save("MUG", Adjustment(delta=-1), nothing), "stock"),
    "no stock": (lambda database: StockStore(database).save("MUG", Removal(), nothing), "stock"),
}
"""Every change of a cached table, and that table."""

REFUSALS: dict[str, Work] = {
    "a user": lambda database: UserStore(database).update(7, {"name": "Nobody"}, None),
    "a product": lambda database: ProductStore(database).delete("JUG", None),
    "stock": lambda database: StockStore(database).save("JUG", Removal(), nothing),
    "adjusted stock": lambda database: StockStore(database).save("JUG", Adjustment(delta=1), nothing),
}
"""Writes that find no row, and report that."""


@asynccontextmanager
async def opened(url: str, connections: int = 1) -> AsyncIterator[Database]:
    """Yields a pool."""
    async with open_database(
        url, connections=connections, timeout=timedelta(seconds=20), counted=lambda resource: None
    ) as database:
        yield database


async def pid(database: Database) -> int:
    """Returns the backend's pid of the pool's one connection."""
    async with database.reading("things") as connection:
        return int(await connection.scalar(PID))


def sockets(database_url: str) -> Path:
    """Returns the directory of its socket."""
    return Path(parse_qs(urlsplit(database_url).query)["host"][0])


@pytest.fixture(scope="module")
def standby(servers: Endpoints) -> Iterator[Standby]:
    """A standby that receives no more changes."""
    with Standby.started(servers.database_url) as standby:
        yield standby


@pytest.fixture
async def mug(sql: asyncpg.Connection) -> None:
    """A user, a product and its stock."""
    await sql.execute("INSERT INTO users (id, name, email) VALUES (1, 'Grace Hopper', 'grace@example.com')")
    await sql.execute("INSERT INTO products (sku, name, price) VALUES ('MUG', 'Mug', '6.20')")
    await sql.execute("INSERT INTO stock (sku, quantity) VALUES ('MUG', 9)")


async def test_a_statement_prepared_before_an_alter_table_fails_once_and_is_prepared_again(servers: Endpoints) -> None:
    async with (
        fresh_database(servers.database_url) as url,
        open_database(url, connections=1, timeout=timedelta(seconds=5), counted=lambda resource: None) as database,
    ):
        sql = await asyncpg.connect(url)
        await sql.execute("CREATE TABLE things (name text)")
        await sql.execute("INSERT INTO things VALUES ('one')")

        async def name() -> str:
            async with database.reading("things") as connection:
                return str(await connection.scalar(text("SELECT name FROM things")))

        assert await name() == "one"
        await sql.execute("ALTER TABLE things ALTER COLUMN name TYPE varchar(9)")
        await sql.close()
        with pytest.raises(DatabaseUnavailable, match="The table was altered a moment ago"):
            await name()
        assert await name() == "one"


@pytest.mark.parametrize("state", MISPLACED)
async def test_a_connection_to_a_misplaced_postgres_is_discarded_and_the_error_quotes_postgres(
    state: str, endpoints: Endpoints
) -> None:
    async with opened(endpoints.database_url) as database:
        before = await pid(database)
        with pytest.raises(DatabaseUnavailable, match=f"^{MISPLACED[state]}: not here\\.$"):
            async with database.writing("things") as connection:
                await connection.exec_driver_sql(
                    f"DO $$ BEGIN RAISE EXCEPTION 'not here' USING ERRCODE = '{state}', DETAIL = 'secret'; END $$"
                )
        assert await pid(database) != before


async def test_a_connection_is_kept_when_only_a_statement_has_failed(endpoints: Endpoints) -> None:
    async with opened(endpoints.database_url) as database:
        before = await pid(database)
        for state, error in (("40P01", DatabaseUnavailable), ("57014", DatabaseUnavailable), ("22000", DBAPIError)):
            with pytest.raises(error):
                async with database.writing("things") as connection:
                    await connection.exec_driver_sql(f"DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{state}'; END $$")
        assert await pid(database) == before


async def test_a_read_only_postgres_serves_reads_and_accepts_the_first_write_once_it_is_writable(
    servers: Endpoints,
) -> None:
    """A session takes the default at its start, so sessions from the read-only time would refuse writes forever.

    Postgres becomes read-only, and ends its sessions      four readers reconnect
                                                           a writer is refused, on one of the four or a new one
    Postgres becomes writable                              the next writer gets another one of the four
    """
    async with fresh_database(servers.database_url) as url, opened(url, connections=4) as database:
        sql = await asyncpg.connect(url)
        await sql.execute("CREATE TABLE things (name text)")
        await sql.execute("INSERT INTO things VALUES ('one')")

        async def rename() -> None:
            async with database.writing("things") as connection:
                await connection.execute(text("UPDATE things SET name = 'two'"))

        async def sessions() -> set[int]:
            async with AsyncExitStack() as stack:
                each = [await stack.enter_async_context(database.reading("things")) for _ in range(4)]
                return {int(await connection.scalar(PID)) for connection in each}

        await rename()
        name = urlsplit(url).path[1:]
        await sql.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        await sql.execute(
            "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        before = await sessions()
        for _ in range(2):
            with pytest.raises(DatabaseUnavailable) as refused:
                await rename()
            assert str(refused.value) == "Postgres is read-only: cannot execute UPDATE in a read-only transaction.", (
                "The client is told what Postgres says."
            )
        assert len(before & await sessions()) >= 2, "Readers lost connections that serve them well."
        await sql.execute("SET default_transaction_read_only = off")
        await sql.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
        for _ in range(8):
            await rename()
        await sql.close()


@pytest.mark.parametrize("what", LOOKS)
async def test_a_read_is_one_statement_that_also_says_where_it_ran(what: str, endpoints: Endpoints) -> None:
    async with PostgresWire(endpoints.database_url) as wire, opened(wire.url) as database:
        database.timeline = "00000001"
        await LOOKS[what](database)
        before = wire.count("")
        await LOOKS[what](database)
        assert wire.count("") - before == 2, "The pool's question whether the connection lives, and the look."
        assert wire.count("pg_is_in_recovery") == 2


@pytest.mark.parametrize("what", LOOKS)
async def test_a_read_on_a_standby_is_refused_even_if_it_finds_no_row(what: str, standby: Standby) -> None:
    async with opened(standby.url) as database:
        before = await pid(database)
        with pytest.raises(StandbyMet, match=r"^Postgres is a standby: what it knows may be old; try again\.$"):
            await LOOKS[what](database)
        assert await pid(database) != before


@pytest.mark.parametrize("what", LOOKS)
async def test_a_read_from_another_history_is_refused(what: str, endpoints: Endpoints) -> None:
    async with opened(endpoints.database_url) as database:
        before = await pid(database)
        database.timeline = "0000000A"
        with pytest.raises(
            OtherHistory,
            match=r"^Postgres is at timeline 1, and this instance believes what it knew at timeline 10; try again\.$",
        ):
            await LOOKS[what](database)
        assert await pid(database) != before
        database.timeline = "00000001"
        await LOOKS[what](database)


@pytest.mark.parametrize("what", WRITES)
async def test_a_write_to_another_history_is_rolled_back(
    what: str, endpoints: Endpoints, sql: asyncpg.Connection, mug: None
) -> None:
    write, table = WRITES[what]
    rows = f"SELECT * FROM {table} ORDER BY 1"
    async with opened(endpoints.database_url) as database:
        database.timeline = "00000002"
        before = await sql.fetch(rows)
        with pytest.raises(OtherHistory):
            await write(database)
        assert await sql.fetch(rows) == before
        database.timeline = "00000001"
        await write(database)
        assert await sql.fetch(rows) != before


@pytest.mark.parametrize("what", WRITES)
async def test_a_write_needs_no_further_statement_to_say_where_it_ran(
    what: str, endpoints: Endpoints, mug: None
) -> None:
    write, table = WRITES[what]
    async with PostgresWire(endpoints.database_url) as wire, opened(wire.url) as database:
        await pid(database)
        before = wire.count("")
        await write(database)
        # The pool's ping, BEGIN, the lock of a SKU, the change, COMMIT.
        assert wire.count("") - before == (5 if table == "stock" else 4)
        assert wire.count("RETURNING .*pg_is_in_recovery") == 1


@pytest.mark.parametrize("what", REFUSALS)
async def test_a_missing_row_is_not_reported_from_another_history(what: str, endpoints: Endpoints) -> None:
    async with opened(endpoints.database_url) as database:
        with pytest.raises(NotFound):
            await REFUSALS[what](database)
        database.timeline = "00000002"
        with pytest.raises(OtherHistory):
            await REFUSALS[what](database)


async def test_a_promoted_standby_reports_its_new_timeline_in_its_first_statement(servers: Endpoints) -> None:
    with Standby.started(servers.database_url) as standby:
        async with opened(standby.url) as database:
            database.timeline = "00000001"
            with pytest.raises(StandbyMet):
                await UserStore(database).get(7)
            await standby.promote()
            with pytest.raises(OtherHistory, match=r"Postgres is at timeline 2, and .* at timeline 1;"):
                await UserStore(database).get(7)
            database.timeline = "00000002"
            assert await UserStore(database).get(7) is None


async def test_readers_and_writers_find_the_primary_once_the_name_leads_to_it_again(
    endpoints: Endpoints, standby: Standby, mug: None
) -> None:
    """All connections of the pool lead to the standby, and are alive. The first caller and each later one reach the
    primary: the pool does not refuse one call for each old connection."""
    with Name.leading_to(standby.sockets) as name:
        async with opened(f"postgresql://fourways@/fourways?host={name.path}", connections=4) as database:
            async with AsyncExitStack() as stack:
                for _ in range(4):
                    await stack.enter_async_context(database.reading("things"))
            name.lead_to(sockets(endpoints.database_url))
            for _ in range(8):
                assert (await UserStore(database).get(1)) is not None
                await UserStore(database).update(1, {"name": "Grace Brewster Hopper"}, None)


async def test_a_call_that_is_not_allowed_to_connect_reports_the_last_failure() -> None:
    """Three connection attempts in a row are refused. For a moment, the pool makes no fourth attempt."""
    nowhere = f"postgresql://postgres@127.0.0.1:{free_port()}/postgres"
    async with open_database(
        nowhere, connections=2, timeout=timedelta(seconds=5), counted=lambda resource: None
    ) as database:
        for _ in range(FAILURES + 1):
            with pytest.raises(DatabaseUnavailable, match=r"^The database refuses connections\.$") as refused:
                async with database.reading("health"):
                    pass
            assert isinstance(refused.value.__cause__, ConnectionRefusedError)
