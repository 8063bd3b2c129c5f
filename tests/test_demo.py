"""The demo data: the first call adds it, and a second call changes nothing."""

import asyncpg
import httpx

from app.demo import PAGE_VIEWS, PRODUCTS, STOCK, USERS, Rows, add_demo_data
from app.embedded import Endpoints

ALL = Rows(users=len(USERS), products=len(PRODUCTS), stock=len(STOCK), page_views=len(PAGE_VIEWS))
ROWS = (
    " UNION ALL ".join(
        f"SELECT to_jsonb({table}) FROM {table}" for table in ("users", "products", "stock", "page_views")
    )
    + " ORDER BY 1"
)


async def test_the_demo_data_can_be_read_over_http(endpoints: Endpoints, client: httpx.AsyncClient) -> None:
    assert await add_demo_data(endpoints.database_url) == ALL
    for number, name, email in USERS:
        user = (await client.get(f"/users/{number}")).json()
        assert (user["id"], user["name"], user["email"]) == (number, name, email)
    for sku, name, description, price in PRODUCTS:
        product = (await client.get(f"/products/{sku}")).json()
        assert (product["sku"], product["name"]) == (sku, name)
        assert (product["description"], product["price"]) == (description, price)
    for sku, quantity in STOCK:
        assert (await client.get(f"/inventory/{sku}")).json()["quantity"] == quantity
    for page, views in PAGE_VIEWS:
        assert (await client.get(f"/page-views/{page}")).json() == {"page": page, "views": views}
    top = (await client.get("/page-views?top=20")).json()["items"]
    assert [(item["page"], item["views"]) for item in top] == sorted(PAGE_VIEWS, key=lambda row: -row[1])


def test_every_product_has_stock() -> None:
    assert [sku for sku, _quantity in STOCK] == [product[0] for product in PRODUCTS]


async def test_adding_the_demo_data_again_changes_nothing(endpoints: Endpoints, sql: asyncpg.Connection) -> None:
    await add_demo_data(endpoints.database_url)
    rows, changes = await sql.fetch(ROWS), await sql.fetchval("SELECT count(*) FROM outbox")
    assert await add_demo_data(endpoints.database_url) == ALL
    assert await sql.fetch(ROWS) == rows
    assert await sql.fetchval("SELECT count(*) FROM outbox") == changes


async def test_the_demo_leaves_tables_alone_that_are_not_empty(endpoints: Endpoints, sql: asyncpg.Connection) -> None:
    """A row that somebody removed does not come back with the next start."""
    await add_demo_data(endpoints.database_url)
    await sql.execute("DELETE FROM users WHERE id = 10")
    await sql.execute("UPDATE products SET name = 'Mine' WHERE sku = 'KETTLE-1'")
    rows = await sql.fetch(ROWS)
    await add_demo_data(endpoints.database_url)
    assert await sql.fetch(ROWS) == rows


async def test_users_created_later_get_new_ids(endpoints: Endpoints, client: httpx.AsyncClient) -> None:
    await add_demo_data(endpoints.database_url)
    created = await client.post("/users", json={"name": "Grace Hopper", "email": "grace@example.com"})
    assert created.status_code == 201
    assert created.json()["id"] > 1000
