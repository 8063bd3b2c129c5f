"""Tags that outlive their epoch match nothing any more."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from urllib.parse import urlsplit

import asyncpg
import httpx
import pytest

from app.embedded import Endpoints
from app.settings import Settings
from tests.eventually import eventually
from tests.faults.another_redis import another_redis
from tests.faults.dump import dumped, recreated, restored_into, restored_over
from tests.faults.postgres_wire import PostgresWire
from tests.in_process import application
from tests.migrated_database import migrated_database
from tests.routers.conftest import Contents, contents

PATHS = ("/users/1001", "/products/CUP", "/inventory/CUP")
TABLES = ("users", "products", "stock")
CHANGES = (
    ("PATCH", "/users/1001", {"name": "Bo"}, "UPDATE users"),
    ("DELETE", "/users/1001", None, "DELETE FROM users"),
    ("PATCH", "/products/CUP", {"name": "Mug"}, "UPDATE products"),
    ("DELETE", "/products/CUP", None, "DELETE FROM products"),
    ("PUT", "/inventory/CUP", {"quantity": 1}, "UPDATE stock"),
    ("POST", "/inventory/CUP/adjustments", {"delta": -1}, "UPDATE stock"),
    ("DELETE", "/inventory/CUP", None, "DELETE FROM stock"),
)
NEXT_EPOCH = """
INSERT INTO epochs (n, token, run, history)
SELECT n + 1, 'ffffffffffffffff', run, history FROM epochs ORDER BY n DESC LIMIT 1
"""


@asynccontextmanager
async def application_on(redis_url: str, database_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """Yields a client of an application with these stores."""
    settings = Settings(
        _env_file=None, redis_url=redis_url, database_url=database_url, database_timeout=timedelta(seconds=20)
    )
    async with application(settings) as client:
        yield client


@pytest.fixture
async def own(endpoints: Endpoints) -> AsyncIterator[Endpoints]:
    """The test's own Redis, and its own migrated database."""
    async with another_redis() as redis_url, migrated_database(endpoints.database_url) as database_url:
        yield Endpoints(redis_url, database_url)


async def filled(client: httpx.AsyncClient) -> None:
    """Creates the rows of PATHS."""
    await client.post("/users", json={"name": "Ada", "email": "ada@example.com"})
    await client.post("/products", json={"sku": "CUP", "name": "Cup", "price": "6.20"})
    await client.put("/inventory/CUP", json={"quantity": 30})


async def tags(client: httpx.AsyncClient) -> dict[str, str]:
    """Waits until each row has a tag, and returns the tags by path."""
    found: dict[str, str] = {}

    async def all_have() -> bool:
        answers = {path: await client.get(path) for path in PATHS}
        found.update({path: answer.headers.get("etag", "") for path, answer in answers.items()})
        return all(found.values())

    await eventually(all_have)
    return found


def row(path: str) -> str:
    """Returns the path of the row that a change concerns."""
    return path.removesuffix("/adjustments")


def version(tag: str) -> int:
    """Returns the version in a tag."""
    return int(tag.strip('"').partition("-")[0])


@pytest.mark.parametrize("way", ["drop and create", "clean"])
async def test_a_tag_from_before_a_restore_matches_nothing_after_it(
    way: str, own: Endpoints, endpoints: Endpoints
) -> None:
    """pg_dump · each row is changed, and a client reads it: version 5
    pg_restore, and each row is changed in SQL: it is version 5 again, with other content
    the client has version 5: it would get a 304, and would overwrite a change that it has not seen
    """
    async with application_on(own.redis_url, own.database_url) as client:
        await filled(client)
        dump = await dumped(own.database_url)
        await client.patch("/users/1001", json={"name": "Bo"})
        await client.patch("/products/CUP", json={"name": "Mug"})
        await client.post("/inventory/CUP/adjustments", json={"delta": -1})
        lost = await tags(client)
        if way == "clean":
            await restored_over(own.database_url, dump)
        else:
            await recreated(endpoints.database_url, urlsplit(own.database_url).path[1:])
            await restored_into(own.database_url, dump)
        sql = await asyncpg.connect(own.database_url)
        try:
            for table in TABLES:
                await sql.execute(f"UPDATE {table} SET updated_at = now()")
            before = await contents(sql)
            again = [await sql.fetchval(f"SELECT version FROM {table}") for table in TABLES]
            assert again == [version(lost[path]) for path in PATHS], "The versions are given out again."

            async def all_are_refused() -> bool:
                answers = [
                    await client.request(method, path, json=body, headers={"If-Match": lost[row(path)]})
                    for method, path, body, _statement in CHANGES
                ]
                told = [(answer.status_code, "a version of another epoch" in answer.text) for answer in answers]
                # None of them is made, not even before the next epoch has begun.
                assert set(told) <= {(412, True), (503, False)}
                return set(told) == {(412, True)}

            await eventually(all_are_refused)

            async def is_new() -> bool:
                return not set((await tags(client)).values()) & set(lost.values())

            await eventually(is_new)
            for path, tag in lost.items():
                answer = await client.get(path, headers={"If-None-Match": tag})
                assert (answer.status_code, answer.json()["version"]) == (200, version(tag))
            assert await contents(sql) == before
        finally:
            await sql.close()
        for path, tag in (await tags(client)).items():
            assert (await client.get(path, headers={"If-None-Match": tag})).status_code == 304
            assert (await client.delete(path, headers={"If-Match": tag})).status_code == 204


@pytest.mark.parametrize(("method", "path", "body", "statement"), CHANGES)
async def test_a_change_compares_the_epoch_in_its_own_statement(
    own: Endpoints, method: str, path: str, body: object, statement: str
) -> None:
    """A reads a row, and changes it with If-Match · A's statement is held on its way
    the next epoch begins: in the database that the statement reaches, this version may be another content
    """
    async with AsyncExitStack() as stack:
        wire = await stack.enter_async_context(PostgresWire(own.database_url))
        client = await stack.enter_async_context(application_on(own.redis_url, wire.url))
        await filled(client)
        tag = (await tags(client))[row(path)]
        sql = await asyncpg.connect(own.database_url)
        stack.push_async_callback(sql.close)
        before: Contents = await contents(sql)
        async with wire.holding(f"^{statement}") as held:
            change = asyncio.create_task(client.request(method, path, json=body, headers={"If-Match": tag}))
            await held.arrived.wait()
            await sql.execute(NEXT_EPOCH)
            held.release()
            answer = await change
        assert (answer.status_code, answer.json()["type"]) == (412, "precondition-failed")
        assert answer.json()["detail"].endswith(
            f"is in version {version(tag)}, and If-Match names a version of another epoch: a store was restored or "
            "replaced since."
        )
        assert await contents(sql) == before
