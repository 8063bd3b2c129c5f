"""The demo data: there after the first time, and unchanged by the second."""

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


async def test_adding_it_again_changes_nothing(endpoints: Endpoints, sql: asyncpg.Connection) -> None:
    await add_demo_data(endpoints.database_url)
    rows, changes = await sql.fetch(ROWS), await sql.fetchval("SELECT count(*) FROM outbox")
    assert await add_demo_data(endpoints.database_url) == ALL
    assert await sql.fetch(ROWS) == rows
    assert await sql.fetchval("SELECT count(*) FROM outbox") == changes


async def test_it_keeps_away_from_what_is_there(endpoints: Endpoints, sql: asyncpg.Connection) -> None:
    await sql.execute("INSERT INTO users (name, email) VALUES ('Somebody else', 'ada@example.com')")
    await sql.execute("INSERT INTO products (sku, name, price) VALUES ('KETTLE-1', 'Mine', '1')")
    await sql.execute("INSERT INTO stock (sku, quantity) VALUES ('KETTLE-1', 7)")
    await sql.execute("INSERT INTO page_views (page, views) VALUES ('home', 7)")
    assert await add_demo_data(endpoints.database_url) == ALL
    assert await sql.fetchval("SELECT name FROM users WHERE email = 'ada@example.com'") == "Somebody else"
    assert await sql.fetchval("SELECT name FROM products WHERE sku = 'KETTLE-1'") == "Mine"
    assert await sql.fetchval("SELECT quantity FROM stock WHERE sku = 'KETTLE-1'") == 7
    assert await sql.fetchval("SELECT views FROM page_views WHERE page = 'home'") == 7


async def test_users_made_later_get_ids_of_their_own(endpoints: Endpoints, client: httpx.AsyncClient) -> None:
    await add_demo_data(endpoints.database_url)
    created = await client.post("/users", json={"name": "Grace Hopper", "email": "grace@example.com"})
    assert created.status_code == 201
    assert created.json()["id"] > 1000
