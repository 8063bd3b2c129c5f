"""The service works with what `fourways grants` lists, and each part of that is needed."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import partial

import asyncpg
import httpx
import pytest

from app.caching import made_at
from app.caching.write_behind.batch_id import ulid
from app.coherence.epochs import Epoch, Epochs
from app.coherence.outbox import Outbox
from app.database import Database, open_database
from app.embedded import Endpoints
from app.errors import DatabaseUnavailable
from app.grants import FUNCTIONS, SEQUENCES, TABLES
from app.inventory.models import Adjustment, Removal, Setting
from app.inventory.store import StockStore
from app.page_views.ledger import AGE, KEPT
from app.page_views.models import Counted
from app.page_views.parking import Parking
from app.page_views.store import PageViewStore
from app.products.models import NewProduct
from app.products.store import ProductStore
from app.schema import Schema, schema, server
from app.users.models import NewUser
from app.users.store import UserStore
from tests.caching.write_behind.views import new_ledger
from tests.eventually import eventually
from tests.faults.another_redis import another_redis
from tests.least_privilege import Role, granted_role, quoted
from tests.service import FOURWAYS, serving

HOUR = timedelta(hours=1)
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


async def test_the_service_needs_no_more_than_the_grants(role: Role, owner: asyncpg.Connection) -> None:
    """The main path, a restart, and another Redis, whose epoch is the next."""
    past = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - 100 * HOUR
    for place in range(KEPT + 1):
        await owner.execute("SELECT open_ledger_hour($1)", past + place * HOUR)
    await owner.execute("UPDATE ledger_hours SET created_at = now() - $1::interval", 2 * AGE)
    async with another_redis() as redis, another_redis() as other_redis:
        async with serving(redis, role.url, command=FOURWAYS) as service, service.client() as client:
            await rows_are_read_and_written(client, owner)
            await views_are_counted(client, owner)
            hours = [row["hour"] for row in await owner.fetch("SELECT hour FROM ledger_hours ORDER BY hour")]
            assert past not in hours, "The first flush has dropped the oldest."
            assert hours[-1] > past + KEPT * HOUR, "It has opened its own."
        for url, epochs, views in ((redis, 1, 6), (other_redis, 2, 7)):
            async with serving(url, role.url, command=FOURWAYS) as service, service.client() as client:
                assert (await client.post("/page-views/home")).json()["views"] == views
                assert (await client.get("/page-views/home")).json()["views"] == views
                assert await owner.fetchval("SELECT count(*) FROM epochs") == epochs


async def everything(database: Database, owner: asyncpg.Connection) -> None:
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
    await Parking(database, lambda dead: None).settle()
    await owner.execute(f"DROP TABLE applied_{first.hour:%Y%m%d%H}")
    await views.apply([batch({"home": 1})])
    await views._ledger._drop(first.hour)
    outbox, epochs = Outbox(database), Epochs(database)
    await epochs.first("first", "run", "history")
    for claim, end in (("refuted", epochs.refute), ("begun", begun)):
        epoch = (await epochs.look()).epoch
        assert epoch is not None
        assert await epochs.claim(epoch, claim, "run")
        epoch = (await epochs.look()).epoch
        assert epoch is not None
        assert await end(epoch)
    async with outbox.taken("begun"):
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
    async with open_database(
        role.url, connections=4, timeout=timedelta(seconds=20), counted=lambda resource: None
    ) as database:
        await everything(database, owner)
        for some, thing in grants:
            await empty(owner)
            await owner.execute(f"REVOKE {some} ON {thing} FROM {quoted(role.name)}")
            try:
                await everything(database, owner)
                needless.append(f"{some} ON {thing}")
            except DatabaseUnavailable as error:
                denied = f"permission denied for {thing.lower().partition('(')[0]}."
                if str(error) != f"The database does not do it: {denied}":
                    raise
            await owner.execute(f"GRANT {some} ON {thing} TO {quoted(role.name)}")
    assert needless == []
