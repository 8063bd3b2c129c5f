"""The answer of `/health/ready` in each state of the stores and the tasks. It says what is wrong, in the words of the
store and without secrets, and is a 503 exactly when another instance could do better."""

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit, urlunsplit

import asyncpg
import httpx
import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.embedded import Endpoints
from app.grants import postgres_grants, redis_grants
from app.schema import Schema, migrate
from app.settings import Settings
from tests.eventually import PATIENCE, eventually
from tests.faults.another_redis import another_redis
from tests.faults.name import Name
from tests.faults.pgbouncer import pgbouncer
from tests.faults.postgres_wire import PostgresWire
from tests.faults.redis_wire import RedisWire
from tests.faults.replicating_redis import ReplicatingRedis
from tests.faults.reticent_redis import reticent_redis
from tests.faults.standby import Standby
from tests.fresh_database import fresh_database
from tests.in_process import application
from tests.least_privilege import a_role, as_role, quoted
from tests.migrated_database import migrated_database
from tests.service import free_port

PASSWORD, NEW_PASSWORD = "hunter2", "correct-horse"
SECRETS = re.compile(
    rf"{PASSWORD}|{NEW_PASSWORD}|guest|limited|fresh_|/dev/shm|/tmp|\.sock|127\.0|\.invalid|:\d{{4,5}}\b|[0-9a-f]{{40}}"
)
"""Secrets that the answer to a load balancer must not contain."""


@dataclass(frozen=True, slots=True)
class Stage:
    """The test's own stores, and an operator's connection to each."""

    stores: Endpoints
    redis: Redis
    sql: asyncpg.Connection

    @property
    def database(self) -> str:
        """The name of the database."""
        return urlsplit(self.stores.database_url).path[1:]

    def redis_as(self, login: str) -> str:
        """Returns the address of Redis with the login `user:password`."""
        return self.stores.redis_url.replace("unix://", f"unix://{login}@")

    def database_as(self, login: str) -> str:
        """Returns the address of Postgres with the login `user:password`."""
        return urlunsplit(urlsplit(self.stores.database_url)._replace(netloc=f"{login}@"))

    @asynccontextmanager
    async def application(
        self,
        *,
        redis_url: str | None = None,
        database_url: str | None = None,
        ready: bool = False,
        redis_timeout: float = 0.5,
    ) -> AsyncIterator[httpx.AsyncClient]:
        """Yields a client of an application on these stores, or on others. With `ready`, waits until it is ready."""
        settings = Settings(
            _env_file=None,
            redis_url=redis_url or self.stores.redis_url,
            database_url=database_url or self.stores.database_url,
            redis_timeout=timedelta(seconds=redis_timeout),
        )
        async with application(settings) as client:
            if ready:
                await is_ready(client)
            yield client


async def _do(redis: Redis, *words: str) -> None:
    await redis.execute_command(*words)  # type: ignore[no-untyped-call]


async def is_ready(client: httpx.AsyncClient) -> None:
    """Waits until the application is ready."""

    async def all_is_well() -> bool:
        return bool((await client.get("/health/ready")).json()["status"] == "ready")

    await eventually(all_is_well)


@pytest.fixture
async def stage(servers: Endpoints) -> AsyncIterator[Stage]:
    """An empty Redis, and a migrated database."""
    async with prepared(servers) as stage:
        yield stage


@asynccontextmanager
async def prepared(servers: Endpoints) -> AsyncIterator[Stage]:
    """Yields an empty Redis, and a migrated database."""
    async with another_redis() as redis_url, migrated_database(servers.database_url) as database_url:
        sql = await asyncpg.connect(database_url)
        async with Redis.from_url(redis_url, protocol=2) as redis:
            try:
                yield Stage(Endpoints(redis_url, database_url), redis, sql)
            finally:
                # A state may have set a password. Redis must be able to stop without one.
                await redis.config_set("requirepass", "")
        await sql.close()


Staged = AbstractAsyncContextManager[httpx.AsyncClient]
Staging = Callable[[Stage], Staged]


@asynccontextmanager
async def well(stage: Stage) -> AsyncIterator[httpx.AsyncClient]:
    async with stage.application(ready=True) as client:
        yield client


@asynccontextmanager
async def redis_is_reticent(stage: Stage) -> AsyncIterator[httpx.AsyncClient]:
    async with reticent_redis(stage.stores.redis_url) as url, stage.application(redis_url=url) as client:
        yield client


def from_the_start(*, redis_url: str | None = None, database_url: str | None = None) -> Staging:
    """The application starts with an address that leads nowhere."""
    return lambda stage: stage.application(redis_url=redis_url, database_url=database_url)


