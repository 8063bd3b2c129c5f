"""The names under which the service may be called, and the sites whose pages may write."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from redis.asyncio import Redis
from starlette.types import Receive, Scope, Send

from app.embedded import Endpoints
from app.main import create_app
from app.routers.hosts import MOST_KNOWN, Hosts
from app.settings import Settings
from tests.in_process import client_of
from tests.routers.conftest import waiting
from tests.routers.wire import exchange
from tests.service import FOURWAYS, serving

EVIL = "https://evil.example"
NAMES = ("shop.example", "*.internal.example")


@asynccontextmanager
async def called(settings: Settings, *names: str, **more: object) -> AsyncIterator[httpx.AsyncClient]:
    """Yields a client of an application that may be called by these names."""
    app = create_app(settings.model_copy(update={"allowed_hosts": names, **more}))
    async with client_of(app, raises=True, base_url="http://localhost") as client:
        yield client


async def test_the_service_answers_to_addresses_and_to_its_own_names(settings: Settings) -> None:
    async with called(settings, *NAMES, host="Box") as client:
        for host in (
            "localhost", "LocalHost:8000", "localhost.:8000", "127.0.0.1", "127.9.9.9:1", "[::1]", "[::1]:8000",
            "10.1.2.3:8000", "[fe80::1]:8000", "shop.example", "SHOP.example:443", "shop.example.", "box:8000",
            "a.internal.example", "a.b.internal.example:80", "",
        ):  # fmt: skip
            for path, status in (("/users/1", 404), ("/users", 200), ("/health/live", 200), ("/docs", 200)):
                # The second time, the name is known already.
                for _ in range(2):
                    assert (await client.get(path, headers={"Host": host})).status_code == status, host


async def test_the_service_answers_to_no_other_name(settings: Settings) -> None:
    async with called(settings, *NAMES) as client:
        for host in (
            "evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "notlocalhost",
            "internal.example", "evilinternal.example", "a.shop.example", "localhost:x", "[::1", "::1", "a b", "*",
            "user@localhost", "localhost/", "box",
        ):  # fmt: skip
            for method, path in (("GET", "/users/1"), ("GET", "/metrics"), ("POST", "/page-views/home")):
                answer = await client.request(method, path, headers={"Host": host})
                assert (answer.status_code, answer.json()["type"]) == (400, "unknown-host"), host
                assert answer.headers["cache-control"] == "no-store"
                assert answer.json()["detail"] == (
                    f"This service does not answer to {host}: if it should, name it in FOURWAYS_ALLOWED_HOSTS."
                )
        assert (await client.get("/page-views/home")).json()["views"] == 0


async def test_a_star_allows_any_host(settings: Settings) -> None:
    async with called(settings, "*") as client:
        assert (await client.get("/users", headers={"Host": "evil.example"})).status_code == 200


async def test_by_default_a_service_is_safe_from_dns_rebinding(endpoints: Endpoints) -> None:
    async with serving(
        endpoints.redis_url, endpoints.database_url, command=FOURWAYS, FOURWAYS_ALLOWED_HOSTS=""
    ) as service:
        for head, status in (
            (b"GET /users HTTP/1.1\r\nHost: localhost:8000", 200),
            (b"GET /users HTTP/1.1\r\nHost: evil.example", 400),
            (b"GET /users HTTP/1.0", 200),
            (b"GET /users HTTP/1.1", 400),
            (b"GET /users HTTP/1.1\r\nHost: localhost\r\nHost: evil.example", 400),
            (b"GET /users HTTP/1.1\r\nHost: evil.example\r\nHost: localhost", 400),
        ):
            answer = await exchange(service, head + b"\r\nConnection: close\r\n\r\n")
            assert answer.status == status, head


async def test_made_up_host_names_do_not_accumulate() -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        heard.append(scope["headers"])

    async def nothing(*message: Any) -> Any:
        raise AssertionError

    heard: list[object] = []
    hosts = Hosts(application, ("*",))
    for number in range(MOST_KNOWN + 10):
        host = b"%d.example" % number
        scope = {"type": "http", "http_version": "1.1", "method": "GET", "headers": [(b"host", host)]}
        await hosts(scope, nothing, nothing)
    assert (len(heard), len(hosts._known)) == (MOST_KNOWN + 10, MOST_KNOWN)


WRITES: list[tuple[str, str, dict[str, object]]] = [
    ("POST", "/page-views/home", {}),
    ("POST", "/page-views/home", {"content": b"x", "headers": {"Content-Type": "text/plain"}}),
    ("POST", "/page-views/home", {"data": {"count": "1"}}),
    ("POST", "/page-views/home", {"json": {"count": 1}}),
    ("DELETE", "/users/1", {}),
    ("PATCH", "/users/1", {"json": {"name": "New"}}),
    ("PUT", "/inventory/A", {"json": {"quantity": 1}}),
    ("POST", "/write-behind/dead-letters/1/replay", {}),
]


async def test_pages_of_other_sites_cannot_write(settings: Settings, redis: Redis) -> None:
    async with called(settings, "*", *NAMES) as client:
        for method, path, body in WRITES:
            for said, names in (
                ({"Sec-Fetch-Site": "cross-site", "Origin": EVIL}, f"a page of {EVIL}"),
                ({"Sec-Fetch-Site": "cross-site"}, "a page of another site"),
                ({"Sec-Fetch-Site": "same-site", "Origin": EVIL}, f"a page of {EVIL}"),
                ({"Origin": EVIL}, f"a page of {EVIL}"),
                ({"Origin": "null"}, "a page of another site"),
                ({"Origin": ""}, "a page of another site"),
                ({"Origin": "http://192.0.2.7"}, "a page of http://192.0.2.7"),
                ({"Origin": "https://internal.example"}, "a page of https://internal.example"),
            ):
                request = client.build_request(method, path, **body)  # type: ignore[arg-type]  # as they stand above
                request.headers.update(said)
                answer = await client.send(request)
                assert (answer.status_code, answer.json()["type"]) == (403, "forbidden"), (path, said)
                assert answer.json()["detail"] == (
                    f"This was sent by {names}, which may only read: if it may write, name its host in "
                    "FOURWAYS_ALLOWED_HOSTS."
                )
                assert answer.headers["cache-control"] == "no-store"
        assert await waiting(redis) == []
        assert (await client.get("/page-views/home")).json()["views"] == 0


async def test_requests_that_are_not_from_another_site_can_write(settings: Settings) -> None:
    async with called(settings, "*", *NAMES) as client:
        said: list[dict[str, str]] = [
            {},
            {"Sec-Fetch-Site": "same-origin", "Origin": "https://behind.a.proxy"},
            {"Sec-Fetch-Site": "none"},
            {"Host": "there.example:8000", "Origin": "http://there.example:8000"},
            {"Host": "There.example", "Origin": "http://there.example"},
            {"Origin": "https://shop.example", "Sec-Fetch-Site": "cross-site"},
            {"Origin": "https://a.internal.example:444", "Sec-Fetch-Site": "same-site"},
            {"Origin": "http://localhost:3000", "Sec-Fetch-Site": "same-site"},
            {"Origin": "http://127.0.0.1:3000"},
            {"Origin": "http://[::1]:3000"},
        ]
        for views, headers in enumerate(said, 1):
            answer = await client.post("/page-views/home", headers=headers)
            assert (answer.status_code, answer.json().get("views")) == (202, views), headers


async def test_pages_of_other_sites_may_read(settings: Settings) -> None:
    async with called(settings) as client:
        for method, status in (("GET", 200), ("HEAD", 200), ("OPTIONS", 405)):
            answer = await client.request(method, "/users", headers={"Origin": EVIL, "Sec-Fetch-Site": "cross-site"})
            assert answer.status_code == status
