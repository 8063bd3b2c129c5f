"""Products over HTTP."""

import httpx
import pytest
from fastapi import FastAPI

from tests.service import Service

KETTLE = {"sku": "KETTLE-1", "name": "Kettle", "description": "Red.", "price": "19.90"}

SKUS = [
    "A",
    "CUP-1/SAUCER",
    "/",
    "//a//",
    "a/../b",
    "...",
    "100%",
    "%41",
    "%2F",
    "what?now=1&then",
    "a#b",
    "a b",
    "a+b",
    "grün",
    "茶-\N{TEACUP WITHOUT HANDLE}",
    "e\N{COMBINING ACUTE ACCENT}",
    "\\",
    '"quoted"',
    "{braces}",
    "a;b,c:d@e",
    "~-._",
    "😀" * 64,
]


async def create(client: httpx.AsyncClient, sku: str, **fields: object) -> httpx.Response:
    """Adds a product."""
    answer = await client.post("/products", json={"sku": sku, "name": "Name", "price": "1", **fields})
    assert answer.status_code == 201, answer.text
    return answer


def queries(app: FastAPI) -> float:
    """Returns how many statements were sent to Postgres for products."""
    counted: dict[str, float] = app.state.resources.metrics.totals("database_queries")
    return counted.get("products", 0.0)


async def test_a_product_is_created_read_changed_and_removed(client: httpx.AsyncClient) -> None:
    created = await client.post("/products", json=KETTLE)
    assert (created.status_code, created.headers["location"]) == (201, "/products/KETTLE-1")
    product = created.json()

    first, second = await client.get("/products/KETTLE-1"), await client.get("/products/KETTLE-1")
    assert (first.json(), second.json()) == (product, product)
    assert first.headers["cache-status"] == "read-through; fwd=miss; stored"
    assert second.headers["cache-status"].startswith("read-through; hit; ttl=")

    changed = await client.patch("/products/KETTLE-1", json={"price": "17.00"})
    assert (changed.status_code, changed.json()["price"]) == (200, "17.00")
    assert (await client.get("/products/KETTLE-1")).json() == changed.json()

    assert (await client.delete("/products/KETTLE-1")).status_code == 204
    assert (await client.get("/products/KETTLE-1")).status_code == 404


async def test_a_product_has_exactly_these_fields(client: httpx.AsyncClient) -> None:
    product = (await client.post("/products", json=KETTLE)).json()
    assert list(product) == ["sku", "name", "description", "price", "version", "created_at", "updated_at"]
    assert {field: product[field] for field in KETTLE} == KETTLE


@pytest.mark.parametrize("sku", SKUS)
async def test_the_location_of_any_sku_leads_to_the_product(client: httpx.AsyncClient, sku: str) -> None:
    location = (await create(client, sku)).headers["location"]
    assert location.isascii()
    assert "/" not in location.removeprefix("/products/")
    for _ in range(2):  # From the database, and then from the cache.
        assert (await client.get(location)).json()["sku"] == sku
    assert (await client.get("/products", params={"sku": sku})).json()["items"][0]["sku"] == sku
    assert (await client.patch(location, json={"name": "New"})).json()["sku"] == sku
    assert (await client.delete(location)).status_code == 204
    assert (await client.get(location)).status_code == 404


async def test_the_location_of_any_sku_leads_to_the_product_over_real_uvicorn(service: Service) -> None:
    async with service.client() as client:
        for sku in SKUS:
            location = (await create(client, sku)).headers["location"]
            assert (await client.get(location)).json()["sku"] == sku


async def test_a_slash_in_a_sku_need_not_be_encoded(client: httpx.AsyncClient) -> None:
    await create(client, "CUP-1/SAUCER")
    assert (await client.get("/products/CUP-1/SAUCER")).json()["sku"] == "CUP-1/SAUCER"


async def test_skus_that_differ_in_case_or_in_their_end_are_two_products(client: httpx.AsyncClient) -> None:
    skus = ["cup", "CUP", "Cup", "CUP/", "CUP//", "é", "e\N{COMBINING ACUTE ACCENT}"]
    for number, sku in enumerate(skus):
        await create(client, sku, price=str(number))
    found = (await client.get("/products", params={"sku": skus})).json()
    assert [(product["sku"], product["price"]) for product in found["items"]] == [
        (sku, str(number)) for number, sku in enumerate(skus)
    ]


async def test_a_line_break_after_a_sku_is_refused(client: httpx.AsyncClient) -> None:
    await create(client, "CUP")
    for path in ("/products/CUP%0A", "/products/CUP%0A%0A", "/products/CU%0AP"):
        answer = await client.get(path)
        assert (answer.status_code, answer.json()["errors"][0]["where"]) == (422, "path.sku")


async def test_two_products_cannot_have_one_sku(client: httpx.AsyncClient) -> None:
    await create(client, "CUP")
    again = await client.post("/products", json={"sku": "CUP", "name": "Other", "price": "2"})
    assert (again.status_code, again.json()["type"], again.json()["detail"]) == (
        409,
        "conflict",
        "The sku CUP is taken.",
    )
    assert (await client.get("/products/CUP")).json()["name"] == "Name"


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
async def test_a_product_that_does_not_exist_is_named(client: httpx.AsyncClient, method: str) -> None:
    body = {"name": "Nothing"} if method == "PATCH" else None
    answer = await client.request(method, "/products/CUP%2FSAUCER", json=body)
    assert (answer.status_code, answer.json()["detail"]) == (404, "There is no product CUP/SAUCER.")


