"""The caches learn of every write, whoever makes it."""

import asyncio
from datetime import timedelta

import asyncpg
import httpx
import pytest
from fastapi import FastAPI

from app.caching import Cache, CacheUnavailable
from app.coherence.outbox import Outbox
from app.coherence.relay import Relay
from app.database import Database, open_database
from app.embedded import Endpoints
from app.poller import Poller
from tests.coherence.conftest import UNDONE, NewRelay, succession
from tests.eventually import eventually


class Told:
    """A cache that records the keys it was told to forget, and can be away."""

    def __init__(self) -> None:
        self.changes: list[tuple[str, int]] = []
        self.away = False

    async def forget(self, key: str, version: int) -> None:
        if self.away:
            raise CacheUnavailable("Redis did not answer for products.")
        self.changes.append((key, version))


@pytest.fixture
def told() -> Told:
    """A cache that answers."""
    return Told()


@pytest.fixture
async def relay(new_relay: NewRelay, told: Told) -> Relay:
    """A relay that does not run: the test polls."""
    return await new_relay(told.forget)


pytestmark = pytest.mark.not_on("cluster", because="these relays have the cache of one Redis")


async def add_product(sql: asyncpg.Connection, sku: str) -> int:
    """Adds a product in SQL, and returns its version."""
    return int(
        await sql.fetchval("INSERT INTO products (sku, name, price) VALUES ($1, $1, '1') RETURNING version", sku)
    )


async def test_a_write_in_sql_reaches_the_cache(client: httpx.AsyncClient, sql: asyncpg.Connection) -> None:
    created = await client.post("/users", json={"name": "Ada", "email": "ada@example.com"})
    where = created.headers["location"]
    assert (await client.get(where)).json()["name"] == "Ada"

    await sql.execute("UPDATE users SET name = 'Ada King'")

    async def shows() -> bool:
        return bool((await client.get(where)).json()["name"] == "Ada King")

    print(f"It showed after {await eventually(shows):.3f} s.")

    await sql.execute("DELETE FROM users")

    async def is_gone() -> bool:
        return (await client.get(where)).status_code == 404

    await eventually(is_gone)


async def test_the_relay_delivers_every_change_once(relay: Relay, told: Told, sql: asyncpg.Connection) -> None:
    versions = [(sku, await add_product(sql, sku)) for sku in ("A", "B", "C")]
    assert await relay.poll() == 3
    assert await relay.poll() == 0
    assert told.changes == versions


async def test_a_change_that_could_not_be_delivered_stays_undone(
    relay: Relay, told: Told, sql: asyncpg.Connection
) -> None:
    version = await add_product(sql, "A")
    told.away = True
    with pytest.raises(CacheUnavailable):
        await relay.poll()
    assert await sql.fetchval(UNDONE) == 1
    told.away = False
    assert await relay.poll() == 1
    assert told.changes == [("A", version)]


async def test_two_relays_share_the_changes(
    relay: Relay, new_relay: NewRelay, told: Told, sql: asyncpg.Connection
) -> None:
    """A has taken a row and stalls; B delivers the others, and does not wait for A."""
    arrived, go = asyncio.Event(), asyncio.Event()

    async def stall(key: str, version: int) -> None:
        arrived.set()
        await go.wait()

    other = await new_relay(stall)
    first = await add_product(sql, "A")
    stalled = asyncio.create_task(other.poll())
    await arrived.wait()
    second = await add_product(sql, "B")
    assert await relay.poll() == 1
    # B also tells the cache of A's row: A may never do it.
    assert told.changes == [("B", second), ("A", first)]
    assert await sql.fetchval(UNDONE) == 1
    go.set()
    assert await stalled == 1
    assert await sql.fetchval(UNDONE) == 0


async def test_a_relay_that_dies_with_changes_in_flight_loses_none(
    relay: Relay, new_relay: NewRelay, told: Told, sql: asyncpg.Connection
) -> None:
    """A takes the rows, tells the cache, and its connection dies before COMMIT: B delivers them again."""
    arrived, go = asyncio.Event(), asyncio.Event()

    async def stall(key: str, version: int) -> None:
        arrived.set()
        await go.wait()

    dying = await new_relay(stall)
    version = await add_product(sql, "A")
    death = asyncio.create_task(dying.poll())
    await arrived.wait()
    holder = "SELECT pid FROM pg_stat_activity WHERE state = 'idle in transaction' AND pid <> pg_backend_pid()"
    for record in await sql.fetch(holder):
        await sql.execute("SELECT pg_terminate_backend($1)", record["pid"])
    go.set()
    with pytest.raises(Exception, match="database"):
        await death
    assert await relay.poll() == 1
    assert told.changes == [("A", version)]