@asynccontextmanager
async def redis_is_silent(stage: Stage) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        RedisWire(stage.stores.redis_url) as wire,
        stage.application(redis_url=wire.url, ready=True) as client,
    ):
        wire.silence()
        yield client
        wire.heal()


def redis_password(login: str) -> Staging:
    """The application never had the right password."""

    @asynccontextmanager
    async def staged(stage: Stage) -> AsyncIterator[httpx.AsyncClient]:
        await stage.redis.config_set("requirepass", PASSWORD)
        url = stage.redis_as(login) if login else stage.stores.redis_url
        async with stage.application(redis_url=url) as client:
            yield client

    return staged


@asynccontextmanager
async def redis_password_is_rotated(stage: Stage) -> AsyncIterator[httpx.AsyncClient]:
    await stage.redis.config_set("requirepass", PASSWORD)
    async with stage.application(redis_url=stage.redis_as(f":{PASSWORD}"), ready=True) as client:
        await stage.redis.config_set("requirepass", NEW_PASSWORD)
        await _do(stage.redis, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        yield client
        await stage.redis.config_set("requirepass", PASSWORD)
        await is_ready(client)


@asynccontextmanager
async def redis_without_password(stage: Stage) -> AsyncIterator[httpx.AsyncClient]:
    """The application has a password, and Redis none."""
    async with stage.application(redis_url=stage.redis_as(f":{PASSWORD}")) as client:
        yield client


def redis_permits(*words: str, ready: bool) -> Staging:
    """The user lacks a permission that the application needs, from the start or later."""

    @asynccontextmanager
    async def staged(stage: Stage) -> AsyncIterator[httpx.AsyncClient]:
        everything = ("ACL", "SETUSER", "guest", "on", f">{PASSWORD}", "~*", "&*", "+@all")
        await _do(stage.redis, *everything, *([] if ready else words))
        async with stage.application(redis_url=stage.redis_as(f"guest:{PASSWORD}"), ready=ready) as client:
            await _do(stage.redis, *everything, *words)
            yield client

    return staged


def redis_grants_without(*missing: str, ready: bool) -> Staging:
    """The user has what it needs, except for this, from the start or later."""
    words = redis_grants("guest", "").split()
    return redis_permits("resetkeys", "-@all", *(word for word in words[4:] if word not in missing), ready=ready)


def postgres_grants_without(*missing: str, ready: bool) -> Staging:
    """The role has what it needs, except for this, from the start or later."""

    @asynccontextmanager
    async def staged(stage: Stage) -> AsyncIterator[httpx.AsyncClient]:
        async def revoked() -> None:
            for one in missing:
                await stage.sql.execute(f"REVOKE {one} FROM PUBLIC, {role}")

        async def is_granted() -> bool:
            # It fails where the service opens an hour of the ledger at the same moment.
            with suppress(asyncpg.InternalServerError):
                await stage.sql.execute(postgres_grants(name))
                return True
            return False

        async with a_role(stage.stores.database_url, "limited") as name:
            role = quoted(name)
            await stage.sql.execute(postgres_grants(name))
            if not ready:
                await revoked()
            async with stage.application(database_url=as_role(stage.stores.database_url, name), ready=ready) as client:
                await revoked()
                yield client
                await eventually(is_granted)
                await is_ready(client)
            await stage.sql.execute(f"DROP OWNED BY {role}")

    return staged


def search_path_is(path: str, *statements: str) -> Staging:
    """The URL names this path, after these statements."""

    @asynccontextmanager
    async def staged(stage: Stage) -> AsyncIterator[httpx.AsyncClient]:
        for statement in statements:
            await stage.sql.execute(statement)
        url = stage.stores.database_url
        url += f"{'&' if '?' in url else '?'}options=-c%20search_path%3D{path}"
        async with stage.application(database_url=url) as client:
            yield client

    return staged


@asynccontextmanager
async def redis_loads(stage: Stage) -> AsyncIterator[httpx.AsyncClient]:
    """Redis reloads its data. That takes a fifth of a second for each key, and it serves its clients after every other
    key. The load cannot be shortened, so the test stops Redis in the middle."""
    async with (
        another_redis() as url,
        Redis.from_url(url, protocol=2, socket_timeout=PATIENCE) as redis,
        Redis.from_url(url, protocol=2, socket_timeout=PATIENCE) as other,
        stage.application(redis_url=url, ready=True, redis_timeout=PATIENCE) as client,
    ):
        await redis.mset({f"filler:{number}": "x" * 2**20 for number in range(60)})
        await redis.config_set("rdbcompression", "no")
        await redis.config_set("key-load-delay", 200_000)
        reload = asyncio.create_task(_do(redis, "DEBUG", "RELOAD"))
        yield client
        with pytest.raises(RedisError):
            await _do(other, "SHUTDOWN", "NOSAVE")
        with pytest.raises(RedisError):
            await reload


@asynccontextmanager
async def redis_cannot_save(stage: Stage) -> AsyncIterator[httpx.AsyncClient]:
    """The directory of Redis' snapshots is gone."""
    async with stage.application(ready=True) as client:
        directory = str((await stage.redis.config_get("dir"))["dir"])
        gone = Path(directory) / "gone"
        gone.mkdir()
        await stage.redis.config_set("dir", str(gone))
        gone.rmdir()
        await stage.redis.config_set("save", "3600 1")
        await stage.redis.bgsave()

        async def has_failed() -> bool:
            return bool((await stage.redis.info("persistence"))["rdb_last_bgsave_status"] == "err")

        await eventually(has_failed)
        try:
            yield client
        finally:  # Otherwise Redis could not be stopped.
            await stage.redis.config_set("save", "")
            await stage.redis.config_set("dir", directory)


def redis_is_set(**options: str) -> Staging:
    """Redis gets these options while the application runs."""

    @asynccontextmanager
    async def staged(stage: Stage) -> AsyncIterator[httpx.AsyncClient]:
        async with stage.application(ready=True) as client:
            for name, value in options.items():
                await stage.redis.config_set(name.replace("_", "-"), value)
            yield client

    return staged


@asynccontextmanager
async def keys_are_full(stage: Stage) -> AsyncIterator[httpx.AsyncClient]:
    """Within this hour, a shard has received as many bytes of records as it may have."""
    async with stage.application(ready=True) as client:
        seconds, _ = await stage.redis.time()
        await stage.redis.hset("views:{0}:keyed", str(int(seconds) // 3600), str(2**27))
        yield client
        await stage.redis.delete("views:{0}:keyed")
        await is_ready(client)


def redis_is_a_replica(*, read_only: str) -> Staging:
    """The address leads to a replica."""

    @asynccontextmanager
    async def staged(stage: Stage) -> AsyncIterator[httpx.AsyncClient]:
        async with ReplicatingRedis.started() as primary, ReplicatingRedis.started() as replica:
            async with Redis.from_url(replica.url) as operator:
                await operator.config_set("replica-read-only", read_only)
            await replica.follow(primary)
            async with stage.application(redis_url=replica.url) as client:
                yield client

    return staged


@asynccontextmanager
async def another_redis_is_believed(stage: Stage) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        another_redis() as other,
        stage.application(ready=True),
        stage.application(redis_url=other) as client,
    ):
        yield client


@asynccontextmanager
async def redis_is_somebody_elses(stage: Stage) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        fresh_database(stage.stores.database_url) as other,
        stage.application(ready=True),
    ):
        await asyncio.to_thread(migrate, other)
        async with stage.application(database_url=other) as client:
            yield client


@asynccontextmanager
async def redis_has_a_key_of_that_name(stage: Stage) -> AsyncIterator[httpx.AsyncClient]:
    """Another application already uses the name of the record."""
    await stage.redis.set("epoch", "theirs")
    async with stage.application() as client:
        yield client
    assert await stage.redis.get("epoch") == b"theirs"


def sockets(database_url: str) -> Path:
    """Returns the directory of Postgres' socket."""
    return Path(parse_qs(urlsplit(database_url).query)["host"][0])


@asynccontextmanager
async def postgres_is_an_old_primary(stage: Stage) -> AsyncIterator[httpx.AsyncClient]:
    with Standby.started(stage.stores.database_url) as standby:
        await standby.promote()
        promoted = urlunsplit(urlsplit(standby.url)._replace(path=f"/{stage.database}"))
        async with stage.application(database_url=promoted, ready=True), stage.application() as client:
            yield client


@asynccontextmanager
async def postgres_is_a_standby(stage: Stage) -> AsyncIterator[httpx.AsyncClient]:
    with Standby.started(stage.stores.database_url) as standby:
        url = urlunsplit(urlsplit(standby.url)._replace(path=f"/{stage.database}"))
        async with stage.application(database_url=url) as client:
            yield client


@asynccontextmanager
async def postgres_is_to_be_promoted(stage: Stage) -> AsyncIterator[httpx.AsyncClient]:
    """The name leads to the standby before its promotion: all instances are in the same state."""
    with (
        Standby.started(stage.stores.database_url) as standby,
        Name.leading_to(sockets(stage.stores.database_url)) as name,
    ):
        url = f"postgresql://fourways@/{stage.database}?host={name.path}"
        async with PostgresWire(url) as wire, stage.application(database_url=wire.url, ready=True) as client:
            name.lead_to(standby.sockets)
            wire.cut()
            yield client
            await standby.promote()
            await is_ready(client)


@asynccontextmanager
async def a_pooler_is_in_transaction_mode(stage: Stage) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        pgbouncer(stage.stores.database_url, "transaction") as pooler,
        stage.application(database_url=pooler.url) as client,
    ):
        yield client


