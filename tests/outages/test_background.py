"""The relay or the flusher makes no progress: /health/ready does not say that all is well."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import asyncpg
import httpx
import pytest

from app.coherence.epochs import Look
from app.coherence.succession import Succession
from app.embedded import Endpoints
from app.settings import Settings
from tests.eventually import eventually
from tests.faults.postgres_wire import PostgresWire
from tests.in_process import application
from tests.outages.instance import fresh_stores
from tests.topologies.ways import Ways

OUTBOX = r"\bFROM outbox\b"
FLUSH = r"INSERT INTO applied"
STUCK = timedelta(seconds=1)


@pytest.fixture(scope="module")
async def stores(servers: Endpoints, ways: Ways) -> AsyncIterator[Endpoints]:
    """Stores that no other instance uses."""
    async with fresh_stores(servers, 5, ways) as stores:
        yield stores


@pytest.fixture
async def wire(stores: Endpoints, ways: Ways) -> AsyncIterator[PostgresWire]:
    async with ways.postgres(stores.database_url) as wire:
        yield wire


@pytest.fixture
async def client(stores: Endpoints, ways: Ways, wire: PostgresWire) -> AsyncIterator[httpx.AsyncClient]:
    """The application in this process. A statement may take a minute, so that a held statement is no error."""
    async with _application((await ways.named(stores)).redis_url, wire.url) as client:
        yield client


@pytest.mark.parametrize(("part", "statement"), [("relay", OUTBOX), ("flusher", FLUSH)])
async def test_a_stalled_task_makes_the_instance_unready_until_it_resumes(
    client: httpx.AsyncClient, wire: PostgresWire, monkeypatch: pytest.MonkeyPatch, part: str, statement: str
) -> None:
    monkeypatch.setattr("app.caching.repeating.STUCK", STUCK)
    async with wire.holding(statement):
        assert (await client.post("/page-views/home")).status_code == 202
        await eventually(lambda: _says(client, 503, "unready", part, "stuck"))
        assert (await client.get("/health/live")).status_code == 200
    await eventually(lambda: _says(client, 200, "ready", part, "ok"))


@pytest.mark.parametrize(("part", "statement"), [("relay", OUTBOX), ("flusher", FLUSH)])
async def test_a_stalled_task_does_not_make_the_instance_unready_without_postgres(
    client: httpx.AsyncClient, wire: PostgresWire, monkeypatch: pytest.MonkeyPatch, part: str, statement: str
) -> None:
    monkeypatch.setattr("app.caching.repeating.STUCK", STUCK)
    async with wire.holding(statement):
        assert (await client.post("/page-views/home")).status_code == 202
        await eventually(lambda: _says(client, 503, "unready", part, "stuck"))
        wire.refuse()
        refused = "The database refuses connections: see whether it runs, and is what DATABASE_URL names"
        await eventually(lambda: _says(client, 200, "degraded", "postgres", refused))
        wire.heal()
    await eventually(lambda: _says(client, 200, "ready", part, "ok"))


async def test_a_flusher_that_always_fails_makes_the_instance_degraded_and_not_unready(
    client: httpx.AsyncClient, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.caching.repeating.STUCK", STUCK)
    # An error that is no page's fault makes no dead letters: the flusher keeps trying.
    await sql.execute(
        "CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'Out of order.' USING ERRCODE = 'external_routine_exception'; END $$"
    )
    await sql.execute("CREATE TRIGGER broken BEFORE INSERT ON applied FOR EACH ROW EXECUTE FUNCTION broken()")
    try:
        assert (await client.post("/page-views/home")).status_code == 202
        failing = "fails again and again: Postgres says: Out of order"
        await eventually(lambda: _says(client, 200, "degraded", "flusher", failing))
    finally:
        await sql.execute("DROP FUNCTION broken() CASCADE")
        await eventually(lambda: _says(client, 200, "ready", "flusher", "ok"))


async def test_a_relay_that_always_fails_makes_the_instance_unready(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.caching.repeating.STUCK", STUCK)
    async with _defective_relay(client):
        await eventually(lambda: _says(client, 503, "unready", "relay", "stuck"))


async def test_no_read_waits_for_news_of_a_relay_that_always_fails(client: httpx.AsyncClient) -> None:
    async with _defective_relay(client):
        for _ in range(3):
            answer = await client.get("/users/424242")
            assert (answer.status_code, answer.elapsed < timedelta(seconds=1)) == (404, True), answer.elapsed


@asynccontextmanager
async def _defective_relay(client: httpx.AsyncClient) -> AsyncIterator[None]:
    """Gives the relay a defect. Begins once it has failed so often that nobody trusts Redis."""

    async def fails(succession: Succession) -> Look:
        raise LookupError("It is a defect.")

    async def is_past() -> bool:
        return "fwd=bypass" in (await client.get("/users/424242")).headers["cache-status"]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Succession, "look", fails)
        await eventually(is_past)
        yield
    await eventually(lambda: _says(client, 200, "ready", "relay", "ok"))


@asynccontextmanager
async def _application(redis_url: str, database_url: str) -> AsyncIterator[httpx.AsyncClient]:
    settings = Settings(
        _env_file=None, redis_url=redis_url, database_url=database_url, database_timeout=timedelta(seconds=60)
    )
    async with application(settings) as client:
        await eventually(lambda: _says(client, 200, "ready", "relay", "ok"))
        yield client


async def _says(client: httpx.AsyncClient, status: int, word: str, part: str, what: str) -> bool:
    answer = await client.get("/health/ready")
    said = answer.json()
    return (answer.status_code, said["status"], said["parts"][part]) == (status, word, what)
