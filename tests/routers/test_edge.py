"""Everything that is decided before a request is routed."""

from collections.abc import MutableMapping
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from fastapi import FastAPI

from tests.routers.conftest import Contents
from tests.routers.wire import exchange, request
from tests.service import Service

LARGEST = 65_536
"""The default of the setting."""
READS = [
    "/",
    "/users",
    "/users/1",
    "/users/2",
    "/users/x",
    "/products",
    "/products/KETTLE-1",
    "/products?sku=KETTLE-1&sku=NONE",
    "/strategies",
    "/health/live",
    "/health/ready",
    "/docs",
    "/docs/assets/swagger-ui.css",
    "/openapi.json",
    "/nowhere",
]
# These change with time: the date, and the remaining seconds of an entry.
MOVING = ("date", "cache-status")


def still(headers: httpx.Headers) -> list[tuple[str, str]]:
    """Returns the headers that do not change with time."""
    return sorted((name, value) for name, value in headers.items() if name not in MOVING)


@pytest.mark.parametrize("path", READS)
async def test_head_answers_the_headers_of_get_and_no_body(
    client: httpx.AsyncClient, rows: Contents, path: str
) -> None:
    await client.get(path)  # The next reads come from the cache.
    get, head = await client.get(path), await client.head(path)
    assert (head.status_code, head.content) == (get.status_code, b"")
    assert still(head.headers) == still(get.headers)
    assert head.headers["content-length"] == str(len(get.content))


@pytest.mark.parametrize("path", READS)
async def test_head_answers_the_headers_of_get_and_no_body_over_real_uvicorn(
    service: Service, rows: Contents, path: str
) -> None:
    async with service.client() as client:
        await client.get(path)
        get = await client.get(path)
    # Read from a socket, where an illegal body would be seen.
    head = await exchange(service, request("HEAD", path.encode(), [(b"Accept-Encoding", b"gzip")]))
    assert (head.status, head.body) == (get.status_code, b"")
    del head.headers["connection"]
    assert still(head.headers) == still(get.headers)


async def test_head_of_metrics_has_no_body(client: httpx.AsyncClient) -> None:
    answer = await client.head("/metrics")
    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["content-length"]) > 0


async def test_head_fills_the_cache_and_revalidates(client: httpx.AsyncClient, rows: Contents) -> None:
    assert (await client.head("/users/1")).headers["cache-status"] == "cache-aside; fwd=miss; stored"
    known = await client.get("/users/1")
    assert known.headers["cache-status"].startswith("cache-aside; hit")
    assert (await client.head("/users/1", headers={"If-None-Match": known.headers["etag"]})).status_code == 304


@pytest.mark.parametrize("url", ["/users/%FF", "/products/%C3", "/products?sku=%FF", "/users?after=%ED%A0%80", "/%FF"])
async def test_a_url_that_is_not_utf8_is_refused(client: httpx.AsyncClient, service: Service, url: str) -> None:
    answers = [await client.get(url), await client.head(url)]
    async with service.client() as over_uvicorn:
        answers.append(await over_uvicorn.get(url))
    for answer in answers:
        assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")
    assert answers[0].json()["detail"] == answers[2].json()["detail"] == "The URL is not UTF-8."


async def test_unencoded_bytes_in_a_url_must_be_utf8_too(app: FastAPI) -> None:
    sent: list[dict[str, object]] = []

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: object) -> None:
        assert isinstance(message, dict)
        sent.append(message)

    scope = {
        "type": "http", "method": "GET", "path": "/products", "raw_path": b"/products", "query_string": b"sku=\xff",
        "headers": [], "http_version": "1.1", "scheme": "http", "server": ("fourways", 80), "root_path": "",
    }  # fmt: skip
    await app(scope, receive, send)
    assert sent[0]["status"] == 400


async def test_a_url_in_utf8_is_read_unchanged(client: httpx.AsyncClient, service: Service) -> None:
    sku = "茶 😀 \N{REPLACEMENT CHARACTER}"
    async with service.client() as over_uvicorn:
        for caller in (client, over_uvicorn):
            answer = await caller.get(f"/products/{quote(sku)}")
            assert answer.json()["detail"] == f"There is no product {sku}."


async def test_a_declared_length_is_refused_before_the_body_arrives(service: Service, rows: Contents) -> None:
    for method, path in (("POST", b"/users"), ("DELETE", b"/users/1"), ("GET", b"/users/1"), ("POST", b"/nowhere")):
        head = request(method, path, [(b"Content-Length", b"%d" % (LARGEST + 1))])
        answer = await exchange(service, head)
        assert (answer.status, answer.headers["content-type"]) == (413, "application/problem+json")
    async with service.client() as client:
        assert (await client.get("/users/1")).status_code == 200


async def test_a_connection_survives_a_body_that_was_too_large(service: Service, rows: Contents) -> None:
    async with service.client(connections=1) as client:
        for _ in range(3):
            refused = await client.post(
                "/users", content=b" " * (LARGEST + 1), headers={"Content-Type": "application/json"}
            )
            assert (refused.status_code, refused.headers["content-type"]) == (413, "application/problem+json")
            assert (await client.get("/users/1")).status_code == 200


@pytest.mark.parametrize(
    ("version", "headers"),
    [("1.1", [(b"transfer-encoding", b"chunked")]), ("1.1", [(b"content-length", b"7")]), ("2", [])],
)
async def test_the_size_of_a_body_is_checked_however_it_is_declared(
    app: FastAPI, version: str, headers: list[tuple[bytes, bytes]]
) -> None:
    """A request of HTTP/2 need not declare its body, and this test's server does not check a body against its
    declaration."""
    statuses: list[int] = []

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b" " * (LARGEST + 1), "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope = {
        "type": "http", "method": "POST", "path": "/users", "raw_path": b"/users", "query_string": b"",
        "headers": [(b"host", b"fourways"), *headers], "http_version": version, "scheme": "http",
        "server": ("fourways", 80), "root_path": "",
    }  # fmt: skip
    await app(scope, receive, send)
    assert statuses == [413]
