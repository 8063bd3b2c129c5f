"""The service works with what `fourways grants` lists, and each part of that is needed."""

import asyncio
import itertools
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, nullcontext, suppress
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

import asyncpg
import httpx
import pytest
from pydantic import BaseModel
from redis.asyncio import Redis
from redis.commands.core import AsyncScript
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError, NoScriptError
from sqlalchemy import text

from app.caching import (
    Breaker,
    Cache,
    CacheUnavailable,
    Identity,
    Pending,
    RedisClock,
    Region,
    Trust,
    fitness,
    made_at,
    open_redis,
    trial,
)
from app.caching.moment import NEVER
from app.caching.record import Owner, Record
from app.caching.write_behind.batch_id import ulid
from app.cli import NONE
from app.coherence.epochs import Epoch, Epochs
from app.coherence.outbox import Outbox
from app.database import Database, open_database
from app.embedded import Endpoints
from app.embedded.binaries import postgres_install, redis_program
from app.errors import DatabaseUnavailable
from app.grants import COMMANDS, FUNCTIONS, KEYS, SEQUENCES, TABLES, postgres_grants, redis_grants
from app.inventory.models import Adjustment, Removal, Setting
from app.inventory.store import StockStore
from app.page_views.ledger import AGE, KEPT
from app.page_views.models import Counted
from app.page_views.parking import Parking
from app.page_views.store import PageViewStore
from app.poller import Poller, open_poller
from app.privileges import Privileges
from app.products.models import NewProduct
from app.products.store import ProductStore
from app.schema import Schema, migrate, schema, server
from app.settings import Settings
from app.users.models import NewUser
from app.users.store import UserStore
from tests.caching.write_behind.views import HOME, Views, new_ledger
from tests.command_line import says
from tests.eventually import eventually
from tests.faults.another_redis import another_redis
from tests.fresh_database import fresh_database
from tests.in_process import application
from tests.least_privilege import Role, a_role, as_role, granted_role, granted_user, quoted
from tests.service import FOURWAYS, serving

HOUR = timedelta(hours=1)
PREFIX = "shop:"
LETTERS = "/write-behind/dead-letters"
REFUSED = "ALTER TABLE page_views ADD CONSTRAINT refused CHECK (page <> 'refused')"


@pytest.fixture
async def role(endpoints: Endpoints) -> AsyncIterator[Role]:
    """A role that has the grants, in a database of its own."""
    async with granted_role(endpoints.database_url) as role:
        yield role


@pytest.fixture
async def owner(role: Role) -> AsyncIterator[asyncpg.Connection]:
    """The owner of that database."""
    connection = await asyncpg.connect(role.owner_url)
    yield connection
    await connection.close()


async def rows_are_read_and_written(client: httpx.AsyncClient, owner: asyncpg.Connection) -> None:
    """Users, products and stock: a miss, a hit, a change, a change in SQL, and a removal of each."""
    bodies = {
        "/users": {"name": "Ada", "email": "ada@example.com"},
        "/products": {"sku": "A/1", "name": "Cup", "price": "1.50"},
    }
    paths = {made: (await client.post(made, json=body)).headers["location"] for made, body in bodies.items()}
    paths["/inventory"] = "/inventory/A/1"
    changes = {"/users": {"name": "Ada King"}, "/products": {"price": "2"}, "/inventory": {"quantity": 3}}
    for made, path in paths.items():
        write = client.put if made == "/inventory" else client.patch
        assert (await write(path, json=changes[made])).is_success, path
        assert "hit" not in (await client.get(path)).headers["cache-status"] or made == "/inventory"
        assert "; hit" in (await client.get(path)).headers["cache-status"], path
    for delta in ({"delta": -1}, {"delta": -1}):
        adjusted = await client.post("/inventory/A/1/adjustments", json=delta, headers={"Idempotency-Key": "once"})
        assert adjusted.json()["quantity"] == 2
    answers = [await client.get(path) for path in ("/users", "/products", "/products?sku=A/1&sku=B", "/users/2")]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 404]

    await owner.execute("UPDATE users SET name = 'Eve'; UPDATE products SET price = '9'; UPDATE stock SET quantity = 9")

    async def all_are_new() -> bool:
        found = [(await client.get(path)).json() for path in paths.values()]
        return (found[0]["name"], found[1]["price"], found[2]["quantity"]) == ("Eve", "9", 9)

    await eventually(all_are_new)
    for path in paths.values():
        assert (await client.delete(path)).status_code == 204
        assert (await client.get(path)).status_code == 404


