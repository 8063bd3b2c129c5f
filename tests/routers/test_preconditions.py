"""Preconditions, call by call. `test_answers.py` tests how lists of tags are parsed."""

import asyncio
from collections.abc import Mapping

import asyncpg
import httpx
import pytest

from app.embedded import Endpoints
from app.settings import Settings
from tests.faults.postgres_wire import PostgresWire
from tests.in_process import application
from tests.routers.conftest import Contents, contents

ROWS = ["/users/1", "/products/KETTLE-1", "/inventory/KETTLE-1"]
CHANGES: list[tuple[str, str, object]] = [
    ("PATCH", "/users/1", {"name": "New"}),
    ("DELETE", "/users/1", None),
    ("PATCH", "/products/KETTLE-1", {"name": "New"}),
    ("DELETE", "/products/KETTLE-1", None),
    ("PUT", "/inventory/KETTLE-1", {"quantity": 7}),
    ("POST", "/inventory/KETTLE-1/adjustments", {"delta": -2}),
    ("DELETE", "/inventory/KETTLE-1", None),
]
MISSING: list[tuple[str, str, object]] = [
    ("GET", "/users/2", None),
    ("PATCH", "/users/2", {"name": "New"}),
    ("DELETE", "/users/2", None),
    ("PATCH", "/products/NONE", {"name": "New"}),
    ("DELETE", "/products/NONE", None),
    ("POST", "/inventory/NONE/adjustments", {"delta": -2}),
    ("DELETE", "/inventory/NONE", None),
]
DATES = {
    "If-Modified-Since": "Fri, 01 Jan 2100 00:00:00 GMT",
    "If-Unmodified-Since": "Thu, 01 Jan 1970 00:00:00 GMT",
    "Range": "bytes=0-1",
    "If-Range": '"0"',
}


async def tag_of(client: httpx.AsyncClient, path: str) -> str:
    """Returns the tag of the row that a call concerns."""
    return str((await client.get(path.removesuffix("/adjustments"))).headers["etag"])


async def asked(
    client: httpx.AsyncClient, change: tuple[str, str, object], headers: Mapping[str, str]
) -> httpx.Response:
    method, path, body = change
    return await client.request(method, path, json=body, headers=headers)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: f"{change[0]} {change[1]}")
async def test_a_change_honours_both_preconditions(
    client: httpx.AsyncClient, sql: asyncpg.Connection, rows: Contents, change: tuple[str, str, object]
) -> None:
    tag = await tag_of(client, change[1])
    for headers, says in (
        ({"If-Match": '"99999"'}, "which If-Match does not name"),
        ({"If-Match": f"W/{tag}"}, "with a weak tag"),
        ({"If-None-Match": tag}, "which If-None-Match names"),
        ({"If-None-Match": f'"x", W/{tag}'}, "which If-None-Match names"),
        ({"If-None-Match": "*"}, ""),
        ({"If-Match": tag, "If-None-Match": tag}, ""),
        ({"If-Match": '"x"', "If-None-Match": '"x"'}, "which If-Match does not name"),
        ({"If-Match": "*", "If-None-Match": "*"}, ""),
    ):
        answer = await asked(client, change, headers)
        assert (answer.status_code, answer.json()["type"]) == (412, "precondition-failed"), headers
        assert says in answer.json()["detail"]
    assert await contents(sql) == rows
    answer = await asked(client, change, {"If-Match": tag, "If-None-Match": '"x", W/"y"'} | DATES)
    assert answer.is_success


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: f"{change[0]} {change[1]}")
async def test_if_match_star_allows_a_change_of_any_version(
    client: httpx.AsyncClient, rows: Contents, change: tuple[str, str, object]
) -> None:
    assert (await asked(client, change, {"If-Match": "*"})).is_success


async def test_a_missing_row_is_404_whatever_the_precondition(client: httpx.AsyncClient, rows: Contents) -> None:
    for change in MISSING:
        for headers in ({"If-Match": '"1"'}, {"If-Match": "*"}, {"If-None-Match": "*"}, {"If-None-Match": '"1"'}):
            assert (await asked(client, change, headers)).status_code == 404, (change, headers)


@pytest.mark.parametrize("path", [*ROWS, "/page-views/home", "/docs", "/openapi.json"])
async def test_a_read_honours_both_preconditions_and_checks_if_match_first(
    client: httpx.AsyncClient, rows: Contents, path: str
) -> None:
    tag = await tag_of(client, path)
    for headers, status in (
        ({"If-Match": tag}, 200),
        ({"If-Match": "*"}, 200),
        ({"If-Match": '"99999"'}, 412),
        ({"If-Match": f"W/{tag}"}, 412),
        ({"If-Match": '"99999"', "If-None-Match": tag}, 412),
        ({"If-Match": tag, "If-None-Match": tag}, 304),
        ({"If-None-Match": f"W/{tag}"}, 304),
        ({"If-None-Match": "*"}, 304),
        ({"If-Match": tag, "If-None-Match": '"x"'}, 200),
        (DATES, 200),
        (DATES | {"If-None-Match": tag}, 304),
    ):
        for method in ("GET", "HEAD"):
            assert (await client.request(method, path, headers=headers)).status_code == status, (method, headers)


async def test_if_none_match_prevents_setting_stock_in_a_named_version(
    client: httpx.AsyncClient, sql: asyncpg.Connection
) -> None:
    async def put(quantity: int, tags: str) -> int:
        answer = await client.put("/inventory/A", json={"quantity": quantity}, headers={"If-None-Match": tags})
        return answer.status_code

    assert await put(1, '"x"') == 201
    tag = await tag_of(client, "/inventory/A")
    assert [await put(2, tag), await put(2, f"W/{tag}"), await put(3, '"x"')] == [412, 412, 200]
    assert [await put(4, tag), await sql.fetchval("SELECT quantity FROM stock")] == [200, 4]


