"""Every answer says who may store it, whichever code path it takes."""

import asyncio

import httpx
import pytest
from fastapi import FastAPI

from app.caching import Overloaded
from tests.routers.conftest import Contents

ROW, PERSONAL, UNKEPT = "no-cache", "private, no-cache", "no-store"
WHOLE = {"If-None-Match": '"0"'}
"""No row has this tag, so this header only makes a read take the whole way."""

READS = {
    "/users/1": PERSONAL,
    "/users": PERSONAL,
    "/products/KETTLE-1": ROW,
    "/products": ROW,
    "/products?sku=KETTLE-1&sku=NONE": ROW,
    "/inventory/KETTLE-1": ROW,
    "/page-views/home": ROW,
    "/page-views": ROW,
    "/": UNKEPT,
    "/docs": ROW,
    "/openapi.json": ROW,
    "/docs/assets/swagger-ui.css": ROW,
    "/strategies": UNKEPT,
    "/metrics": UNKEPT,
    "/health/live": UNKEPT,
    "/health/ready": UNKEPT,
    "/write-behind": UNKEPT,
    "/write-behind/dead-letters": UNKEPT,
    "/users/2": UNKEPT,
    "/users/x": UNKEPT,
    "/products/NONE": UNKEPT,
    "/inventory/NONE": UNKEPT,
    "/nowhere": UNKEPT,
    "/docs/assets/none.css": UNKEPT,
    "/users/%FF": UNKEPT,
}


@pytest.mark.parametrize("headers", [{}, WHOLE], ids=["directly", "the whole way"])
async def test_every_read_has_its_cache_control_with_and_without_a_body(
    client: httpx.AsyncClient, rows: Contents, headers: dict[str, str]
) -> None:
    for path, kept in READS.items():
        for method in ("GET", "HEAD", "GET"):  # A miss, and hits.
            answer = await client.request(method, path, headers=headers)
            assert answer.headers.get_list("cache-control") == [kept], (method, path)


async def test_a_304_has_the_same_cache_control_as_the_full_answer(client: httpx.AsyncClient, rows: Contents) -> None:
    for path, kept in READS.items():
        answer = await client.get(path, headers={"If-None-Match": "*"})
        if answer.status_code != 304:
            # There is no such row, or it is an asset, which knows no preconditions.
            assert kept == UNKEPT or path.startswith("/docs/assets"), path
        assert answer.headers.get_list("cache-control") == [kept], path


async def test_every_change_has_its_cache_control(client: httpx.AsyncClient, rows: Contents) -> None:
    for method, path, body, kept in (
        ("POST", "/users", {"name": "Grace", "email": "grace@example.com"}, PERSONAL),
        ("PATCH", "/users/1", {"name": "New"}, PERSONAL),
        ("DELETE", "/users/1", None, PERSONAL),
        ("POST", "/products", {"sku": "CUP-1", "name": "Cup", "price": "6.20"}, ROW),
        ("PATCH", "/products/KETTLE-1", {"name": "New"}, ROW),
        ("DELETE", "/products/KETTLE-1", None, ROW),
        ("PUT", "/inventory/CUP-1", {"quantity": 7}, ROW),
        ("PUT", "/inventory/KETTLE-1", {"quantity": 7}, ROW),
        ("POST", "/inventory/KETTLE-1/adjustments", {"delta": 1}, ROW),
        ("DELETE", "/inventory/KETTLE-1", None, ROW),
        ("POST", "/page-views/home", None, ROW),
        ("POST", "/page-views/home", {"count": 2}, ROW),
        ("POST", "/page-views", {"views": [{"page": "home"}]}, ROW),
    ):
        answer = await client.request(method, path, json=body)
        assert (answer.is_success, answer.headers.get_list("cache-control")) == (True, [kept]), (method, path)


async def test_no_problem_may_be_stored(
    app: FastAPI, client: httpx.AsyncClient, rows: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(key: str) -> None:
        raise errors.pop()

    errors = [Overloaded("Busy."), RuntimeError("Nobody expected it.")] * 2
    monkeypatch.setattr(app.state.resources.products, "get", fail)
    too_large = {"Content-Length": str(2**27)}
    answers = await asyncio.gather(
        client.get("/products/KETTLE-1"),
        client.get("/products/KETTLE-1"),
        client.get("/products/KETTLE-1", headers=WHOLE),
        client.get("/products/KETTLE-1", headers=WHOLE),
        client.put("/users/1", json={}),
        client.patch("/users/1", json={}),
        client.patch("/users/1", content=b"{", headers={"Content-Type": "application/json"}),
        client.patch("/users/1", content=b"x"),
        client.patch("/users/1", json={"name": "New"}, headers={"If-Match": '"0"'}),
        client.post("/users", json={"name": "Ada", "email": "ada@example.com"}),
        client.delete("/users/1", headers=too_large),
        client.delete("/write-behind/dead-letters/1"),
        client.post("/write-behind/dead-letters/1/replay"),
    )
    assert [answer.status_code for answer in answers] == [
        500, 503, 500, 503, 405, 422, 400, 415, 412, 409, 413, 404, 404,
    ]  # fmt: skip
    assert {tuple(answer.headers.get_list("cache-control")) for answer in answers} == {(UNKEPT,)}