@pytest.mark.parametrize(
    "price", ["0", "0.0", "2.50", "12.5", "007", "0000000000.0000", "9999999999.9999", "1.0000", "10"]
)
async def test_a_price_is_returned_as_it_was_sent(client: httpx.AsyncClient, price: str) -> None:
    location = (await create(client, "CUP", price=price)).headers["location"]
    assert [(await client.get(location)).json()["price"] for _ in range(2)] == [price, price]
    assert (await client.patch(location, json={"price": price})).json()["price"] == price


async def test_a_description_may_be_left_out_null_or_removed(client: httpx.AsyncClient) -> None:
    assert (await create(client, "A")).json()["description"] is None
    assert (await create(client, "B", description=None)).json()["description"] is None
    assert (await create(client, "C", description="")).json()["description"] == ""
    assert (await create(client, "D", description="x" * 4000)).json()["description"] == "x" * 4000
    removed = await client.patch("/products/D", json={"description": None})
    assert (removed.status_code, removed.json()["description"]) == (200, None)
    assert (await client.get("/products/D")).json()["description"] is None


async def test_a_change_leaves_the_other_fields_alone(client: httpx.AsyncClient) -> None:
    await client.post("/products", json=KETTLE)
    changed = (await client.patch("/products/KETTLE-1", json={"name": "Big kettle"})).json()
    assert {field: changed[field] for field in KETTLE} == KETTLE | {"name": "Big kettle"}


async def test_many_products_come_in_the_requested_order_and_missing_ones_are_named(client: httpx.AsyncClient) -> None:
    for sku in ("A", "B", "C"):
        await create(client, sku)
    asked = ["C", "NONE", "A", "C", "B", "NO/NE", "NONE", "A"]
    answer = (await client.get("/products", params={"sku": asked})).json()
    assert [product["sku"] for product in answer["items"]] == ["C", "A", "B"]
    assert answer["missing"] == ["NONE", "NO/NE"]
    assert list(answer) == ["items", "missing"]


async def test_a_product_in_a_list_looks_exactly_like_a_single_one(client: httpx.AsyncClient) -> None:
    await create(client, "A", description='"quoted", \N{GRINNING FACE}')
    many = [(await client.get("/products?sku=A")).json()["items"] for _ in range(2)]
    assert many == [[(await client.get("/products/A")).json()]] * 2


async def test_products_that_do_not_exist_are_all_missing(client: httpx.AsyncClient) -> None:
    assert (await client.get("/products?sku=A&sku=B")).json() == {"items": [], "missing": ["A", "B"]}


async def test_all_misses_cost_one_query_and_a_second_call_costs_none(app: FastAPI, client: httpx.AsyncClient) -> None:
    skus = [f"SKU-{number}" for number in range(100)]
    for sku in skus[:60]:
        await create(client, sku)
    before = queries(app)
    first = await client.get("/products", params={"sku": skus})
    assert queries(app) - before == 1
    second = await client.get("/products", params={"sku": skus})
    assert queries(app) - before == 1
    assert first.content == second.content
    assert (len(first.json()["items"]), len(first.json()["missing"])) == (60, 40)


async def test_only_the_misses_are_loaded_from_the_database(app: FastAPI, client: httpx.AsyncClient) -> None:
    for sku in ("A", "B"):
        await create(client, sku)
    await client.get("/products/A")
    before = queries(app)
    assert len((await client.get("/products?sku=A&sku=B")).json()["items"]) == 2
    assert queries(app) - before == 1
    assert (await client.get("/products/B")).headers["cache-status"].startswith("read-through; hit")


async def test_a_changed_product_is_reloaded_among_many(client: httpx.AsyncClient) -> None:
    for sku in ("A", "B"):
        await create(client, sku)
    await client.get("/products?sku=A&sku=B&sku=C")
    await client.patch("/products/A", json={"price": "2"})
    await client.delete("/products/B")
    await create(client, "C")
    answer = (await client.get("/products?sku=A&sku=B&sku=C")).json()
    assert [(product["sku"], product["price"]) for product in answer["items"]] == [("A", "2"), ("C", "1")]
    assert answer["missing"] == ["B"]


async def test_at_most_a_hundred_skus_are_accepted(client: httpx.AsyncClient) -> None:
    assert (await client.get("/products", params={"sku": ["A"] * 100})).json() == {"items": [], "missing": ["A"]}
    answer = await client.get("/products", params={"sku": ["A"] * 101})
    assert (answer.status_code, answer.json()["detail"]) == (422, "query.sku may be given at most 100 times.")


async def test_pages_follow_each_other_by_next_and_the_last_has_none(client: httpx.AsyncClient) -> None:
    for sku in ("b", "B", "a/1", "ä", "Z 9", "😀"):
        await create(client, sku)
    pages, after = [], ""
    while after is not None:
        page = (await client.get("/products", params={"limit": 2, "after": after})).json()
        assert list(page) == ["items", "next"]
        pages.append([product["sku"] for product in page["items"]])
        after = page["next"]
    assert pages == [["B", "Z 9"], ["a/1", "b"], ["ä", "😀"]]  # By their bytes, whatever the database's collation.


async def test_a_page_that_is_exactly_full_has_no_next(client: httpx.AsyncClient) -> None:
    for sku in ("A", "B"):
        await create(client, sku)
    page = (await client.get("/products?limit=2")).json()
    assert (len(page["items"]), page["next"]) == (2, None)


async def test_a_page_of_an_empty_table_is_empty(client: httpx.AsyncClient) -> None:
    assert (await client.get("/products")).json() == {"items": [], "next": None}
