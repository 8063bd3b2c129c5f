"""The schema: its migrations, and the promises of its triggers to the caches."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from app.caching import made_at
from app.caching.write_behind.batch_id import ulid
from app.database import metadata, open_database
from app.embedded import Endpoints
from app.grants import TABLES
from app.metrics import Metrics
from app.page_views.models import Counted
from app.page_views.store import PageViewStore
from app.schema import MigrationError, migrate
from app.settings import Settings
from app.wiring import open_resources
from tests.eventually import PATIENCE, eventually
from tests.faults.postgres_wire import PostgresWire
from tests.fresh_database import fresh_database
from tests.least_privilege import a_role, as_role, quoted
from tests.terminal import terminal

CATALOGUE = """
    SELECT format('%s.%s: %s, nullable %s, default %s, collation %s, identity %s from %s', table_name, column_name,
        data_type, is_nullable, column_default, collation_name, identity_generation, identity_start)
    FROM information_schema.columns WHERE table_schema = 'public'
    UNION ALL SELECT format('%s %s: %s', conrelid::regclass, conname, pg_get_constraintdef(oid))
    FROM pg_constraint WHERE connamespace = 'public'::regnamespace
    UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'
    UNION ALL SELECT format('%s by %s', partrelid::regclass, pg_get_partkeydef(partrelid)) FROM pg_partitioned_table"""
"""Describes the tables of a database, with one line for each column, constraint, index and partitioning."""
LEFT = """
    SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace
    UNION ALL SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace"""

HOUR = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
async def empty(endpoints: Endpoints) -> AsyncIterator[str]:
    """The address of an empty database."""
    async with fresh_database(endpoints.database_url) as url:
        yield url


async def test_four_replicas_can_migrate_an_empty_database_at_once(empty: str, tmp_path: Path) -> None:
    async with PostgresWire(empty) as wire, AsyncExitStack() as stack:
        # The first replica has found the database empty, and is held there until the others wait for the lock.
        held = await stack.enter_async_context(wire.holding("CREATE TABLE alembic_version"))
        replicas = [
            await stack.enter_async_context(
                terminal(tmp_path / str(number), "alembic", "upgrade", "head", DATABASE_URL=wire.url)
            )
            for number in range(4)
        ]

        async def all_have_come() -> bool:
            return wire.count("pg_advisory_xact_lock") == 4

        await eventually(all_have_come)
        await asyncio.wait_for(held.arrived.wait(), PATIENCE)
        held.release()
        codes = [await replica.code() for replica in replicas]
    assert codes == [0, 0, 0, 0], [replica.screen for replica in replicas]
    assert wire.count("CREATE TABLE users") == 1


async def test_downgrading_leaves_nothing_and_upgrading_works_again(empty: str, tmp_path: Path) -> None:
    await asyncio.to_thread(migrate, empty)
    before = await _lines(empty, CATALOGUE)
    async with terminal(tmp_path / "screen", "alembic", "downgrade", "base", DATABASE_URL=empty) as alembic:
        assert await alembic.code() == 0, alembic.screen
    assert await _lines(empty, LEFT) == ["alembic_version", "alembic_version_pkc"]
    await asyncio.to_thread(migrate, empty)
    assert await _lines(empty, CATALOGUE) == before


@pytest.mark.parametrize("under_way", ["settled", "parked"])
async def test_a_downgrade_counts_parked_views_once(empty: str, tmp_path: Path, under_way: str) -> None:
    """A process settles or parks views, and has not committed yet · a downgrade starts, and has to wait · the process
    commits"""
    await asyncio.to_thread(migrate, empty)
    sql, looker = await asyncpg.connect(empty), await asyncpg.connect(empty)
    parks = "INSERT INTO parked_views (page, delta, blocked, reason, tries) VALUES ('home', $1, true, '', 0)"
    await sql.execute(parks, 5)
    transaction = sql.transaction()
    await transaction.start()
    if under_way == "parked":
        await sql.execute(parks, 7)
    else:
        await sql.execute("DELETE FROM parked_views")
        await sql.execute("INSERT INTO page_views VALUES ('home', 5)")
    async with terminal(tmp_path / "screen", "alembic", "downgrade", "0007", DATABASE_URL=empty) as alembic:

        async def waits() -> bool:
            return bool(await looker.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))

        await eventually(waits)
        await transaction.commit()
        assert await alembic.code() == 0, alembic.screen
    assert await sql.fetchval("SELECT views FROM page_views") == (12 if under_way == "parked" else 5)
    await sql.close()
    await looker.close()


async def test_the_ledger_of_an_older_schema_is_kept(empty: str, tmp_path: Path) -> None:
    """Its partitions are numbered in the order of their hours, the oldest hour is the floor, and a batch that became a
    dead letter is known by its id."""
    async with terminal(tmp_path / "older", "alembic", "upgrade", "0003", DATABASE_URL=empty) as alembic:
        assert await alembic.code() == 0, alembic.screen
    hours = [datetime(2026, 3, 29, hour, tzinfo=UTC) for hour in range(4)]
    batches = [Counted(name := ulid(hour.timestamp() * 1000), made_at(name), {"home": 1}) for hour in hours]
    lost = Counted(name := ulid((hours[0].timestamp() - 3600) * 1000), made_at(name), {"home": 7})
    sql = await asyncpg.connect(empty)
    for each in (batches[2], batches[0], batches[3], batches[1]):
        await sql.execute(
            f"CREATE TABLE applied_{each.hour:%Y%m%d%H} PARTITION OF applied "
            f"FOR VALUES FROM ('{each.hour}') TO ('{each.hour + timedelta(hours=1)}')"
        )
        await sql.execute("INSERT INTO applied VALUES ($1, $2)", each.hour, each.id)
    # As in the old schema: recorded under the hour in which it became a dead letter.
    await sql.execute("INSERT INTO applied VALUES ($1, $2)", hours[3], lost.id)
    await sql.execute(
        "INSERT INTO dead_letters (page, delta, batch, reason, deliveries) VALUES ('home', 7, $1, 'It is old.', 1)",
        lost.id,
    )
    await asyncio.to_thread(migrate, empty)
    rows = await sql.fetch("SELECT hour, created_at FROM ledger_hours ORDER BY number")
    assert [(row["hour"], row["created_at"]) for row in rows] == [(hour, hour) for hour in hours]
    assert await sql.fetchval("SELECT hour FROM ledger_floor") == hours[0]
    async with open_database(empty, connections=2, timeout=timedelta(seconds=20), counted=lambda _: None) as database:
        store = PageViewStore(database)
        assert await store.apply(batches) == 0
        assert await store.salvage(lost, 2) == (0, 0)
        assert await store.count_dead_letters() == 1
        new = Counted(name := ulid(hours[3].timestamp() * 1000), made_at(name), {"home": 1})
        assert await store.apply([new]) == 1
    assert [row["hour"] for row in await sql.fetch("SELECT hour FROM ledger_hours ORDER BY hour")] == hours
    await sql.close()


async def test_colliding_emails_are_named_and_nothing_is_migrated(empty: str, tmp_path: Path) -> None:
    """The addresses of two users differ in the case of their letters only: after the migration they are one."""
    async with terminal(tmp_path / "older", "alembic", "upgrade", "0009", DATABASE_URL=empty) as alembic:
        assert await alembic.code() == 0, alembic.screen
    sql = await asyncpg.connect(empty)
    for count, email in enumerate(("ada@example.com", "Ada@example.com", "grace@example.com")):
        await sql.execute("INSERT INTO users (id, name, email) VALUES ($1, 'Somebody', $2)", 7 + count, email)
    async with terminal(tmp_path / "refused", "alembic", "upgrade", "head", DATABASE_URL=empty) as alembic:
        assert await alembic.code() != 0
    assert "but for the case of its letters: ada@example.com (users 7, 8). Change or delete" in alembic.screen
    assert "Traceback" not in alembic.screen
    assert await sql.fetchval("SELECT version_num FROM alembic_version") == "0009"
    with pytest.raises(MigrationError, match=r"ada@example\.com \(users 7, 8\)"):
        await asyncio.to_thread(migrate, empty)
    await sql.execute("DELETE FROM users WHERE id = 8")
    await asyncio.to_thread(migrate, empty)
    with pytest.raises(asyncpg.UniqueViolationError, match="uq_users_email"):
        await sql.execute("INSERT INTO users (name, email) VALUES ('Another', 'GRACE@example.com')")
    await sql.close()


async def test_the_models_match_the_migrations(endpoints: Endpoints, empty: str) -> None:
    engine = create_async_engine("postgresql+asyncpg://", async_creator=lambda: asyncpg.connect(empty))
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    await engine.dispose()
    made = await _lines(empty, CATALOGUE)
    async with fresh_database(endpoints.database_url) as other:
        await asyncio.to_thread(migrate, other)
        assert made == [line for line in await _lines(other, CATALOGUE) if "alembic_version" not in line]


def test_the_grants_name_each_table_of_the_models() -> None:
    assert set(TABLES) == {*metadata.tables, "alembic_version"}


async def test_alembic_finds_no_further_migration_to_write(endpoints: Endpoints, tmp_path: Path) -> None:
    async with terminal(tmp_path / "screen", "alembic", "check", DATABASE_URL=endpoints.database_url) as alembic:
        assert await alembic.code() == 0, alembic.screen


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("", "FAILED: DATABASE_URL is missing: alembic needs to know which database to migrate."),
        ("postgresql://127.0.0.1:1/fourways", "FAILED: The database refuses connections."),
    ],
)
async def test_alembic_reports_a_missing_database_in_one_sentence(tmp_path: Path, url: str, sentence: str) -> None:
    async with terminal(tmp_path / "screen", "alembic", "upgrade", "head", DATABASE_URL=url) as alembic:
        assert await alembic.code() != 0
    assert sentence in alembic.screen
    assert "Traceback" not in alembic.screen


@pytest.mark.parametrize(
    ("is_owner", "query", "sentence"),
    [
        (False, "", "permission denied for schema public: name the role that owns the tables in DATABASE_URL."),
        (True, "&options=-c%20search_path%3Dnowhere", "no schema has been selected to create in: put its"),
    ],
)
async def test_alembic_says_in_one_sentence_that_it_may_not_create_tables(
    empty: str, tmp_path: Path, is_owner: bool, query: str, sentence: str
) -> None:
    async with a_role(empty) as stranger:
        url = (empty if is_owner else as_role(empty, stranger)) + query
        async with terminal(tmp_path / "screen", "alembic", "upgrade", "head", DATABASE_URL=url) as alembic:
            assert await alembic.code() != 0
    assert f"FAILED: Nothing was migrated: {sentence}" in " ".join(alembic.screen.split())
    assert "Traceback" not in alembic.screen


async def test_every_cached_table_has_the_triggers(settings: Settings, sql: asyncpg.Connection) -> None:
    async with open_resources(settings, Metrics()) as resources:
        # The flusher updates the totals of page views; the relay only drops them after a replay.
        cached = resources.relay.tables - {"page_views"}
    assert {"users", "products"} <= cached
    for table in cached:
        key = await sql.fetchval(
            "SELECT attname FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY(indkey) "
            "WHERE indrelid = $1::text::regclass AND indisprimary",
            table,
        )
        rows = await sql.fetch(
            "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = $1::text::regclass AND NOT tgisinternal",
            table,
        )
        assert {definition.removeprefix("CREATE TRIGGER ") for (definition,) in rows} == {
            f"set_version BEFORE INSERT OR DELETE OR UPDATE ON public.{table} "
            "FOR EACH ROW EXECUTE FUNCTION set_version()",
            f"record_change AFTER INSERT OR DELETE OR UPDATE ON public.{table} "
            f"FOR EACH ROW EXECUTE FUNCTION record_change('{key}')",
            f"refuse_truncate BEFORE TRUNCATE ON public.{table} FOR EACH STATEMENT EXECUTE FUNCTION refuse_truncate()",
        }


async def test_the_version_rises_with_each_write_whatever_version_it_sets(sql: asyncpg.Connection) -> None:
    versions = [
        await sql.fetchval("INSERT INTO stock (sku, quantity, version) VALUES ('A', 1, 0) RETURNING version"),
        await sql.fetchval("UPDATE stock SET quantity = 2, version = 0 RETURNING version"),
        await sql.fetchval("UPDATE stock SET quantity = 2 RETURNING version"),
        await sql.fetchval("INSERT INTO stock (sku, quantity) VALUES ('B', 1) RETURNING version"),
    ]
    assert versions == sorted(set(versions))
    assert versions[0] > 0


async def test_each_write_adds_an_outbox_row(sql: asyncpg.Connection) -> None:
    seen = await _last(sql)
    inserted = await sql.fetchval("INSERT INTO stock (sku, quantity) VALUES ('A', 1) RETURNING version")
    assert await _told(sql, seen) == [("stock", "A", inserted)]
    seen = await _last(sql)
    updated = await sql.fetchval("UPDATE stock SET quantity = 2 RETURNING version")
    assert await _told(sql, seen) == [("stock", "A", updated)]
    seen = await _last(sql)
    deleted = await sql.fetchval("DELETE FROM stock RETURNING currval('row_version')")
    assert await _told(sql, seen) == [("stock", "A", deleted)]
    assert inserted < updated < deleted


async def test_a_changed_key_adds_outbox_rows_for_the_old_and_the_new_key(sql: asyncpg.Connection) -> None:
    await sql.execute("INSERT INTO users (id, name, email) VALUES (1, 'Ada', 'ada@example.com')")
    seen = await _last(sql)
    version = await sql.fetchval("UPDATE users SET id = 2 RETURNING version")
    assert await _told(sql, seen) == [("users", "1", version), ("users", "2", version)]


async def test_a_statement_on_many_rows_adds_an_outbox_row_for_each(sql: asyncpg.Connection) -> None:
    seen = await _last(sql)
    written = await sql.fetch("INSERT INTO stock (sku, quantity) VALUES ('A', 1), ('B', 1) RETURNING sku, version")
    assert await _told(sql, seen) == _stock(written)
    seen = await _last(sql)
    written = await sql.fetch("UPDATE stock SET quantity = 2 RETURNING sku, version")
    assert await _told(sql, seen) == _stock(written)
    assert len({row["version"] for row in written}) == 2
    seen = await _last(sql)
    deleted = _stock(await sql.fetch("DELETE FROM stock RETURNING sku, currval('row_version') AS version"))
    for (_, key, version), (_, deleted_key, deleted_version) in zip(await _told(sql, seen), deleted, strict=True):
        assert key == deleted_key
        assert version >= deleted_version
    seen = await _last(sql)
    await sql.copy_records_to_table("stock", columns=["sku", "quantity"], records=[("C", 1), ("D", 1)])
    assert [key for _, key, _ in await _told(sql, seen)] == ["C", "D"]


async def test_an_upsert_adds_outbox_rows_only_for_the_rows_it_wrote(sql: asyncpg.Connection) -> None:
    await sql.execute("INSERT INTO stock (sku, quantity) VALUES ('A', 1)")
    seen = await _last(sql)
    upsert = "INSERT INTO stock (sku, quantity) VALUES ('A', 9), ('B', 9) ON CONFLICT (sku) DO "
    written = await sql.fetch(upsert + "UPDATE SET quantity = excluded.quantity RETURNING sku, version")
    assert await _told(sql, seen) == _stock(written)
    seen = await _last(sql)
    await sql.execute(upsert + "NOTHING")
    assert await _told(sql, seen) == []


async def test_a_rollback_leaves_no_outbox_row(sql: asyncpg.Connection) -> None:
    seen = await _last(sql)
    transaction = sql.transaction()
    await transaction.start()
    await sql.execute("INSERT INTO stock (sku, quantity) VALUES ('A', 1)")
    await transaction.rollback()
    assert await _told(sql, seen) == []


@pytest.mark.parametrize("table", ["users", "products", "stock"])
async def test_truncate_is_refused_with_the_reason_and_the_way_out(sql: asyncpg.Connection, table: str) -> None:
    with pytest.raises(asyncpg.RaiseError) as refusal:
        await sql.execute(f"TRUNCATE {table}")
    assert str(refusal.value).startswith(
        f"TRUNCATE of {table} is refused: it would not tell the caches which rows are gone."
    )
    assert refusal.value.hint == "Use DELETE."


Told = list[tuple[str, str, int]]
"""Resource, key and version of outbox rows, in the order of the keys."""


async def _told(sql: asyncpg.Connection, seen: int) -> Told:
    rows = await sql.fetch("SELECT resource, key, version FROM outbox WHERE id > $1 ORDER BY key", seen)
    return [(row["resource"], row["key"], row["version"]) for row in rows]


def _stock(written: list[asyncpg.Record]) -> Told:
    return sorted(("stock", row["sku"], row["version"]) for row in written)


async def _last(sql: asyncpg.Connection) -> int:
    return int(await sql.fetchval("SELECT coalesce(max(id), 0) FROM outbox"))


async def _lines(url: str, query: str) -> list[str]:
    connection = await asyncpg.connect(url)
    try:
        return sorted(line for (line,) in await connection.fetch(query))
    finally:
        await connection.close()


async def test_no_search_path_and_no_temporary_table_hides_a_change(sql: asyncpg.Connection) -> None:
    """A change in a session with another search path, as the scripts of pg_dump set it, adds its outbox row too."""
    await sql.execute("INSERT INTO products (sku, name, price) VALUES ('A', 'A', '1')")
    await sql.execute("CREATE TEMP TABLE outbox (resource text, key text, version bigint)")
    await sql.execute("UPDATE products SET price = '2'")
    await sql.execute("SET search_path = ''")
    await sql.execute("UPDATE public.products SET price = '3'")
    assert await sql.fetchval("SELECT count(*) FROM public.outbox WHERE key = 'A'") == 3


async def test_a_role_that_may_only_change_a_table_still_adds_outbox_rows(sql: asyncpg.Connection) -> None:
    await sql.execute("INSERT INTO products (sku, name, price) VALUES ('A', 'A', '1')")
    await sql.execute("CREATE ROLE clerk")
    try:
        await sql.execute("GRANT SELECT, UPDATE ON products TO clerk")
        await sql.execute("SET ROLE clerk")
        await sql.execute("UPDATE products SET price = '2'")
        await sql.execute("RESET ROLE")
        assert await sql.fetchval("SELECT count(*) FROM outbox") == 2
    finally:
        await sql.execute("RESET ROLE")
        await sql.execute("DROP OWNED BY clerk")
        await sql.execute("DROP ROLE clerk")


async def test_nobody_but_the_owner_calls_what_runs_with_its_rights(sql: asyncpg.Connection) -> None:
    definers = await sql.fetch(
        "SELECT oid::regprocedure::text AS name, proconfig, proacl::text AS acl FROM pg_proc "
        "WHERE pronamespace = 'public'::regnamespace AND prosecdef ORDER BY name"
    )
    assert [row["name"] for row in definers] == [
        "drop_ledger_hour(timestamp with time zone)",
        "finish_ledger_detach(timestamp with time zone)",
        "open_ledger_hour(timestamp with time zone)",
        "record_change()",
        "set_version()",
    ]
    for row in definers:
        assert row["proconfig"] == ["search_path=public, pg_temp"]
        assert row["acl"] == "{fourways=X/fourways}"


async def test_a_role_that_was_permitted_to_write_the_ledger_can_still_open_its_hours(
    endpoints: Endpoints, empty: str, tmp_path: Path
) -> None:
    """Somebody has let it call the functions with their owner's rights, in SQL. Other roles could call them, too."""
    async with terminal(tmp_path / "older", "alembic", "upgrade", "0008", DATABASE_URL=empty) as alembic:
        assert await alembic.code() == 0, alembic.screen
    async with a_role(endpoints.database_url) as service, a_role(endpoints.database_url) as reader:
        sql = await asyncpg.connect(empty)
        await sql.execute("ALTER FUNCTION open_ledger_hour SECURITY DEFINER SET search_path = public, pg_temp")
        await sql.execute(f"GRANT SELECT, INSERT ON applied TO {quoted(service)}")
        await sql.execute(f"GRANT SELECT ON applied TO {quoted(reader)}")
        await asyncio.to_thread(migrate, empty)
        await sql.execute(f"SET SESSION AUTHORIZATION {quoted(service)}")
        assert await sql.fetchval("SELECT open_ledger_hour($1)", HOUR)
        assert await sql.execute("INSERT INTO applied VALUES ($1, 'batch')", HOUR) == "INSERT 0 1"
        await sql.execute("SELECT drop_ledger_hour($1)", HOUR)
        await sql.execute(f"SET SESSION AUTHORIZATION {quoted(reader)}")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await sql.fetchval("SELECT open_ledger_hour($1)", HOUR)
        await sql.execute("RESET SESSION AUTHORIZATION")
        async with terminal(tmp_path / "down", "alembic", "downgrade", "0008", DATABASE_URL=empty) as alembic:
            assert await alembic.code() == 0, alembic.screen
        for name in ("open_ledger_hour", "drop_ledger_hour"):
            before = await sql.fetchrow(
                "SELECT prosecdef, proconfig, has_function_privilege($2, oid, 'EXECUTE') FROM pg_proc "
                "WHERE proname = $1",
                name,
                reader,
            )
            assert tuple(before or ()) == (False, None, True)
        await sql.execute(f"DROP OWNED BY {quoted(service)}, {quoted(reader)}")
        await sql.close()


