"""Linearizable: a read that begins after a write was answered sees it, and no read sees an uncommitted value.

The rules are L1 to L4: the lock before the revocation, and the revocation before COMMIT; lock and row in two
statements; the writer takes the lease over; a load without the lock is neither kept nor shared.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

import asyncpg
import pytest
from redis.asyncio import Redis
from sqlalchemy import text

from app.caching import Cache, CacheUnavailable, Locked, Outcome, Region, WriteThrough, open_redis
from app.database import open_database
from app.embedded import Endpoints
from app.errors import OutcomeUnknown
from app.inventory.models import Adjustment, Change, Removal, Setting, Stock
from app.inventory.store import StockStore
from app.routers.problems import STATUSES
from app.row_tag import Expected
from tests.eventually import eventually
from tests.faults.postgres_wire import PostgresWire
from tests.inventory.conftest import LIFETIMES, Inventory, Load
from tests.settled import settled

WAITING = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"


async def quantity(inventory: Inventory, sku: str = "A") -> int | None:
    """Returns the quantity that a read answers."""
    stock = (await inventory.get(sku)).value
    return None if stock is None else stock.quantity


async def waits_for_a_lock(sql: asyncpg.Connection) -> None:
    """Returns when somebody waits for an advisory lock."""

    async def somebody() -> bool:
        return int(await sql.fetchval(WAITING)) > 0

    await eventually(somebody)


async def test_a_write_is_in_both_stores_when_it_is_answered(inventory: Inventory, redis: Redis) -> None:
    stock = await inventory.put("A", Setting(30))
    assert stock is not None
    assert (stock.quantity, stock.created) == (30, True)
    assert b'"quantity":30' in (await redis.get("stock:{A}") or b"")
    assert (await inventory.get("A")).outcome is Outcome.HIT
    await inventory.put("A", Adjustment(-1))
    assert await quantity(inventory) == 29
    await inventory.put("A", Removal())
    assert await quantity(inventory) is None


async def test_without_redis_nothing_is_saved(
    inventory: Inventory, load: Load, store: StockStore, opened: Cache
) -> None:
    """L1. A's connection to Redis is down · A commits anyway, and answers · R on B hits the old value."""
    await inventory.put("A", Setting(30))
    async with open_redis("unix:///nowhere/redis.sock", timeout=timedelta(seconds=1), connections=1) as nowhere:
        region: Region[str, Stock] = Region(
            replace(opened, redis=nowhere),
            "stock",
            Stock,
            lifetimes=LIFETIMES,
            settled=settled,
        )
        cut_off = WriteThrough(region, load=load, save=store.save)
        for change in (Setting(1), Adjustment(-1), Removal(), Setting(1, Expected(frozenset()))):
            with pytest.raises(CacheUnavailable):
                await cut_off.put("A", change)
        assert await quantity(cut_off) == 30
    stored = (await store.load("A")).stock
    assert stored is not None
    assert stored.model_dump_json().encode() == (await inventory.get("A")).payload


async def test_a_writer_does_not_revoke_the_value_before_it_holds_the_lock(
    inventory: Inventory, redis: Redis, sql: asyncpg.Connection
) -> None:
    """L1. W revokes, and waits for the lock · R loads the old row, which nobody has locked, and fills it · W commits"""
    await inventory.put("A", Setting(30))
    async with sql.transaction():
        await sql.execute("SELECT pg_advisory_xact_lock(stock_lock('A'))")
        writer = asyncio.create_task(inventory.put("A", Setting(29)))
        await waits_for_a_lock(sql)
        assert (await inventory.get("A")).outcome is Outcome.HIT
    await writer
    assert await quantity(inventory) == 29


async def test_lock_and_row_are_read_with_two_snapshots(
    endpoints: Endpoints, sql: asyncpg.Connection, inventory: Inventory
) -> None:
    """L2. A statement takes its snapshot, and stalls · W commits, and releases its lock · the statement gets the lock,
    and would answer the old row as one that may be kept."""
    await inventory.put("A", Setting(30))
    reader = await asyncpg.connect(endpoints.database_url)
    async with sql.transaction():
        await sql.execute("SELECT pg_advisory_xact_lock(1)")
        stalled = asyncio.create_task(
            reader.fetchrow("SELECT l.* FROM (SELECT pg_advisory_xact_lock(1) OFFSET 0) g, LATERAL load_stock('A') l")
        )
        await waits_for_a_lock(sql)
        await inventory.put("A", Setting(29))
    row = await stalled
    await reader.close()
    assert row is not None
    assert (row["unlocked"], row["quantity"]) == (True, 29)


async def test_an_overtaken_writer_does_not_bring_its_value_back(
    region: Region[str, Stock], load: Load, store: StockStore
) -> None:
    """L3. W1 commits, and stalls · W2 revokes, commits, and dies · W1 fills: by now, the lease must be W2's."""
    committed, go = asyncio.Event(), asyncio.Event()

    async def slow_save(sku: str, change: Change, revoke: Callable[[], Awaitable[None]]) -> Stock | None:
        stock = await store.save(sku, change, revoke)
        committed.set()
        await go.wait()
        return stock

    inventory = WriteThrough(region, load=load, save=slow_save)
    first = asyncio.create_task(inventory.put("A", Setting(97)))
    await committed.wait()
    await store.save("A", Setting(96), lambda: region.revoke("A", "writer-that-dies"))
    go.set()
    await first
    assert await quantity(inventory) == 96