@asynccontextmanager
async def the_encoding_is_old(stage: Stage) -> AsyncIterator[httpx.AsyncClient]:
    async with fresh_database(stage.stores.database_url, "ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0") as url:
        await asyncio.to_thread(migrate, url)
        async with stage.application(database_url=url) as client:
            yield client


@asynccontextmanager
async def postgres_may_not_connect(stage: Stage) -> AsyncIterator[httpx.AsyncClient]:
    async with a_role(stage.stores.database_url, "limited") as name:
        await stage.sql.execute(f"REVOKE CONNECT ON DATABASE {stage.database} FROM PUBLIC")
        async with stage.application(database_url=as_role(stage.stores.database_url, name)) as client:
            yield client
            await stage.sql.execute(postgres_grants(name))
            await is_ready(client)
        await stage.sql.execute(f"DROP OWNED BY {quoted(name)}")


@asynccontextmanager
async def postgres_is_silent(stage: Stage) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        PostgresWire(stage.stores.database_url) as wire,
        stage.application(database_url=wire.url, ready=True) as client,
    ):
        wire.silence()
        yield client
        wire.heal()


END_SESSIONS = "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE application_name = 'fourways'"


@asynccontextmanager
async def limited(stage: Stage) -> AsyncIterator[None]:
    """Holds a role open that must give its password, until the block ends."""
    role = "limited"
    await stage.sql.execute(f"CREATE ROLE {role} SUPERUSER LOGIN PASSWORD '{PASSWORD}'")
    rules = Path(await stage.sql.fetchval("SHOW hba_file"))
    before = await asyncio.to_thread(rules.read_text)
    await asyncio.to_thread(rules.write_text, f"local all {role} scram-sha-256\n{before}")
    await stage.sql.execute("SELECT pg_reload_conf()")

    async def is_asked() -> bool:
        return bool(await stage.sql.fetchval("SELECT count(*) = 1 FROM pg_hba_file_rules WHERE user_name = $1", [role]))

    await eventually(is_asked)
    try:
        yield
    finally:
        await asyncio.to_thread(rules.write_text, before)
        await stage.sql.execute("SELECT pg_reload_conf()")
        # The role may own a partition that it created.
        await stage.sql.execute(f"REASSIGN OWNED BY {role} TO CURRENT_USER")
        await stage.sql.execute(f"DROP ROLE {role}")


