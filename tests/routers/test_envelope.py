"""Prefixes, request ids and the access log."""

import logging
import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from app.main import create_app
from app.routers.envelope import Envelope
from app.settings import Settings
from app.speed import direct_way
from tests.in_process import application

ADA = {"name": "Ada", "email": "ada@example.com"}
KETTLE = {"sku": "KETTLE/1", "name": "Kettle", "price": "1"}
FORWARDED = {"X-Forwarded-Prefix": "/api"}
EVIL = [
    "//evil.example",
    "https://evil.example",
    "/\\evil.example",
    '/"><script>',
    "/api, //evil.example",
    "api",
    "/evil/..",
]
PREFIXED = [({"root_path": "/api"}, {}), ({}, FORWARDED)]


def below(settings: Settings, **changes: Any) -> AbstractAsyncContextManager[httpx.AsyncClient]:
    return application(settings.model_copy(update=changes))


@pytest.mark.parametrize(("changes", "headers"), PREFIXED, ids=["setting", "header"])
async def test_each_link_begins_with_the_prefix(
    settings: Settings, changes: dict[str, str], headers: dict[str, str]
) -> None:
    """A proxy has stripped it, and the path here is without."""
    async with below(settings, **changes) as client:
        client.headers.update(headers)
        user = (await client.post("/users", json=ADA)).headers["location"]
        product = (await client.post("/products", json=KETTLE)).headers["location"]
        stock = (await client.put("/inventory/KETTLE%2F1", json={"quantity": 1})).headers["location"]
        assert re.fullmatch(r"/api/users/\d+", user)
        assert (product, stock) == ("/api/products/KETTLE%2F1", "/api/inventory/KETTLE%2F1")
        assert (await client.get(user.removeprefix("/api"))).json()["name"] == "Ada"
        assert (await client.get("/openapi.json")).json()["servers"] == [{"url": "/api"}]
        for page in ("/", "/docs"):
            links = re.findall(r"(?:href|src)=\"(/[^\"]*)", (await client.get(page)).text)
            assert links
            assert all(link.startswith("/api/") for link in links)
            for link in links:
                assert (await client.get(link.removeprefix("/api"))).status_code in (200, 404)
        assert "url: '/api/openapi.json'" in (await client.get("/docs")).text


async def test_without_a_prefix_the_links_have_none(client: httpx.AsyncClient) -> None:
    assert re.fullmatch(r"/users/\d+", (await client.post("/users", json=ADA)).headers["location"])
    assert "servers" not in (await client.get("/openapi.json")).json()
    assert 'href="/users/1"' in (await client.get("/")).text


@pytest.mark.parametrize("path", ["/api/users/{}", "/users/{}"])
async def test_a_proxy_may_strip_the_prefix_of_the_setting_or_leave_it(settings: Settings, path: str) -> None:
    async with below(settings, root_path="/api") as client:
        user = (await client.post(path.format("")[:-1], json=ADA)).json()["id"]
        assert (await client.get(path.format(user))).json()["name"] == "Ada"
        assert (await client.get("/apiary")).json()["detail"] == "There is nothing at /apiary."
        assert (await client.get("/api")).text == (await client.get("/")).text


