"""Real servers for all tests: one Redis and one Postgres for the session, empty at the beginning of each test."""

import gc
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import nullcontext
from datetime import timedelta

import asyncpg
import httpx
import pytest
import redis as sync_redis
from fastapi import FastAPI
from redis.asyncio import Redis

from app import main
from app.caching import Breaker, Cache, Identity, RedisClock, Trust, open_redis
from app.caching.moment import NEVER
from app.database import Database, open_database
from app.embedded import Endpoints, embedded_servers
from app.main import create_app
from app.poller import Poller, open_poller
from app.schema import migrate
from app.settings import Settings
from tests.caching.write_behind.views import new_ledger
from tests.eventually import eventually
from tests.faults.certificates import Certificates
from tests.faults.stores import Stores
from tests.fork_server import ForkServer
from tests.home import Home
from tests.open_directory import open_directory
from tests.service import Service, serving


@pytest.fixture(scope="session", autouse=True)
def settled_garbage() -> Iterator[None]:
    """What an application does with the garbage when it begins, once for the session: an application in this process
    would walk through all of pytest, and most tests take less time than that. Those in processes of their own do it."""
    gc.collect()
    gc.freeze()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(main, "settled_garbage", nullcontext)
        yield
    gc.unfreeze()


@pytest.fixture(scope="session", autouse=True)
def signals_are_heard() -> None:
    """What a shell runs in the background ignores Ctrl-C, and under `nohup` the end of the terminal, too. The commands
    that the tests start would inherit that."""
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


@pytest.fixture(scope="session", autouse=True)
def fork_server(signals_are_heard: None) -> Iterator[None]:
    """Programs that the tests start need not import what others have imported."""
    with ForkServer.running():
        yield


@pytest.fixture(scope="session", autouse=True)
def any_host() -> Iterator[None]:
    """The application may be called by any name, in this process and in others. What it does else is in
    `routers/test_hosts.py`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOURWAYS_ALLOWED_HOSTS", "*")
        yield


@pytest.fixture(scope="session", autouse=True)
def short_reads() -> Iterator[None]:
    """A flusher that was told to stop ends when its read does, which waits for entries. An application in this process
    is made for each test, and each would wait a fifth of a second. Those in processes of their own wait so long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("app.caching.write_behind.gathering.BLOCK", timedelta(milliseconds=20))
        yield


@pytest.fixture(scope="session", autouse=True)
def template() -> Iterator[None]:
    """Tests with stores of their own begin with a copy of a cluster that was made once."""
    with open_directory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stores, "template", directory / "data")
        yield


@pytest.fixture(scope="session")
def servers() -> Iterator[Endpoints]:
    """A Redis and a migrated Postgres, until the session ends."""
    # Not one of pytest's directories: only their owner may enter those.
    with open_directory() as directory, embedded_servers(directory) as endpoints:
        migrate(endpoints.database_url)
        with sync_redis.Redis.from_url(endpoints.redis_url) as redis:
            # It looks for clients that have waited long enough as often as this in a second: with 10, each read that
            # waits for 5 ms in vain takes 100.
            redis.config_set("hz", 100)
        yield endpoints


@pytest.fixture
async def endpoints(servers: Endpoints) -> Endpoints:
    """The same servers, emptied."""
    await empty(servers)
    return servers


async def empty(endpoints: Endpoints) -> None:
    """Removes everything from both stores but the ledger: who has taken views on would take them on again."""
    connection = await asyncpg.connect(endpoints.database_url)
    # As a replica, so that the trigger which refuses TRUNCATE does not fire.
    await connection.execute("SET session_replication_role = replica")
    await connection.execute(
        "TRUNCATE users, products, stock, stock_adjustments, page_views, parked_views, dead_letters, outbox "
        "RESTART IDENTITY"
    )
    await connection.close()
    async with open_redis(endpoints.redis_url, timeout=timedelta(seconds=10), connections=1) as redis:
        await redis.flushdb()


@pytest.fixture(scope="session")
def certificates() -> Iterator[Certificates]:
    """Certificates for servers and clients."""
    with open_directory() as directory:
        yield Certificates.made(directory)


