"""What is answered directly, and what goes the whole way, is answered alike."""

from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Header, Query, Response
from fastapi.routing import APIRoute

from app.routers.direct_route import WAYS, direct

WHOLE = {"If-None-Match": '"0"'}
"""No version is 0, so this header only sends a read the whole way."""
PATHS = ["/users/{user}", "/products/SKU", "/inventory/SKU", "/page-views/docs/intro.html"]


@pytest.fixture
async def user(client: httpx.AsyncClient) -> str:
    """The path of a user; the same key everywhere else."""
    created = await client.post("/users", json={"name": "Ada", "email": "ada@example.com"})
    await client.post("/products", json={"sku": "SKU", "name": "Kettle", "price": "1"})
    await client.put("/inventory/SKU", json={"quantity": 7})
    await client.post("/page-views/docs/intro.html")
    return created.headers["location"].removeprefix("/users/")


def told(answer: httpx.Response) -> tuple[int, bytes, Mapping[str, str]]:
    """All of an answer but what depends on the moment."""
    headers = dict(answer.headers)
    headers["cache-status"] = headers.get("cache-status", "").partition("ttl=")[0]
    return answer.status_code, answer.content, headers


@pytest.mark.parametrize("path", PATHS)
async def test_a_hit_is_answered_alike_on_both_ways(client: httpx.AsyncClient, user: str, path: str) -> None:
    path = path.format(user=user)
    await client.get(path)
    direct, whole = await client.get(path), await client.get(path, headers=WHOLE)
    assert "; hit" in direct.headers["cache-status"]
    assert told(direct) == told(whole)


@pytest.mark.parametrize(
    "path",
    ["/users/0", "/users/one", "/users/007", "/users/9999", "/products/NONE", "/products/%00", "/inventory/NONE"],
)
async def test_what_is_no_hit_is_answered_alike_on_both_ways(client: httpx.AsyncClient, path: str) -> None:
    direct, whole = await client.get(path), await client.get(path, headers=WHOLE)
    assert direct.status_code in (404, 422)
    assert (direct.status_code, direct.json()) == (whole.status_code, whole.json())


@pytest.mark.parametrize(
    "query",
    [
        "sku=SKU",
        "sku=SKU&sku=NONE&sku=SKU",
        "sku=%53KU&sku=%C3%A9",
        "sku=",
        "sku=SKU&sku=%00",
        "sku=a;b&sku=c%26d",
        "sku=" + "&sku=".join(map(str, range(101))),
        "&sku=SKU&",
        "sku=SKU&limit=0",
        "sku=SKU&after=A&limit=1",
        "sku",
        "SKU=SKU",
        "",
    ],
)
async def test_a_list_is_answered_alike_on_both_ways(client: httpx.AsyncClient, user: str, query: str) -> None:
    await client.get("/products/SKU")
    path = f"/products?{query}"
    direct, whole = await client.get(path), await client.get(path, headers=WHOLE)
    assert direct.status_code in (200, 422)
    assert told(direct) == told(whole)


async def test_a_list_takes_the_direct_way_unless_the_query_says_more(
    client: httpx.AsyncClient, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = []
    handle = APIRoute.handle

    async def counted(self: APIRoute, *args: Any) -> None:
        whole.append(self.path)
        await handle(self, *args)

    monkeypatch.setattr(APIRoute, "handle", counted)
    await client.get("/products?sku=SKU&sku=NONE")
    assert whole == []
    await client.get("/products?sku=SKU&limit=1")
    assert whole == ["/products"]


async def test_a_precondition_is_heard(client: httpx.AsyncClient, user: str) -> None:
    for path in (each.format(user=user) for each in PATHS):
        etag = (await client.get(path)).headers["etag"]
        assert (await client.get(path, headers={"If-None-Match": etag})).status_code == 304


async def test_head_is_a_hit_without_a_body(client: httpx.AsyncClient, user: str) -> None:
    await client.get("/products/SKU")
    answer = await client.head("/products/SKU")
    assert (answer.status_code, "; hit" in answer.headers["cache-status"]) == (200, True)


async def test_a_view_with_a_count_or_a_key_is_counted_as_it_says(client: httpx.AsyncClient) -> None:
    assert (await client.post("/page-views/home")).json() == {"page": "home", "views": 1}
    assert (await client.post("/page-views/home", json={"count": 5})).json()["views"] == 6
    for _ in range(2):
        assert (await client.post("/page-views/home", headers={"Idempotency-Key": "once"})).json()["views"] == 7
    chunked = await client.post(
        "/page-views/home", content=_chunks(b'{"count": 3}'), headers={"Content-Type": "application/json"}
    )
    assert chunked.json()["views"] == 10
    assert (await client.post("/page-views/home", json={"count": 0})).status_code == 422
    assert (await client.post("/page-views/" + "x" * 2049)).status_code == 422


async def _chunks(body: bytes) -> AsyncIterator[bytes]:
    yield body


def test_an_endpoint_that_asks_for_more_is_refused() -> None:
    async def read(key: str, resource: object, limit: int) -> Response:
        raise AssertionError

    with pytest.raises(ValueError, match=r"^read asks for more than the direct way can tell: limit\.$"):
        direct(lambda resources: resources)(read)
    assert read not in WAYS


def test_an_endpoint_of_a_list_may_ask_the_query_and_nothing_else() -> None:
    async def read(
        resource: object,
        key: Annotated[list[str] | None, Query()] = None,
        limit: Annotated[int, Query()] = 50,
        agent: Annotated[str, Header()] = "",
    ) -> Response:
        raise AssertionError

    with pytest.raises(ValueError, match=r"^read asks for more than the direct way can tell: agent\.$"):
        direct(lambda resources: resources, in_query=True)(read)
    assert read not in WAYS