async def views_are_counted(client: httpx.AsyncClient, owner: asyncpg.Connection) -> None:
    """Views with and without idempotency keys reach Postgres; some are refused and replayed, and some are parked."""
    await owner.execute(REFUSED)
    for _ in range(2):
        answer = await client.post("/page-views/home", json={"count": 3}, headers={"Idempotency-Key": "once"})
        assert answer.json() in ({"page": "home", "views": 3}, {"page": "home", "views": 4})
        views = {"views": [{"page": "home"}, {"page": "news"}, {"page": "refused", "count": 7}]}
        answer = await client.post("/page-views", json=views, headers={"Idempotency-Key": "call"})
        assert answer.json() == {"accepted": 9}

    async def stored(page: str) -> int | None:
        found: int | None = await owner.fetchval("SELECT views FROM page_views WHERE page = $1", page)
        return found

    async def all_are_flushed() -> bool:
        return (await stored("home"), await stored("news")) == (4, 1)

    async def is_dead() -> bool:
        return bool((await client.get(LETTERS)).json()["items"])

    await eventually(all_are_flushed)
    await eventually(is_dead)
    await owner.execute("ALTER TABLE page_views DROP CONSTRAINT refused")
    (letter,) = (await client.get(LETTERS)).json()["items"]
    assert (await client.post(f"{LETTERS}/{letter['id']}/replay")).is_success
    assert await stored("refused") == 7
    assert (await client.get("/page-views?top=1")).json()["items"] == [{"page": "refused", "views": 7}]
    assert (await client.get("/page-views/refused")).json()["views"] == 7

    async def parked(number: int) -> bool:
        return bool((await client.get("/write-behind")).json()["parked"] == number)

    async with owner.transaction():
        await owner.execute("SELECT FROM page_views WHERE page = 'home' FOR UPDATE")
        await client.post("/page-views/home")
        await eventually(lambda: parked(1))
    await eventually(lambda: parked(0))
    assert (await client.get("/page-views/home")).json()["views"] == await stored("home") == 5
    assert (await client.get("/write-behind")).json()["at_risk"]["fsync"] == "unknown", "CONFIG GET shows passwords."


async def test_the_service_needs_no_more_than_the_grants(role: Role, owner: asyncpg.Connection) -> None:
    """The main path, a restart, and another Redis, whose epoch is the next."""
    past = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - 100 * HOUR
    for place in range(KEPT + 1):
        await owner.execute("SELECT open_ledger_hour($1)", past + place * HOUR)
    await owner.execute("UPDATE ledger_hours SET created_at = now() - $1::interval", 2 * AGE)
    serve = partial(serving, command=FOURWAYS, FOURWAYS_PREFIX=PREFIX)
    async with a_user_of_its_own() as redis, a_user_of_its_own() as other_redis:
        async with serve(redis, role.url) as service, service.client() as client:
            await rows_are_read_and_written(client, owner)
            await views_are_counted(client, owner)
            hours = [row["hour"] for row in await owner.fetch("SELECT hour FROM ledger_hours ORDER BY hour")]
            assert past not in hours, "The first flush has dropped the oldest."
            assert hours[-1] > past + KEPT * HOUR, "It has opened its own."
        for url, epochs, views in ((redis, 1, 6), (other_redis, 2, 7)):
            async with serve(url, role.url) as service, service.client() as client:
                assert (await client.post("/page-views/home")).json()["views"] == views
                assert (await client.get("/page-views/home")).json()["views"] == views
                assert await owner.fetchval("SELECT count(*) FROM epochs") == epochs
        assert (await says("demo", DATABASE_URL=role.url, REDIS_URL=redis))[0] == 0
        assert await says("dead-letters", "list", DATABASE_URL=role.url, REDIS_URL=redis) == (0, f"{NONE}\n")


@asynccontextmanager
async def a_user_of_its_own() -> AsyncIterator[str]:
    """Yields the address of a user that has the grants, in a Redis of its own. Nothing else may be refused to it than
    what it does without."""
    async with another_redis() as url, granted_user(url, PREFIX) as user_url, Redis.from_url(url) as redis:
        yield user_url
        assert {refusal["object"] for refusal in await redis.acl_log()} <= {"config", "config|get"}