async def test_delivered_changes_are_swept_after_a_minute(
    relay: Relay, database: Database, sql: asyncpg.Connection
) -> None:
    await add_product(sql, "A")
    await add_product(sql, "B")
    await relay.poll()
    await sql.execute("UPDATE outbox SET done_at = now() - interval '61 seconds' WHERE key = 'A'")
    await Outbox(database).sweep()
    assert [record["key"] for record in await sql.fetch("SELECT key FROM outbox")] == ["B"]


async def test_a_change_of_a_table_without_a_cache_does_not_hold_up_the_relay(
    relay: Relay, sql: asyncpg.Connection
) -> None:
    await sql.execute("INSERT INTO stock (sku, quantity) VALUES ('A', 1)")
    assert await relay.poll() == 1
    assert await sql.fetchval(UNDONE) == 0


async def test_a_change_with_an_invalid_key_is_set_aside_and_holds_nothing_up(
    app: FastAPI, client: httpx.AsyncClient, sql: asyncpg.Connection
) -> None:
    """Somebody writes rows into the outbox by hand whose keys are not ids of users. No trust is lost because of them,
    and the relays get past them."""
    await sql.execute("INSERT INTO users (id, name, email) VALUES (1, 'Ada', 'ada@example.com')")

    async def hits() -> bool:
        return "; hit" in (await client.get("/users/1")).headers["Cache-Status"]

    await eventually(hits)
    await sql.execute(
        "INSERT INTO outbox (resource, key, version) VALUES ('users', 'x', 1), ('users', '9e99', 2), ('users', '', 3)"
    )
    await sql.execute("UPDATE users SET name = 'Ada King'")

    async def carried() -> bool:
        return bool(await sql.fetchval(UNDONE) == 0)

    await eventually(carried)
    assert (await client.get("/users/1")).json()["name"] == "Ada King"
    await eventually(hits)
    assert app.state.resources.cache.trust.held
    assert app.state.resources.metrics.total("outbox_refused") == 3


async def test_a_running_relay_survives_failures_and_stops_when_told(
    opened: Cache, database: Database, poller: Poller, told: Told, sql: asyncpg.Connection
) -> None:
    counts = [0, 0]

    def counted(changes: int, failures: int) -> None:
        counts[0] += changes
        counts[1] += failures

    relay = Relay(
        Outbox(database),
        {"products": told.forget},
        succession=succession(database, poller, opened),
        counted=counted,
    )
    assert not relay.alive
    told.away = True
    async with relay.running():
        await add_product(sql, "A")

        async def failed() -> bool:
            return counts[1] > 0

        async def carried() -> bool:
            return counts[0] > 0

        await eventually(failed)
        assert relay.alive
        told.away = False
        await eventually(carried)
    assert not relay.alive
    assert counts[0] == 1


async def test_a_running_relay_survives_a_read_only_database(
    endpoints: Endpoints, opened: Cache, poller: Poller, told: Told, sql: asyncpg.Connection
) -> None:
    """A failover leaves a Postgres that only reads, for a while. The relay must resume when that is over."""
    counts = [0, 0]

    def counted(changes: int, failures: int) -> None:
        counts[0] += changes
        counts[1] += failures

    await add_product(sql, "A")
    reading_only = f"{endpoints.database_url}&options=-c%20default_transaction_read_only%3Don"
    async with open_database(
        reading_only, connections=1, timeout=timedelta(seconds=5), counted=lambda _: None
    ) as database:
        relay = Relay(
            Outbox(database),
            {"products": told.forget},
            succession=succession(database, poller, opened),
            counted=counted,
        )
        async with relay.running():

            async def failed_twice() -> bool:
                return counts[1] > 1

            await eventually(failed_twice)
            assert relay.alive
    assert counts[0] == 0
