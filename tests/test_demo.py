"""The demo data: there after the first time, and unchanged by the second."""

import asyncpg
import httpx

from app.demo import PRODUCTS, USERS, add_demo_data
from app.embedded import Endpoints

ROWS = "SELECT to_jsonb(users) FROM users UNION ALL SELECT to_jsonb(products) FROM products ORDER BY 1"


async def test_the_demo_data_can_be_read_over_http(endpoints: Endpoints, client: httpx.AsyncClient) -> None:
    assert await add_demo_data(endpoints.database_url) == (len(USERS), len(PRODUCTS))
    for number, name, email in USERS:
        user = (await client.get(f"/users/{number}")).json()
        assert (user["id"], user["name"], user["email"]) == (number, name, email)
    for sku, name, description, price in PRODUCTS:
        product = (await client.get(f"/products/{sku}")).json()
        assert (product["sku"], product["name"]) == (sku, name)
        assert (product["description"], product["price"]) == (description, price)


async def test_adding_it_again_changes_nothing(endpoints: Endpoints, sql: asyncpg.Connection) -> None:
    await add_demo_data(endpoints.database_url)
    rows, changes = await sql.fetch(ROWS), await sql.fetchval("SELECT count(*) FROM outbox")
    assert await add_demo_data(endpoints.database_url) == (len(USERS), len(PRODUCTS))
    assert await sql.fetch(ROWS) == rows
    assert await sql.fetchval("SELECT count(*) FROM outbox") == changes


async def test_it_keeps_away_from_what_is_there(endpoints: Endpoints, sql: asyncpg.Connection) -> None:
    await sql.execute("INSERT INTO users (name, email) VALUES ('Somebody else', 'ada@example.com')")
    await sql.execute("INSERT INTO products (sku, name, price) VALUES ('KETTLE-1', 'Mine', '1')")
    assert await add_demo_data(endpoints.database_url) == (len(USERS), len(PRODUCTS))
    assert await sql.fetchval("SELECT name FROM users WHERE email = 'ada@example.com'") == "Somebody else"
    assert await sql.fetchval("SELECT name FROM products WHERE sku = 'KETTLE-1'") == "Mine"


async def test_users_made_later_get_ids_of_their_own(endpoints: Endpoints, client: httpx.AsyncClient) -> None:
    await add_demo_data(endpoints.database_url)
    created = await client.post("/users", json={"name": "Grace Hopper", "email": "grace@example.com"})
    assert created.status_code == 201
    assert created.json()["id"] > 1000