async def everything(database: Database, poller: Poller, owner: asyncpg.Connection) -> None:
    """Every statement of the service, on the way that it takes most often."""
    assert await schema(database) is Schema.CURRENT
    await server(database)
    users, products, stock, views = (
        UserStore(database),
        ProductStore(database),
        StockStore(database),
        PageViewStore(database),
    )
    user = await users.insert(NewUser(name="Ada", email="ada@example.com"))
    await users.get(user.id)
    await users.page(after=0, limit=1)
    await users.update(user.id, {"name": "Eve"}, None)
    await users.delete(user.id, None)
    await products.insert(NewProduct(sku="A", name="Cup", price="1"))
    await products.get_many(["A"])
    await products.page(after="", limit=1)
    await products.update("A", {"price": "2"}, None)
    await products.delete("A", None)
    for change in (Setting(5), Adjustment(-1, key="once"), Adjustment(-1, key="once")):
        await stock.save("A", change, partial(asyncio.sleep, 0))
    await stock.load("A")
    await stock.save("A", Removal(), partial(asyncio.sleep, 0))

    async def begun(epoch: Epoch) -> bool:
        return await epochs.begin(epoch, "begun", "next", "run", "history")

    def batch(deltas: dict[str, int]) -> Counted:
        return Counted(name := ulid(datetime.now(UTC).timestamp() * 1000), made_at(name), deltas)

    await views.apply([first := batch({"home": 1})])
    await views.salvage(batch({"home": 1, "a\0b": 2, "refused": 1}), 1)
    await views.keep_unreadable("views:{0} 1-0", b"{", "It is no batch.", 1)
    await views.standing(["home"], [(first.id, first.made_at)])
    await views.top(1)
    await views.count_parked()
    await views.count_dead_letters()
    await owner.execute(
        "INSERT INTO dead_letters (page, delta, reason, deliveries) VALUES ('home', 1, '', 1); "
        "INSERT INTO parked_views (page, delta, blocked, reason, tries) VALUES ('home', 1, true, '', 0)"
    )
    for letter in await views.dead_letters(9, 0):
        await (views.replay(letter.id) if letter.page == "home" else views.discard(letter.id))
    await Parking(database, poller, lambda dead: None).settle()
    await owner.execute(f"DROP TABLE applied_{first.hour:%Y%m%d%H}")
    await views.apply([batch({"home": 1})])
    async with database.writing("page_views") as connection:
        await connection.execute(text("SELECT drop_ledger_hour(:hour)"), {"hour": first.hour})
    outbox, epochs = Outbox(database), Epochs(database, poller)
    await epochs.first("first", "run", "history")
    for claim, end in (("refuted", epochs.refute), ("begun", begun)):
        epoch = (await epochs.look()).epoch
        assert epoch is not None
        assert await epochs.claim(epoch, claim, "run")
        epoch = (await epochs.look()).epoch
        assert epoch is not None
        assert await end(epoch)
    epoch = (await epochs.look()).epoch
    assert epoch is not None
    async with outbox.taken(epoch):
        pass
    await outbox.undone(1)
    await outbox.waits("users", "1")
    assert [change async for changes in outbox.kept() for change in changes]
    await outbox.sweep()


async def empty(owner: asyncpg.Connection) -> None:
    """Removes everything that `everything` leaves."""
    await owner.execute(
        "SET session_replication_role = replica; "
        "TRUNCATE users, products, stock, stock_adjustments, page_views, parked_views, dead_letters, outbox, epochs"
    )
    await new_ledger(owner)


async def test_each_grant_in_postgres_is_needed(role: Role, owner: asyncpg.Connection) -> None:
    """Without any one of them, something is refused."""
    grants = [(some, f"TABLE {table}") for table, each in TABLES.items() for some in each.split(", ")]
    grants += [(some, f"SEQUENCE {sequence}") for sequence, some in SEQUENCES.items()]
    grants += [("EXECUTE", f"FUNCTION {function}") for function in FUNCTIONS]
    needless = []
    await owner.execute(REFUSED)
    patience = timedelta(seconds=20)
    async with (
        open_database(role.url, connections=4, timeout=patience, counted=lambda resource: None) as database,
        open_poller(role.url, resources=1, timeout=patience, counted=lambda resource: None) as poller,
    ):
        await everything(database, poller, owner)
        for some, thing in grants:
            await empty(owner)
            await owner.execute(f"REVOKE {some} ON {thing} FROM {quoted(role.name)}")
            try:
                await everything(database, poller, owner)
                needless.append(f"{some} ON {thing}")
            except DatabaseUnavailable as error:
                denied = f"permission denied for {thing.lower().partition('(')[0]}."
                if str(error) != f"The database does not do it: {denied}":
                    raise
            await owner.execute(f"GRANT {some} ON {thing} TO {quoted(role.name)}")
    assert needless == []