async def test_a_prefix_of_the_setting_leaves_the_direct_way_open(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with below(settings, root_path="/api") as client:
        user = (await client.post("/api/users", json=ADA)).headers["location"]

        async def refuses(*_: object) -> None:
            raise AssertionError("It went the whole way.")

        monkeypatch.setattr(APIRoute, "handle", refuses)
        assert direct_way.WAYS
        assert (await client.get(user)).json()["name"] == "Ada"


@pytest.mark.parametrize("prefix", EVIL)
async def test_a_header_that_is_no_plain_path_is_ignored(client: httpx.AsyncClient, prefix: str) -> None:
    client.headers["X-Forwarded-Prefix"] = prefix
    assert re.fullmatch(r"/users/\d+", (await client.post("/users", json=ADA)).headers["location"])
    assert "evil" not in (await client.get("/openapi.json")).text
    for page in ("/", "/docs"):
        assert "evil" not in (await client.get(page)).text
        assert "<script>/" not in (await client.get(page)).text


async def test_a_header_does_not_lead_past_the_rules_of_a_proxy_about_paths(client: httpx.AsyncClient) -> None:
    """The proxy refuses `/metrics` · a client asks for `/x/metrics`, and says that `/x` is the prefix"""
    answer = await client.get("/x/metrics", headers={"X-Forwarded-Prefix": "/x"})
    assert answer.status_code == 404


async def test_the_setting_comes_before_the_header(settings: Settings) -> None:
    async with below(settings, root_path="/ours") as client:
        created = await client.post("/users", json=ADA, headers=FORWARDED)
        assert created.headers["location"].startswith("/ours/users/")


async def test_a_document_with_the_prefix_of_a_client_is_not_for_others(client: httpx.AsyncClient) -> None:
    """A cache keeps the document of a client with a prefix · another client asks, and the cache revalidates"""
    for path in ("/docs", "/openapi.json"):
        theirs = await client.get(path, headers={"X-Forwarded-Prefix": "/theirs"})
        assert (theirs.headers["vary"], theirs.headers["cache-control"]) == ("x-forwarded-prefix", "no-cache")
        ours = await client.get(path, headers={"If-None-Match": theirs.headers["etag"]})
        assert ours.status_code == 200
        assert "theirs" not in ours.text
        again = await client.get(path, headers={"If-None-Match": ours.headers["etag"]})
        assert (again.status_code, again.headers["vary"]) == (304, "x-forwarded-prefix")


async def test_a_client_with_many_prefixes_does_not_fill_the_memory(app: FastAPI, client: httpx.AsyncClient) -> None:
    for number in range(20):
        page = await client.get("/docs", headers={"X-Forwarded-Prefix": f"/p{number}"})
        assert f"/p{number}/openapi.json" in page.text
    routes: list[Any] = app.routes
    (kept,) = [route.endpoint._kept for route in routes if getattr(route, "path", "") == "/docs"]
    assert len(kept) <= 8


SANE = ["a", "order-17", "8f14e45f:{x}\"'", "x" * 128]
INSANE = ["", "a b", "x" * 129, "é".encode(), "a\tb"]


@pytest.mark.parametrize("path", ["/users/1", "/health/live", "/nowhere", "/users/x", "/metrics"])
async def test_a_sane_request_id_is_sent_back(client: httpx.AsyncClient, path: str) -> None:
    for sent in SANE:
        assert (await client.get(path, headers={"X-Request-ID": sent})).headers["x-request-id"] == sent
    assert "x-request-id" not in (await client.get(path)).headers


@pytest.mark.parametrize("sent", INSANE)
async def test_another_request_id_is_not_sent_back(client: httpx.AsyncClient, sent: str) -> None:
    assert "x-request-id" not in (await client.get("/users/1", headers={"X-Request-ID": sent})).headers


async def test_an_unexpected_error_is_answered_with_its_request_id(app: FastAPI, client: httpx.AsyncClient) -> None:
    async def broken() -> None:
        raise ZeroDivisionError

    app.add_api_route("/broken", broken)
    answer = await client.get("/broken", headers={"X-Request-ID": "order-17"})
    assert (answer.status_code, answer.json()["request_id"]) == (500, "order-17")
    assert answer.headers["x-request-id"] == "order-17"
    anonymous = await client.get("/broken")
    assert re.fullmatch(r"[0-9a-f]{32}", anonymous.json()["request_id"])
    assert "x-request-id" not in anonymous.headers
    refused = await client.get("/users/x", headers={"X-Request-ID": "order-17"})
    assert "request_id" not in refused.json()


@asynccontextmanager
async def logged(settings: Settings, caplog: pytest.LogCaptureFixture) -> AsyncIterator[httpx.AsyncClient]:
    """An application with an access log."""
    with caplog.at_level(logging.INFO, logger="app.access"):
        async with below(settings, access_log=True) as client:
            yield client


async def test_the_access_log_has_method_path_status_and_duration(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    async with logged(settings, caplog) as client:
        await client.get("/health/live?token=s3cret")
        await client.head("/no%0Awhere")
    lines = [record.getMessage() for record in caplog.records if record.name == "app.access"]
    assert [re.sub(r"[\d.]+ ms", "… ms", line) for line in lines] == [
        "GET /health/live 200 … ms",
        "HEAD /no%0Awhere 404 … ms",
    ]
    (fields, _) = [vars(record)["access"] for record in caplog.records if record.name == "app.access"]
    assert (fields["method"], fields["path"], fields["status"]) == ("GET", "/health/live", 200)
    assert 0 < fields["ms"] < 60_000


async def test_the_access_log_has_the_path_as_it_was_sent(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="app.access"):
        async with below(settings, access_log=True, root_path="/api") as client:
            await client.get("/api/health/live")
    assert [vars(record)["access"]["path"] for record in caplog.records if record.name == "app.access"] == [
        "/api/health/live"
    ]


async def test_the_access_log_has_an_unexpected_error_as_500(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken() -> None:
        raise ZeroDivisionError

    async with logged(settings, caplog) as client:
        client._transport.app.add_api_route("/broken", broken)  # type: ignore[attr-defined]
        with pytest.raises(ZeroDivisionError):
            await client.get("/broken")
    assert "GET /broken 500 " in caplog.text


async def test_without_the_setting_there_is_no_access_log(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        await client.get("/health/live")
    assert [record for record in caplog.records if record.name == "app.access"] == []


def test_the_envelope_is_the_outermost_middleware(settings: Settings) -> None:
    """Each answer passes through it, those of the other middleware too."""
    outermost: Any = create_app(settings).user_middleware[0].cls
    assert outermost is Envelope
