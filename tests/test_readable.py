"""An unreadable row fails alone: all other rows of the same query, list and moment are answered."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from app.embedded import Endpoints
from app.schema import migrate
from tests.fresh_database import fresh_database
from tests.terminal import terminal

TIMES = ["10000-01-01 00:00:00+00", "infinity", "-infinity", "0044-03-15 12:00:00+00 BC", "294276-12-31 23:59:59+00"]
SAID = "{} cannot be read: its {} is no time of the years 1 to 9999."
COLUMNS = [
    ("users", "id", 7, "created_at"),
    ("users", "id", 7, "updated_at"),
    ("products", "sku", "BAD", "created_at"),
    ("products", "sku", "BAD", "updated_at"),
    ("stock", "sku", "BAD", "updated_at"),
]
WORDS = {"users": "User", "products": "Product", "stock": "The stock of"}
PATHS = {"users": "/users/7", "products": "/products/BAD", "stock": "/inventory/BAD"}


@pytest.fixture
async def sql(sql: asyncpg.Connection) -> AsyncIterator[asyncpg.Connection]:
    """A connection like psql's, and some rows. The session's role is reset at the end."""
    await sql.execute(
        "INSERT INTO users (id, name, email) SELECT n, 'U', n || '@example.com' FROM generate_series(1, 9) AS n;"
        "INSERT INTO products (sku, name, price) SELECT 'GOOD-' || n, 'P', '1' FROM generate_series(1, 150) AS n;"
        "INSERT INTO products (sku, name, price) VALUES ('BAD', 'P', '1');"
        "INSERT INTO stock (sku, quantity) VALUES ('BAD', 5), ('GOOD', 5)"
    )
    yield sql
    await sql.execute("SET session_replication_role = origin")


async def spoil(sql: asyncpg.Connection, table: str, column: str, time: str, where: str = "true") -> None:
    """Sets that time in the rows, as if they had it since before the table refused it."""
    rule = f"ck_{table}_{column}_range"
    async with sql.transaction():
        made: str = await sql.fetchval("SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = $1", rule)
        await sql.execute(f"ALTER TABLE {table} DROP CONSTRAINT {rule}")
        await sql.execute("SET LOCAL session_replication_role = replica")
        await sql.execute(f"UPDATE {table} SET {column} = '{time}' WHERE {where}")
        await sql.execute("SET LOCAL session_replication_role = origin")
        await sql.execute(f"ALTER TABLE {table} ADD CONSTRAINT {rule} {made.removesuffix(' NOT VALID')} NOT VALID")


async def problem(client: httpx.AsyncClient, path: str) -> Mapping[str, Any]:
    """Returns the problem that a path answers."""
    answer = await client.get(path)
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    found: Mapping[str, Any] = answer.json()
    assert (answer.status_code, found["type"]) == (500, "unreadable-row")
    return found


# Reads.


@pytest.mark.parametrize(
    ("table", "key", "value", "column", "time"),
    [*((*COLUMNS[0], time) for time in TIMES), *((*column, "infinity") for column in COLUMNS[1:])],
)
async def test_a_row_with_an_unreadable_time_is_a_problem_that_names_the_row(
    sql: asyncpg.Connection, client: httpx.AsyncClient, table: str, key: str, value: int | str, column: str, time: str
) -> None:
    await spoil(sql, table, column, time, f"{key} = '{value}'")
    for _ in range(2):
        found = await problem(client, PATHS[table])
        assert found["detail"] == SAID.format(f"{WORDS[table]} {value}", column)


async def test_only_the_read_of_the_unreadable_row_fails_among_reads_that_share_a_query(
    sql: asyncpg.Connection, client: httpx.AsyncClient
) -> None:
    await spoil(sql, "products", "created_at", "10000-01-01", "sku = 'BAD'")
    paths = [f"/products/GOOD-{place}" for place in range(1, 151)]
    answers = await asyncio.gather(*map(client.get, [*paths[:75], "/products/BAD", *paths[75:]]))
    assert [answer.status_code for answer in answers] == [200] * 75 + [500] + [200] * 75


@pytest.mark.parametrize("trusted", [True, False])
async def test_a_list_of_products_returns_the_readable_ones_and_names_the_others(
    sql: asyncpg.Connection, client: httpx.AsyncClient, app: Any, trusted: bool
) -> None:
    await spoil(sql, "products", "created_at", "infinity", "sku = 'BAD'")
    if not trusted:
        app.state.resources.cache.trust.lose("The test says so.")
    answer = await client.get("/products?sku=GOOD-1&sku=BAD&sku=NONE&sku=GOOD-2")
    found = answer.json()
    assert answer.status_code == 200, answer.text
    assert [item["sku"] for item in found["items"]] == ["GOOD-1", "GOOD-2"]
    assert (found["missing"], found["unreadable"]) == (["NONE"], ["BAD"])
    assert (await client.get("/products?sku=GOOD-1")).json().keys() == {"items", "missing"}


async def test_paging_continues_past_an_unreadable_row(sql: asyncpg.Connection, client: httpx.AsyncClient) -> None:
    for limit in (1, 2, 3, 50):
        assert await walk(client, "/users", "id", limit) == (list(range(1, 10)), [])
    await spoil(sql, "users", "created_at", "10000-01-01", "id IN (3, 4, 9)")
    await spoil(sql, "products", "created_at", "10000-01-01", "sku IN ('BAD', 'GOOD-99')")
    for limit in (1, 2, 3, 50):
        assert await walk(client, "/users", "id", limit) == ([1, 2, 5, 6, 7, 8], [3, 4, 9])
    skus, unreadable = await walk(client, "/products", "sku", 40)
    assert (len(skus), unreadable) == (149, ["BAD", "GOOD-99"])


async def walk(client: httpx.AsyncClient, path: str, key: str, limit: int) -> tuple[list[Any], list[Any]]:
    """Reads all pages, and returns the keys of the items and the unreadable ones."""
    keys, unreadable, after = [], [], ""
    while True:
        page = (await client.get(f"{path}?limit={limit}{after}")).json()
        keys += [item[key] for item in page["items"]]
        unreadable += page.get("unreadable", [])
        assert page.get("unreadable", [0])
        if page["next"] is None:
            return keys, unreadable
        after = f"&after={page['next']}"


async def test_an_unreadable_row_is_not_changed_and_can_be_removed(
    sql: asyncpg.Connection, client: httpx.AsyncClient
) -> None:
    await spoil(sql, "users", "created_at", "10000-01-01", "id = 7")
    await spoil(sql, "products", "created_at", "10000-01-01", "sku = 'BAD'")
    for path, says in (("/users/7", "User 7"), ("/products/BAD", "Product BAD")):
        answer = await client.patch(path, json={"name": "New"})
        assert (answer.status_code, answer.json()["detail"]) == (500, SAID.format(says, "created_at"))
        assert (await client.delete(path)).status_code == 204
        assert (await client.get(path)).status_code == 404


async def test_a_change_of_stock_repairs_its_time(sql: asyncpg.Connection, client: httpx.AsyncClient) -> None:
    await spoil(sql, "stock", "updated_at", "infinity", "sku = 'BAD'")
    assert (await client.post("/inventory/BAD/adjustments", json={"delta": 1})).status_code == 200
    assert (await client.get("/inventory/BAD")).json()["quantity"] == 6


async def test_a_repeated_adjustment_with_an_unreadable_time_is_a_problem_and_changes_nothing(
    sql: asyncpg.Connection, client: httpx.AsyncClient
) -> None:
    once = {"headers": {"Idempotency-Key": "once"}, "json": {"delta": 1}}
    assert (await client.post("/inventory/GOOD/adjustments", **once)).status_code == 200  # type: ignore[arg-type]
    await spoil(sql, "stock_adjustments", "updated_at", "infinity")
    answer = await client.post("/inventory/GOOD/adjustments", **once)  # type: ignore[arg-type]
    assert (answer.status_code, answer.json()["type"]) == (500, "unreadable-row")
    assert (await client.get("/inventory/GOOD")).json()["quantity"] == 6


async def test_a_dead_letter_is_listed_even_with_an_unreadable_time(
    sql: asyncpg.Connection, client: httpx.AsyncClient
) -> None:
    """An operator must be able to decide about it."""
    await sql.execute(
        "INSERT INTO dead_letters (page, delta, reason, deliveries) VALUES ('a', 1, 'R', 1), ('b', 1, 'R', 1)"
    )
    await spoil(sql, "dead_letters", "created_at", "infinity", "page = 'a'")
    letters = (await client.get("/write-behind/dead-letters")).json()["items"]
    assert [letter["page"] for letter in letters] == ["a", "b"]
    for letter in letters:
        assert (await client.post(f"/write-behind/dead-letters/{letter['id']}/replay")).status_code == 200


# Values that the tables refuse.

REFUSED = [
    *(f"UPDATE {table} SET {column} = '{time}'" for table, _, _, column in COLUMNS for time in TIMES[:2]),
    "INSERT INTO users (id, name, email) VALUES (0, 'U', 'u@example.com')",
    "INSERT INTO users (id, name, email) VALUES (-7, 'U', 'u@example.com')",
    *(
        f"INSERT INTO {table} VALUES (E'{sku}', {more})"
        for table, more in (("products (sku, name, price)", "'P', '1'"), ("stock (sku, quantity)", "1"))
        for sku in (".", "..", " A", "A ", r"A\tB", r"\nA", r"A\x7f")
    ),
    "INSERT INTO page_views VALUES ('home', 9007199254740992)",
]


@pytest.mark.parametrize("statement", REFUSED)
async def test_the_tables_refuse_values_that_the_application_could_not_read(
    sql: asyncpg.Connection, statement: str
) -> None:
    if "updated_at" in statement:  # Otherwise a trigger would set it.
        await sql.execute("SET session_replication_role = replica")
    with pytest.raises(asyncpg.CheckViolationError):
        await sql.execute(statement)


async def test_existing_rows_that_violate_a_constraint_do_not_block_the_upgrade(
    endpoints: Endpoints, tmp_path: Path
) -> None:
    """The rows stay as they are; the constraint holds for later writes."""
    async with fresh_database(endpoints.database_url) as url:
        async with terminal(tmp_path / "older", "alembic", "upgrade", "0005", DATABASE_URL=url) as alembic:
            assert await alembic.code() == 0, alembic.screen
        sql = await asyncpg.connect(url)
        await sql.execute(
            "INSERT INTO users (id, name, email, created_at) VALUES (0, 'U', 'a@example.com', 'infinity');"
            "INSERT INTO products (sku, name, price, created_at) VALUES (' A', 'P', '1', '10000-01-01');"
            "INSERT INTO stock (sku, quantity) VALUES ('.', 1); INSERT INTO page_views VALUES ('home', 2::bigint ^ 60)"
        )
        await asyncio.to_thread(migrate, url)
        assert await sql.fetchval("SELECT count(*) FROM pg_constraint WHERE NOT convalidated") == 9
        assert await sql.fetchval("SELECT created_at = 'infinity' FROM users") is True
        with pytest.raises(asyncpg.CheckViolationError):
            await sql.execute("UPDATE users SET name = 'V'")
        await sql.close()