Call = Callable[[], Awaitable[object]]


class Thing(BaseModel, frozen=True):
    """A value to cache."""

    version: int = 1


@asynccontextmanager
async def believed(url: str) -> AsyncIterator[Cache]:
    """Yields a cache at this address that believes its Redis."""
    trust = Trust()
    trust.grant(trust.losses, NEVER)
    breaker, identity, clock = Breaker(trust), Identity(trust), RedisClock()
    breaker.reachable = True
    ten = timedelta(seconds=10)
    async with open_redis(
        url, timeout=ten, connections=4, clock=clock, identity=identity, marker=f"{PREFIX}run"
    ) as redis:
        yield Cache(redis, clock, trust, breaker, identity, PREFIX)


async def each_command(url: str, admin: Redis, database: Database) -> AsyncGenerator[Call, None]:
    """Yields calls that send each command of the service at least once, by a user at this address. A call may need the
    ones before it."""
    await admin.flushdb()
    await admin.script_flush()
    async with believed(url) as cache, believed(url) as waiting, believed(f"{url[:-1]}1&client_name=shop") as elsewhere:

        async def settled(key: int) -> None:
            pass

        yield lambda: fitness(cache.redis)
        yield lambda: trial(cache.redis, f"{PREFIX}views:trial")
        yield lambda: elsewhere.redis.get(f"{PREFIX}epoch")
        for name in ("users", "products", "stock"):
            region: Region[int, Thing] = Region(cache, name, Thing, settled=settled)
            await admin.set(f"{PREFIX}{name}:{{2}}:lease", "for ever")
            async with region:
                yield partial(region.find, 1)
                yield partial(region.lookup, 2)
                yield partial(region.revoke, 1, "writer")
                yield partial(region.fill, 1, "writer", Thing())
                yield partial(region.try_invalidate, 1, 2)
                yield partial(region.claim, 1)
                yield partial(region.release, 1, "reader")
        record = Record(cache.redis, f"{PREFIX}epoch", cache.clock)
        owner = Owner("deployment", "1/1/1/1", 1)
        yield lambda: record.beat(None, 1)
        yield lambda: record.claim("claim", owner, None)
        yield lambda: record.tell("epoch", owner, "claim")
        yield lambda: record.beat("epoch", 1)
        yield lambda: record.claim("claim", owner, None)
        yield lambda: record.refute("epoch", "claim")
        views = Views(cache, waiting.redis, database)
        gathering, flusher = views.flusher._gathering, views.flusher
        async with views.counters:
            yield gathering.create_groups
            for key in ("once", "once", "again"):
                yield partial(views.counters.add, "home", 1, key)
                yield partial(views.counters.add_many, {"home": 1, "a": 1}, key)
            yield partial(views.counters.get, "home")
            held: list[Pending] = []
            yield partial(gathering.gather, held)
            for one in held:
                yield partial(gathering.deliveries, one)
                yield partial(gathering._keep, [one])
                yield partial(flusher._forgetting.forget, [one])
            yield gathering._streams.look
            yield views.counters.backlog
            yield partial(views.counters.forget, "home")
            yield partial(gathering.retire, own=True)
            with patch.object(AsyncScript, "__call__", side_effect=NoScriptError):
                yield gathering.create_groups  # Somebody removes each script as soon as it is loaded.