@asynccontextmanager
async def postgres_password_is_wrong(stage: Stage) -> AsyncIterator[httpx.AsyncClient]:
    async with limited(stage), stage.application(database_url=stage.database_as("limited:wrong")) as client:
        yield client


@asynccontextmanager
async def postgres_password_is_rotated(stage: Stage) -> AsyncIterator[httpx.AsyncClient]:
    url = stage.database_as(f"limited:{PASSWORD}")
    async with limited(stage), stage.application(database_url=url, ready=True) as client:
        await stage.sql.execute(f"ALTER ROLE limited PASSWORD '{NEW_PASSWORD}'")
        await stage.sql.execute(END_SESSIONS)
        yield client
        await stage.sql.execute(f"ALTER ROLE limited PASSWORD '{PASSWORD}'")
        await is_ready(client)


@asynccontextmanager
async def postgres_has_no_room(stage: Stage) -> AsyncIterator[httpx.AsyncClient]:
    await stage.sql.execute("CREATE ROLE limited LOGIN CONNECTION LIMIT 0")
    try:
        async with stage.application(database_url=stage.database_as("limited")) as client:
            yield client
    finally:
        await stage.sql.execute("DROP ROLE limited")


@asynccontextmanager
async def database_is_not_there(stage: Stage) -> AsyncIterator[httpx.AsyncClient]:
    async with stage.application(database_url=stage.stores.database_url.replace("/fresh_", "/fresh_no_")) as client:
        yield client


@asynccontextmanager
async def database_is_dropped(stage: Stage) -> AsyncIterator[httpx.AsyncClient]:
    name = f"fresh_{secrets.token_hex(6)}"
    url = urlunsplit(urlsplit(stage.stores.database_url)._replace(path=f"/{name}"))
    await stage.sql.execute(f"CREATE DATABASE {name}")
    await asyncio.to_thread(migrate, url)
    async with stage.application(database_url=url, ready=True) as client:
        await stage.sql.execute(f"DROP DATABASE {name} WITH (FORCE)")
        yield client