@pytest.mark.parametrize("time", ["2026-03-01 00:30Z", "infinity", "-infinity"])
async def test_what_is_no_hour_opens_and_drops_no_partition(sql: asyncpg.Connection, ledger: None, time: str) -> None:
    await sql.execute("SELECT open_ledger_hour('2026-03-01 00:00Z')")
    await sql.execute("UPDATE ledger_floor SET hour = '-infinity'")
    with pytest.raises(asyncpg.PostgresError):
        await sql.execute(f"SELECT open_ledger_hour('{time}')")
    if not time.startswith("2026"):
        with pytest.raises(asyncpg.PostgresError):
            await sql.execute(f"SELECT drop_ledger_hour('{time}')")
        assert await sql.fetchval("SELECT hour::text FROM ledger_floor") == "-infinity"
    hours = await sql.fetch("SELECT hour FROM ledger_hours")
    partitions = await sql.fetch("SELECT inhrelid FROM pg_inherits WHERE inhparent = 'applied'::regclass")
    assert (len(hours), len(partitions)) == (1, 1)


async def test_no_table_of_a_caller_becomes_a_partition(sql: asyncpg.Connection, ledger: None) -> None:
    await sql.execute("CREATE TEMP TABLE applied_2026030100 (hour timestamptz NOT NULL, batch text NOT NULL)")
    with pytest.raises(asyncpg.PostgresError, match="cannot attach a temporary relation"):
        await sql.execute("SELECT open_ledger_hour('2026-03-01 00:00Z')")
    await sql.execute("CREATE TEMP TABLE applied (LIKE public.applied) PARTITION BY RANGE (hour)")
    await sql.execute("CREATE TEMP TABLE ledger_hours (hour timestamptz)")
    assert await sql.fetchval("SELECT open_ledger_hour('2026-03-01 01:00Z')")
    assert await sql.fetchval("SELECT count(*) FROM ledger_hours") == 0
    assert await sql.fetchval("SELECT count(*) FROM pg_inherits WHERE inhparent = 'applied'::regclass") == 0