async def test_each_command_and_key_in_redis_is_needed(endpoints: Endpoints, database: Database) -> None:
    """Without any one of them, something is refused."""
    async with granted_user(endpoints.redis_url, PREFIX) as url, Redis.from_url(endpoints.redis_url) as admin:
        name = urlsplit(url).username or ""
        grants = redis_grants(name, PREFIX).split()

        async def refused(*without: str) -> list[str]:
            await admin.execute_command(*(word for word in grants if word not in without))  # type: ignore[no-untyped-call]
            await admin.acl_log_reset()
            async with aclosing(each_command(url, admin, database)) as calls:
                async for call in calls:
                    with nullcontext() if not without else suppress(Exception):
                        await call()
            return [str(refusal["object"]) for refusal in await admin.acl_log()]

        assert await refused() == []
        for command in COMMANDS:
            assert command.partition("|")[0] in {each.partition("|")[0] for each in await refused(f"+{command}")}
        for key in KEYS:
            # Without INFO, this is how the service tells one Redis from another.
            also = ["+info"] if key == "run" else []
            found = await refused(f"~{PREFIX}{key}", *also)
            assert any(fnmatchcase(each, f"{PREFIX}{key}") for each in found), (key, found)


@pytest.mark.parametrize("command", sorted(COMMANDS))
async def test_no_view_that_is_answered_as_refused_is_accepted_whatever_command_is_missing(
    endpoints: Endpoints, database: Database, command: str
) -> None:
    """The script that accepts may run XADD, and not a command that comes after it: the view would count, and its client
    be told that it does not."""
    async with granted_user(endpoints.redis_url, PREFIX) as url, Redis.from_url(endpoints.redis_url) as admin:
        await admin.flushdb()
        async with believed(url) as cache:
            views = Views(cache, cache.redis, database)
            words = redis_grants(urlsplit(url).username or "", PREFIX).split()
            async with views.counters:
                for _ in range(2):
                    await views.counters.add("home", 1, "before")
                await admin.set(f"{PREFIX}{HOME.backlog}", "overwritten")
                await admin.execute_command(*(word for word in words if word != f"+{command}"))  # type: ignore[no-untyped-call]
                for page, key in itertools.product(("home", "news", "a", "b"), (None, "before", "again")):
                    for accept in (views.counters.add(page, 1, key), views.counters.add_many({page: 1}, key)):
                        before = await entered(admin)
                        try:
                            await accept
                        except CacheUnavailable:
                            assert await entered(admin) == before, (page, key)


async def entered(admin: Redis) -> int:
    """Returns how many views the streams have."""
    entries: list[Any] = [await admin.xrange(f"{PREFIX}views:{{{shard}}}") for shard in range(4)]
    return sum(int(fields[b"views"]) for each in entries for _, fields in each)


async def piped(printed: str, program: Path, *arguments: str) -> str:
    """Returns what a program says to these lines."""
    process = await asyncio.create_subprocess_exec(program, *arguments, stdin=PIPE, stdout=PIPE, stderr=STDOUT)
    said, _ = await process.communicate(printed.encode())
    assert process.returncode == 0, said
    return said.decode()


@pytest.mark.parametrize("name", ["app", 'Shop\'s "app" $grants$ \\ é', "user"])
async def test_the_printed_grants_are_piped_to_psql(endpoints: Endpoints, name: str) -> None:
    """It does no harm to do it again, or for the owner, who may do all of that and more."""
    psql = postgres_install() / "bin" / "psql"
    async with a_role(endpoints.database_url, name) as role, fresh_database(endpoints.database_url) as url:
        await asyncio.to_thread(migrate, url)
        for each in (role, role, "fourways"):
            code, printed = await says("grants", "postgres", "--role", each)
            assert code == 0
            said = await piped(printed, psql, "--quiet", "--no-psqlrc", "--set=ON_ERROR_STOP=1", url)
            assert said == ""
        for user in (role, "fourways"):
            sql = await asyncpg.connect(as_role(url, user))
            await sql.execute("INSERT INTO users (name, email) VALUES ('Ada', $1)", f"{user[:4]}@example.com")
            await sql.execute("DELETE FROM users")
            await sql.close()


async def test_the_printed_acl_is_piped_to_redis_cli_and_lets_nobody_in_without_a_password() -> None:
    async with another_redis() as url, Redis.from_url(url) as admin:
        cli = (redis_program("cli"), "-s", urlsplit(url).path)
        code, printed = await says("grants", "redis", "--user", "app", FOURWAYS_PREFIX="shop:")
        assert code == 0
        assert await piped(printed, *cli) == "OK\n"
        user_url = url.replace("unix://", "unix://app:secret@")
        async with Redis.from_url(user_url) as app:
            with pytest.raises(RedisConnectionError, match="invalid username-password pair"):
                await app.get("shop:epoch")
            assert await piped("ACL SETUSER app >secret", *cli) == "OK\n"
            assert await piped(printed, *cli) == "OK\n"
            assert await app.get("shop:epoch") is None
            for forbidden in (app.get("epoch"), app.keys("*"), app.flushall(), app.config_get("*")):
                with pytest.raises(NoPermissionError):
                    await forbidden
        assert len(await admin.acl_users()) == 2