async def test_a_row_read_during_a_write_is_not_shared(
    inventory: Inventory, region: Region[str, Stock], load: Load, store: StockStore, redis: Redis
) -> None:
    """L4. W has the lock, and has revoked
    the relay delivers an older change, and drops W's lease
    R1 is granted a lease, reads the old row without the lock, and stalls
                                        W commits, and answers
                                        R2 meets R1's lease; if it joined, it would answer the old row
    """
    await inventory.put("A", Setting(100))
    revoked, commit = asyncio.Event(), asyncio.Event()
    loaded, go = asyncio.Event(), asyncio.Event()

    async def slow_save(sku: str, change: Change, revoke: Callable[[], Awaitable[None]]) -> Stock | None:
        async def slow_revoke() -> None:
            await revoke()
            revoked.set()
            await commit.wait()

        return await store.save(sku, change, slow_revoke)

    async def slow_load(sku: str) -> Stock | Locked[Stock] | None:
        row = await load(sku)
        loaded.set()
        await go.wait()
        return row

    slow = WriteThrough(region, load=slow_load, save=slow_save)
    writer = asyncio.create_task(slow.put("A", Setting(99)))
    await revoked.wait()
    await region.invalidate("A", 1)
    first = asyncio.create_task(slow.get("A"))
    await loaded.wait()
    commit.set()
    await writer

    await redis.config_resetstat()
    second = asyncio.create_task(slow.get("A"))

    async def has_asked() -> bool:
        return "cmdstat_evalsha" in await redis.info("commandstats")

    await eventually(has_asked)
    go.set()
    old, new = await asyncio.gather(first, second)
    assert old.value is not None
    assert new.value is not None
    assert (old.value.quantity, old.outcome) == (100, Outcome.LOCKED)
    assert new.value.quantity == 99


async def test_a_reader_never_sees_an_uncommitted_value(
    inventory: Inventory, region: Region[str, Stock], load: Load, store: StockStore
) -> None:
    await inventory.put("A", Setting(30))
    revoked, commit = asyncio.Event(), asyncio.Event()

    async def slow_save(sku: str, change: Change, revoke: Callable[[], Awaitable[None]]) -> Stock | None:
        async def slow_revoke() -> None:
            await revoke()
            revoked.set()
            await commit.wait()

        return await store.save(sku, change, slow_revoke)

    writer = asyncio.create_task(WriteThrough(region, load=load, save=slow_save).put("A", Setting(29)))
    await revoked.wait()
    for _ in range(3):
        reading = await inventory.get("A")
        assert reading.value is not None
        assert (reading.value.quantity, reading.outcome) == (30, Outcome.LOCKED)
    commit.set()
    await writer
    assert await quantity(inventory) == 29


async def test_a_write_in_sql_is_seen_after_its_invalidation(
    inventory: Inventory, region: Region[str, Stock], sql: asyncpg.Connection
) -> None:
    await inventory.put("A", Setting(30))
    version = await sql.fetchval("UPDATE stock SET quantity = 31 RETURNING version")
    await region.invalidate("A", version)
    assert await quantity(inventory) == 31


async def test_a_database_with_another_default_isolation_keeps_the_two_snapshots(
    endpoints: Endpoints, sql: asyncpg.Connection
) -> None:
    """L2 holds only in READ COMMITTED: a repeatable read takes one snapshot for both statements."""
    await sql.execute("ALTER DATABASE fourways SET default_transaction_isolation = 'repeatable read'")
    try:
        async with (
            open_database(
                endpoints.database_url, connections=1, timeout=timedelta(seconds=5), counted=lambda _: None
            ) as fresh,
            fresh.reading("inventory") as connection,
        ):
            assert await connection.scalar(text("SHOW transaction_isolation")) == "read committed"
    finally:
        await sql.execute("ALTER DATABASE fourways RESET default_transaction_isolation")


async def test_a_connection_lost_during_commit_leaves_the_outcome_unknown(
    endpoints: Endpoints, region: Region[str, Stock], load: Load, inventory: Inventory, sql: asyncpg.Connection
) -> None:
    """W's COMMIT is in flight · the connection dies: W cannot know. A repetition with the same key settles it."""
    await inventory.put("A", Setting(30))
    async with (
        PostgresWire(endpoints.database_url) as wire,
        open_database(wire.url, connections=2, timeout=timedelta(seconds=5), counted=lambda _: None) as database,
        wire.holding("^COMMIT") as held,
    ):
        cut_off = WriteThrough(region, load=load, save=StockStore(database).save)
        writer = asyncio.create_task(cut_off.put("A", Adjustment(-1, "order-1")))
        await held.arrived.wait()
        await sql.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND state = 'idle in transaction'"
        )
        held.release()
        with pytest.raises(OutcomeUnknown):
            await writer
    assert STATUSES[OutcomeUnknown] == (503, "outcome-unknown")
    assert await quantity(inventory) == 30
    await inventory.put("A", Adjustment(-1, "order-1"))
    await inventory.put("A", Adjustment(-1, "order-1"))
    assert await quantity(inventory) == 29