async def test_a_precondition_is_checked_before_the_quantity(client: httpx.AsyncClient, rows: Contents) -> None:
    answer = await client.post("/inventory/KETTLE-1/adjustments", json={"delta": -31}, headers={"If-Match": '"99999"'})
    assert answer.status_code == 412
    answer = await client.post("/inventory/KETTLE-1/adjustments", json={"delta": -31}, headers={"If-Match": "*"})
    assert answer.status_code == 409


async def test_a_repeated_adjustment_is_answered_although_its_first_call_changed_the_version(
    client: httpx.AsyncClient, sql: asyncpg.Connection, rows: Contents
) -> None:
    headers = {"If-Match": await tag_of(client, "/inventory/KETTLE-1"), "Idempotency-Key": "once"}
    first, again = [
        await client.post("/inventory/KETTLE-1/adjustments", json={"delta": -2}, headers=headers) for _ in range(2)
    ]
    assert (first.status_code, first.json()) == (again.status_code, again.json()) == (200, first.json())
    assert await sql.fetchval("SELECT quantity FROM stock") == 28


async def test_only_one_of_many_adjustments_of_one_version_is_made(client: httpx.AsyncClient, rows: Contents) -> None:
    headers = {"If-Match": await tag_of(client, "/inventory/KETTLE-1")}
    answers = await asyncio.gather(
        *(client.post("/inventory/KETTLE-1/adjustments", json={"delta": -1}, headers=headers) for _ in range(8))
    )
    assert sorted(answer.status_code for answer in answers) == [200] + [412] * 7
    assert (await client.get("/inventory/KETTLE-1")).json()["quantity"] == 29


async def test_an_adjustment_compares_the_version_in_its_own_statement(
    endpoints: Endpoints, settings: Settings, sql: asyncpg.Connection, rows: Contents
) -> None:
    """A reads version 5, and adjusts the stock with If-Match · A's UPDATE is held on its way
    somebody writes in SQL, without the lock: version 6
    A's UPDATE arrives: it expects version 5, and must change nothing
    """
    async with (
        PostgresWire(endpoints.database_url) as wire,
        application(settings.model_copy(update={"database_url": wire.url})) as client,
    ):
        headers = {"If-Match": await tag_of(client, "/inventory/KETTLE-1")}
        async with wire.holding("^UPDATE stock") as held:
            adjusting = asyncio.create_task(
                client.post("/inventory/KETTLE-1/adjustments", json={"delta": -2}, headers=headers)
            )
            await held.arrived.wait()
            await sql.execute("UPDATE stock SET quantity = 5")
            held.release()
            answer = await adjusting
    assert (answer.status_code, answer.json()["type"]) == (412, "precondition-failed")
    assert await sql.fetchval("SELECT quantity FROM stock") == 5


NEW_USER = {"name": "Grace", "email": "grace@example.com"}


async def test_only_a_star_matches_a_resource_without_a_tag(
    client: httpx.AsyncClient, sql: asyncpg.Connection, rows: Contents
) -> None:
    for method, path, body, good in (
        ("GET", "/users", None, 200),
        ("GET", "/products", None, 200),
        ("GET", "/products?sku=KETTLE-1", None, 200),
        ("GET", "/page-views", None, 200),
        ("GET", "/health/live", None, 200),
        ("GET", "/write-behind", None, 200),
        ("GET", "/write-behind/dead-letters", None, 200),
        ("POST", "/users", NEW_USER, 201),
        ("POST", "/products", {"sku": "CUP-1", "name": "Cup", "price": "6.20"}, 201),
    ):
        for headers, status in (
            ({"If-Match": '"1"'}, 412),
            ({"If-None-Match": "*"}, 304 if method == "GET" else 412),
            ({"If-Match": "1"}, 400),
            ({"If-None-Match": "1"}, 400),
            ({"If-Match": "*", "If-None-Match": '"1"'}, good),
        ):
            if status == 201:
                assert await contents(sql) == rows
                rows = {}
            answer = await client.request(method, path, json=body, headers=headers)
            assert answer.status_code == status, (method, path, headers)
            assert answer.content or status == 304
        rows = await contents(sql)


async def test_a_view_with_a_precondition_is_refused(client: httpx.AsyncClient) -> None:
    for path, body in (("/page-views/home", None), ("/page-views", {"views": [{"page": "home"}]})):
        for name in ("If-Match", "If-None-Match"):
            for tags in ("*", '"0"', "0"):
                answer = await client.post(path, json=body, headers={name: tags})
                assert (answer.status_code, answer.json()["detail"]) == (
                    422,
                    f"header.{name.lower()} cannot be judged here: views are counted without a look at their number.",
                )
        assert (await client.post(path, json=body, headers=DATES)).status_code == 202
    assert (await client.get("/page-views/home")).json()["views"] == 2


async def test_the_tag_of_a_document_depends_on_its_content(client: httpx.AsyncClient) -> None:
    for path in ("/docs", "/openapi.json"):
        first, second = await client.get(path), await client.get(path)
        assert (first.headers["etag"], first.content) == (second.headers["etag"], second.content)
        known = await client.get(path, headers={"If-None-Match": first.headers["etag"]})
        assert (known.status_code, known.content, known.headers["etag"]) == (304, b"", first.headers["etag"])
        assert known.headers["cache-control"] == "no-cache"
        other = await client.get(path, headers={"If-Match": '"other"'})
        assert other.json()["detail"] == "This document is of another content, which If-Match does not name."