@pytest.mark.parametrize("name", ["", "two words", "a\nFLUSHALL", "it's"])
async def test_a_name_that_redis_cli_would_split_is_refused(name: str) -> None:
    code, said = await says("grants", "redis", "--user", name)
    assert code == 2
    assert "has no blank and no quotation mark in its name" in " ".join(said.replace("│", " ").split())


async def test_readiness_names_each_missing_command_and_key(database: Database) -> None:
    """Except for those of a new connection, and those without which nothing works, which are named by their own
    failure, and for EVAL, which is needed only while somebody removes the scripts again and again. To ask changes
    nothing: this Redis is empty, as the expiry of a key would count as a change."""
    named_anyway = {"client|setname", "eval", "evalsha", "info", "script|load", "select"}
    grants = {f"+{command}": command.upper().replace("|", " ") for command in COMMANDS if command not in named_anyway}
    grants |= {f"~{PREFIX}{key}": f"~{PREFIX}{key}" for key in KEYS}
    async with (
        another_redis() as empty,
        granted_user(empty, PREFIX) as url,
        Redis.from_url(empty) as admin,
    ):
        words = redis_grants(urlsplit(url).username or "", PREFIX).split()
        async with Redis.from_url(url, protocol=2) as redis:
            privileges = Privileges(database, PREFIX)
            assert await privileges.missing_in_redis(redis) is None
            changes = (await admin.info("persistence"))["rdb_changes_since_last_save"]
            for grant, named in grants.items():
                await admin.execute_command(*(word for word in words if word != grant))  # type: ignore[no-untyped-call]
                assert (
                    await privileges.missing_in_redis(redis)
                    == f"its user lacks {named}: pipe `fourways grants redis --user …` to redis-cli"
                )
            assert (await admin.info("persistence"))["rdb_changes_since_last_save"] == changes


SEQUENCE, TABLE = "permission denied for sequence row_version", "permission denied for table stock"


async def test_a_missing_privilege_is_a_503_with_the_words_of_the_store(
    role: Role, owner: asyncpg.Connection, endpoints: Endpoints
) -> None:
    """And what is refused changes nothing."""
    async with granted_user(endpoints.redis_url, "") as redis_url, Redis.from_url(endpoints.redis_url) as admin:
        settings = Settings(_env_file=None, redis_url=redis_url, database_url=role.url)
        async with application(settings) as client:
            await ready(client)
            user = (await client.post("/users", json={"name": "Ada", "email": "ada@example.com"})).headers["location"]
            for grant, says, call in (
                ("SELECT ON row_version", SEQUENCE, partial(client.delete, user)),
                ("UPDATE ON stock", TABLE, partial(client.put, "/inventory/A", json={"quantity": 1})),
            ):
                await owner.execute(f"REVOKE {grant} FROM {quoted(role.name)}")
                answer = await call()
                assert (answer.status_code, answer.json()["type"]) == (503, "database-unavailable")
                assert answer.json()["detail"] == f"The database does not do it: {says}."
                await owner.execute(postgres_grants(role.name))
            assert (await client.get(user)).status_code == 200
            assert (await client.get("/inventory/A")).status_code == 404
            words = redis_grants(urlsplit(redis_url).username or "", "").split()
            await admin.execute_command(*(word for word in words if word != "+xadd"))  # type: ignore[no-untyped-call]
            answer = await client.post("/page-views/home")
            assert (answer.status_code, answer.json()["type"]) == (503, "cache-unavailable")
            assert "NOPERM The user executing the script can't run this command" in answer.json()["detail"]
            await admin.execute_command(*words)  # type: ignore[no-untyped-call]
            assert (await client.post("/page-views/home")).json() == {"page": "home", "views": 1}
            await ready(client)


async def ready(client: httpx.AsyncClient) -> None:
    """Returns when the application is ready."""

    async def is_ready() -> bool:
        return bool((await client.get("/health/ready")).json()["status"] == "ready")

    await eventually(is_ready)