@asynccontextmanager
async def database_is_closed(stage: Stage) -> AsyncIterator[httpx.AsyncClient]:
    elsewhere = await asyncpg.connect(urlunsplit(urlsplit(stage.stores.database_url)._replace(path="/postgres")))
    async with stage.application(ready=True) as client:
        await elsewhere.execute(f"ALTER DATABASE {stage.database} ALLOW_CONNECTIONS false")
        await elsewhere.execute(END_SESSIONS)
        try:
            yield client
        finally:
            await elsewhere.execute(f"ALTER DATABASE {stage.database} ALLOW_CONNECTIONS true")
        await is_ready(client)
    await elsewhere.close()


@asynccontextmanager
async def postgres_is_read_only(stage: Stage) -> AsyncIterator[httpx.AsyncClient]:
    async with stage.application(ready=True) as client:
        await stage.sql.execute(f"ALTER DATABASE {stage.database} SET default_transaction_read_only = on")
        await stage.sql.execute(END_SESSIONS)
        assert (await client.get("/users/424242")).status_code == 404
        yield client
        assert (await client.get("/users/424242")).status_code == 404
        await stage.sql.execute("SET default_transaction_read_only = off")
        await stage.sql.execute(f"ALTER DATABASE {stage.database} RESET default_transaction_read_only")
        await is_ready(client)


def says_schema(statement: str) -> Staging:
    """Somebody has changed the recorded version of the schema."""

    @asynccontextmanager
    async def staged(stage: Stage) -> AsyncIterator[httpx.AsyncClient]:
        async with stage.application(ready=True) as client:
            await stage.sql.execute(statement)
            yield client

    return staged