@pytest.fixture
def named(endpoints: Endpoints) -> Endpoints:
    """What leads the application to them. Some suites put something in between."""
    return endpoints


@pytest.fixture
def settings(named: Endpoints) -> Settings:
    """Settings that name the servers, with the patience that a busy machine needs, and nothing else."""
    return Settings(
        _env_file=None,
        redis_url=named.redis_url,
        database_url=named.database_url,
        database_timeout=timedelta(seconds=10),
    )


@pytest.fixture
def clock() -> RedisClock:
    """Redis' clock, set by the first connection of `redis`."""
    return RedisClock()


@pytest.fixture
def trust() -> Trust:
    """Trust that does not end by itself: nobody runs a relay that would renew it."""
    trust = Trust()
    trust.grant(trust.losses, NEVER)
    return trust


@pytest.fixture
def breaker(trust: Trust) -> Breaker:
    """A closed breaker."""
    breaker = Breaker(trust)
    breaker.reachable = True
    return breaker


@pytest.fixture
def identity(trust: Trust) -> Identity:
    """The identity of the Redis that `redis` talks to."""
    return Identity(trust)


@pytest.fixture
async def redis(named: Endpoints, clock: RedisClock, identity: Identity) -> AsyncIterator[Redis]:
    """A client, made as the application makes its own."""
    async with open_redis(
        named.redis_url, timeout=timedelta(seconds=5), connections=16, clock=clock, identity=identity
    ) as redis:
        await redis.ping()
        yield redis


@pytest.fixture
def opened(redis: Redis, clock: RedisClock, trust: Trust, breaker: Breaker, identity: Identity) -> Cache:
    """A cache, as it is opened where a relay runs."""
    return Cache(redis, clock, trust, breaker, identity)


@pytest.fixture
async def database(named: Endpoints) -> AsyncIterator[Database]:
    """A pool, made as the application makes its own, with the patience that a busy machine needs."""
    async with open_database(
        named.database_url, connections=8, timeout=timedelta(seconds=10), counted=lambda resource: None
    ) as database:
        yield database


@pytest.fixture
async def poller(named: Endpoints) -> AsyncIterator[Poller]:
    """A poller, made as the application makes its own, with the patience that a busy machine needs."""
    async with open_poller(
        named.database_url, resources=2, timeout=timedelta(seconds=10), counted=lambda resource: None
    ) as poller:
        yield poller


@pytest.fixture
async def sql(endpoints: Endpoints) -> AsyncIterator[asyncpg.Connection]:
    """Somebody with psql: a connection past the application."""
    connection = await asyncpg.connect(endpoints.database_url)
    yield connection
    await connection.close()


@pytest.fixture
async def ledger(sql: asyncpg.Connection) -> AsyncIterator[None]:
    """The ledger of page views is that of a new database, and again at the end."""
    await new_ledger(sql)
    yield
    await new_ledger(sql)


@pytest.fixture
def patient_relay(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a poll may take longer than trust lasts. Then reads would bypass the cache for a moment."""
    monkeypatch.setattr("app.caching.trust.TRUST", timedelta(seconds=10))
    monkeypatch.setattr("app.coherence.relay.PATIENCE", timedelta(seconds=5))


@pytest.fixture
async def app(settings: Settings, patient_relay: None) -> AsyncIterator[FastAPI]:
    """The application in this process, which has begun, and believes its Redis: a busy machine takes a while."""
    app = create_app(settings)
    async with app.router.lifespan_context(app):

        async def believes() -> bool:
            caches = app.state.resources.cache.caches
            return bool(caches) and all(cache.trust.held for cache in caches)

        await eventually(believes)
        yield app


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application in this process."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://fourways") as client:
        yield client


@pytest.fixture
def home() -> Iterator[Home]:
    """A directory with nothing in it, and a port."""
    with open_directory() as directory:
        yield Home(directory)


@pytest.fixture
async def three_workers(endpoints: Endpoints) -> AsyncIterator[Service]:
    """The application as three worker processes behind one port."""
    async with serving(endpoints.redis_url, endpoints.database_url, workers=3) as service:
        yield service