@asynccontextmanager
async def relay_is_stuck(stage: Stage) -> AsyncIterator[httpx.AsyncClient]:
    """The relay waits for an answer on its own connection, while both stores answer everybody else."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("app.caching.repeating.STUCK", timedelta(seconds=1))
        async with (
            PostgresWire(stage.stores.database_url) as wire,
            stage.application(database_url=wire.url, ready=True) as client,
            wire.holding(r"\bFROM outbox\b"),
        ):
            yield client


@asynccontextmanager
async def flusher_fails(stage: Stage) -> AsyncIterator[httpx.AsyncClient]:
    """Postgres returns an error that no page causes: the flusher keeps retrying, and so would any other flusher."""
    await stage.sql.execute(
        "CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'Out of order.' USING ERRCODE = 'external_routine_exception'; END $$"
    )
    await stage.sql.execute("CREATE TRIGGER broken BEFORE INSERT ON applied FOR EACH ROW EXECUTE FUNCTION broken()")
    async with stage.application(ready=True) as client:
        assert (await client.post("/page-views/home")).status_code == 202
        yield client
        told = re.search(r'fourways_view_flushes_total\{result="failed"\} (\S+)', (await client.get("/metrics")).text)
        assert told is not None
        assert float(told[1]) >= 3
        await stage.sql.execute("DROP FUNCTION broken() CASCADE")
        await is_ready(client)


@asynccontextmanager
async def a_page_is_too_slow(stage: Stage) -> AsyncIterator[httpx.AsyncClient]:
    """Postgres cancels each statement that counts one page, and counts all other pages. It would do the same for any
    other instance."""
    await stage.sql.execute(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "IF NEW.page = 'slow' THEN RAISE EXCEPTION 'Too slow.' USING ERRCODE = 'query_canceled'; END IF; "
        "RETURN NEW; END $$"
    )
    await stage.sql.execute("CREATE TRIGGER slow BEFORE INSERT ON page_views FOR EACH ROW EXECUTE FUNCTION slow()")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("app.page_views.parking.LONG", timedelta(0))
        async with stage.application(ready=True) as client:
            assert (await client.post("/page-views/slow")).status_code == 202
            assert (await client.post("/page-views/news")).status_code == 202

            async def is_counted() -> bool:
                return bool(await stage.sql.fetchval("SELECT views FROM page_views WHERE page = 'news'") == 1)

            await eventually(is_counted)
            yield client
            await stage.sql.execute("DROP FUNCTION slow() CASCADE")
            await is_ready(client)


@dataclass(frozen=True, slots=True)
class State:
    """A staged state, and the expected answer: the HTTP status, the word, and the sentence of one part."""

    staged: Staging
    code: int
    status: str
    part: str
    says: str


LOOK_FOR_REDIS = "see whether it runs, and is what REDIS_URL names"
LOOK_FOR_POSTGRES = "see whether it runs, and is what DATABASE_URL names"
REDIS, POSTGRES = "Redis answered with an error", "The database takes no connection"
WRONGPASS = f"{REDIS}: WRONGPASS invalid username-password pair or user is disabled"
LOGIN = "put the right user and password into REDIS_URL"
DENIED = f"{POSTGRES}: password authentication failed for user: put the right user and password into DATABASE_URL"
MISSING = f"{POSTGRES}: database does not exist: name the right database in DATABASE_URL"
SET_PATH = "put it right in DATABASE_URL, as in options=-c%20search_path%3Dpublic, or with ALTER ROLE … SET search_path"
NOWHERE = f"postgresql://guest@127.0.0.1:{free_port()}/fresh_"

STATES = {
    "all is well": State(well, 200, "ready", "epoch", "ok"),
    "Redis tells neither its version nor its run": State(redis_is_reticent, 200, "ready", "redis", "ok"),
    "Redis refuses connections": State(
        from_the_start(redis_url=f"redis://guest:{PASSWORD}@127.0.0.1:{free_port()}"),
        200, "degraded", "redis", f"Redis did not answer: it refuses connections: {LOOK_FOR_REDIS}",
    ),
    "the name of Redis does not resolve": State(
        from_the_start(redis_url=f"redis://guest:{PASSWORD}@redis.invalid"),
        200, "degraded", "redis", f"Redis did not answer: it is not found: its name does not resolve: {LOOK_FOR_REDIS}",
    ),
    "Redis is silent": State(
        redis_is_silent, 200, "degraded", "redis", f"Redis did not answer: it does not answer in time: {LOOK_FOR_REDIS}"
    ),
    "Redis wants another password": State(redis_password(":wrong"), 503, "unready", "redis", f"{WRONGPASS}: {LOGIN}"),
    "Redis wants a password": State(
        redis_password(""), 503, "unready", "redis",
        f"{REDIS}: NOAUTH Authentication required: put its password into REDIS_URL",
    ),
    "nothing is said of an epoch that nobody can look up": State(
        redis_password(":wrong"), 503, "unready", "epoch", "none: it has not been checked yet"
    ),
    "Redis wants no password": State(
        redis_without_password, 503, "unready", "redis",
        f"{REDIS}: ERR AUTH <password> called without any password configured for the default user: "
        "leave the password out of REDIS_URL, or put the user before it",
    ),
    "the password of Redis is changed": State(
        redis_password_is_rotated, 200, "degraded", "redis", f"{WRONGPASS}: {LOGIN}"
    ),
    "Redis permits too little": State(
        redis_permits("-time", ready=False), 503, "unready", "redis",
        f"{REDIS}: NOPERM this user has no permissions to run the 'time' command or its subcommand: "
        "pipe `fourways grants redis --user …` to redis-cli",
    ),
    "Redis permits no command of a script": State(
        redis_grants_without("+xinfo|consumers", "+xgroup|create", ready=False), 503, "unready", "redis",
        "its user lacks XGROUP CREATE, XINFO CONSUMERS: pipe `fourways grants redis --user …` to redis-cli",
    ),
    "Redis permits no command of a script any more": State(
        redis_grants_without("+hset", ready=True), 200, "degraded", "redis",
        "its user lacks HSET: pipe `fourways grants redis --user …` to redis-cli",
    ),
    "Redis permits no key of a resource": State(
        redis_grants_without("~users:{*", "~views:trial", ready=False), 503, "unready", "redis",
        "its user lacks ~users:{*, ~views:trial: pipe `fourways grants redis --user …` to redis-cli",
    ),
    "Redis does not tell about itself": State(
        redis_permits("-info", ready=False), 200, "degraded", "redis",
        f"{REDIS}: NOPERM this user has no permissions to run the 'info' command or its subcommand: "
        "pipe `fourways grants redis --user …` to redis-cli",
    ),
    "Redis permits less than before": State(
        redis_permits("-set", ready=True), 200, "degraded", "redis",
        "its user lacks SET: pipe `fourways grants redis --user …` to redis-cli",
    ),
    "Redis loads": State(
        redis_loads, 200, "degraded", "redis", f"{REDIS}: LOADING Redis is loading the dataset in memory: wait"
    ),
    "Redis cannot save": State(
        redis_cannot_save, 200, "degraded", "redis",
        f"{REDIS}: MISCONF Redis is configured to save RDB snapshots, but it is currently not able to persist on disk: "
        "see in its log why its disk takes nothing",
    ),
    "the memory of Redis is full": State(
        redis_is_set(maxmemory="1"), 200, "degraded", "redis",
        f"{REDIS}: OOM command not allowed when used memory > 'maxmemory': "
        "raise its maxmemory, or see what else is kept in it",
    ),
    "Redis is a replica": State(
        redis_is_a_replica(read_only="yes"), 200, "degraded", "redis",
        f"{REDIS}: READONLY You can't write against a read only replica: name the primary in REDIS_URL",
    ),
    "Redis is a replica that takes writes": State(
        redis_is_a_replica(read_only="no"), 200, "degraded", "redis",
        "Redis is a replica: name the primary in REDIS_URL",
    ),
    "Redis may evict": State(
        redis_is_set(maxmemory_policy="allkeys-lru"), 200, "degraded", "eviction",
        "maxmemory-policy is allkeys-lru: when memory is full, accepted writes vanish; set it to noeviction",
    ),
    "Redis may evict keys with a lifetime": State(
        redis_is_set(maxmemory_policy="volatile-ttl"), 200, "degraded", "eviction",
        "maxmemory-policy is volatile-ttl: "
        "when memory is full, a repeated write may be added twice; set it to noeviction",
    ),
    "Redis keeps no file": State(
        redis_is_set(appendonly="no"), 200, "degraded", "persistence",
        "appendonly is off: when Redis restarts, accepted writes are lost; set it to yes",
    ),
    "the room for idempotency keys is full": State(
        keys_are_full, 200, "degraded", "keys",
        "the room for idempotency keys is 100% full: page views with a new one are refused; raise FOURWAYS_KEYS_BYTES, "
        "or wait until those of a day ago are gone",
    ),
    "another Redis is believed": State(
        another_redis_is_believed, 200, "degraded", "epoch",
        "none: it is another Redis, or another run of it, than the one that Postgres names; if it lasts, give all "
        "instances the same REDIS_URL and DATABASE_URL, or give a copy of the database another FOURWAYS_PREFIX",
    ),
    "Redis is somebody else's": State(
        redis_is_somebody_elses, 200, "degraded", "epoch",
        "none: it belongs to another deployment: set FOURWAYS_PREFIX, or name another Redis in REDIS_URL",
    ),
    "another application has a key of that name": State(
        redis_has_a_key_of_that_name, 200, "degraded", "breaker",
        "open: it says WRONGTYPE Operation against a key holding the wrong kind of value: "
        "another application has the key `epoch`: set FOURWAYS_PREFIX",
    ),
    "Postgres is an old primary": State(
        postgres_is_an_old_primary, 503, "unready", "postgres",
        "DATABASE_URL leads to an old primary: a later timeline of Postgres is believed: "
        "name the primary in DATABASE_URL",
    ),
    "Postgres is a standby": State(
        postgres_is_a_standby, 503, "unready", "postgres",
        "Postgres is a standby: what it knows may be old: name the primary in DATABASE_URL",
    ),
    "Postgres is to be promoted": State(
        postgres_is_to_be_promoted, 200, "degraded", "postgres",
        "Postgres is a standby: what it knows may be old: name the primary in DATABASE_URL",
    ),
    "Postgres refuses connections": State(
        from_the_start(database_url=NOWHERE), 200, "degraded", "postgres",
        f"The database refuses connections: {LOOK_FOR_POSTGRES}",
    ),
    "the name of Postgres does not resolve": State(
        from_the_start(database_url=f"postgresql://guest:{PASSWORD}@postgres.invalid/fresh_"), 200, "degraded",
        "postgres", f"The database is not found: its name does not resolve: {LOOK_FOR_POSTGRES}",
    ),
    "Postgres is silent": State(
        postgres_is_silent, 200, "degraded", "postgres", f"The database does not answer in time: {LOOK_FOR_POSTGRES}"
    ),
    "Postgres wants another password": State(postgres_password_is_wrong, 503, "unready", "postgres", DENIED),
    "the password of Postgres is changed": State(postgres_password_is_rotated, 200, "degraded", "postgres", DENIED),
    "Postgres has no room": State(
        postgres_has_no_room, 200, "degraded", "postgres",
        f"{POSTGRES}: too many connections for role: "
        "see its max_connections, and the CONNECTION LIMIT of the role and of the database",
    ),
    "the database is not there": State(database_is_not_there, 503, "unready", "postgres", MISSING),
    "the database is dropped": State(database_is_dropped, 200, "degraded", "postgres", MISSING),
    "the database is closed": State(
        database_is_closed, 200, "degraded", "postgres",
        "Postgres is not in the state for that: database is not currently accepting connections: see its log",
    ),
    "Postgres is read-only": State(
        postgres_is_read_only, 200, "degraded", "postgres",
        "Postgres is read-only: it serves reads; see its default_transaction_read_only",
    ),
    "a pooler shares the sessions": State(a_pooler_is_in_transaction_mode, 200, "ready", "postgres", "ok"),
    "the encoding of the database is old": State(
        the_encoding_is_old, 200, "degraded", "postgres",
        "the database's encoding is LATIN1, and must be UTF8: create it with ENCODING 'UTF8'",
    ),
    "Postgres permits too little": State(
        postgres_grants_without("EXECUTE ON FUNCTION open_ledger_hour", "INSERT, DELETE ON outbox", ready=False),
        503, "unready", "postgres",
        "its role lacks INSERT ON outbox, DELETE ON outbox, EXECUTE ON open_ledger_hour(timestamptz): "
        "pipe `fourways grants postgres --role …` to psql, as the owner",
    ),
    "Postgres permits less than before": State(
        postgres_grants_without("ALL ON page_views, applied", "SELECT ON alembic_version", ready=True),
        200, "degraded", "postgres",
        "its role lacks SELECT ON alembic_version, SELECT ON applied, INSERT ON applied, SELECT ON page_views, "
        "INSERT ON page_views and 1 more: pipe `fourways grants postgres --role …` to psql, as the owner",
    ),
    "Postgres does not permit the schema": State(
        postgres_grants_without("USAGE ON SCHEMA public", ready=False), 503, "unready", "postgres",
        "its role lacks USAGE ON SCHEMA public: pipe `fourways grants postgres --role …` to psql, as the owner",
    ),
    "the role looks for its tables where nothing is": State(
        search_path_is("nowhere"), 503, "unready", "postgres",
        f"its search_path is nowhere, and the tables are in public: {SET_PATH}",
    ),
    "the role looks for its tables in another schema": State(
        search_path_is("other", "CREATE SCHEMA other"), 503, "unready", "postgres",
        f"its search_path is other, and the tables are in public: {SET_PATH}",
    ),
    "the role looks for its tables where nothing is, and there are none": State(
        search_path_is("nowhere", "DROP SCHEMA public CASCADE"), 503, "unready", "postgres",
        "its search_path is nowhere, and there is no schema that its role may use: "
        + SET_PATH.replace("Dpublic", "D…"),
    ),
    "Postgres does not permit the database": State(
        postgres_may_not_connect, 503, "unready", "postgres",
        "The database does not do it: permission denied for database: "
        "pipe `fourways grants postgres --role …` to psql, as the owner",
    ),
    "a migration is missing": State(
        says_schema("DELETE FROM alembic_version"), 503, "unready", "schema", Schema.OLDER
    ),
    "a later version has migrated": State(
        says_schema("UPDATE alembic_version SET version_num = '9999'"), 200, "degraded", "schema", Schema.NEWER
    ),
    "the relay is stuck": State(relay_is_stuck, 503, "unready", "relay", "stuck"),
    "the flusher fails": State(
        flusher_fails, 200, "degraded", "flusher", "fails again and again: Postgres says: Out of order"
    ),
    "a page is too slow": State(
        a_page_is_too_slow, 200, "degraded", "parking",
        "views of the page 'slow' wait for its row: Too slow",
    ),
}  # fmt: skip


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
async def test_readiness_says_what_is_wrong_and_whether_another_instance_could_do_better(
    stage: Stage, state: State, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither a problem nor the log contains secrets."""
    async with state.staged(stage) as client:
        expected = (state.code, state.status, state.says)
        heard: tuple[int, str, str] = (0, "", "")
        told: list[str] = []

        async def is_said() -> bool:
            nonlocal heard
            answer = await client.get("/health/ready")
            said = answer.json()
            heard = (answer.status_code, said["status"], said["parts"][state.part])
            told.append(answer.text)
            return heard == expected

        with suppress(AssertionError):
            await eventually(is_said)
        assert heard == expected
        answers = [
            await client.get("/users/424242"),
            await client.post("/inventory/CUP/adjustments", json={"delta": -1}),
            await client.post("/page-views/home"),
            await client.get("/page-views/home"),
            await client.get("/write-behind"),
        ]
        assert {answer.status_code for answer in answers} <= {200, 202, 404, 503}
        told += [answer.text for answer in answers]
    told += [record.getMessage() for record in caplog.records]
    assert not [text for text in told if SECRETS.search(text)]


async def test_a_service_whose_parts_all_work_is_ready(stage: Stage) -> None:
    async with stage.application(ready=True) as client:
        answer = await client.get("/health/ready")
    stores = ("redis", "postgres", "eviction", "persistence", "keys")
    tasks = ("relay", "flusher", "receipts", "parking")
    assert (answer.status_code, answer.json()) == (
        200,
        {
            "status": "ready",
            "parts": dict.fromkeys((*stores, *tasks, "breaker", "epoch"), "ok") | {"schema": Schema.CURRENT},
        },
    )
