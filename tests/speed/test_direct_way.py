"""Requests get the same answer on the direct way and on the whole way."""

from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Query, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi.routing import APIRoute
from starlette.applications import Starlette
from starlette.routing import Match, Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from app.caching import Overloaded
from app.main import create_app
from app.routers import users
from app.routers.resources import AllResources
from app.settings import Settings
from app.speed.direct_way import WAYS, DirectWay, direct
from tests.in_process import client_of

WHOLE = {"If-None-Match": '"0"'}
"""No version is 0, so this header only makes a read take the whole way."""
PATHS = ["/users/{user}", "/products/SKU", "/inventory/SKU", "/page-views/docs/intro.html"]


@pytest.fixture
async def user(client: httpx.AsyncClient) -> str:
    """The id of a new user. Rows for the other PATHS exist, too."""
    created = await client.post("/users", json={"name": "Ada", "email": "ada@example.com"})
    await client.post("/products", json={"sku": "SKU", "name": "Kettle", "price": "1"})
    await client.put("/inventory/SKU", json={"quantity": 7})
    await client.post("/page-views/docs/intro.html")
    return created.headers["location"].removeprefix("/users/")


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The routes of requests that took the whole way."""
    taken: list[str] = []
    handle = APIRoute.handle

    async def noted(self: APIRoute, *args: Any) -> None:
        taken.append(self.path)
        await handle(self, *args)

    monkeypatch.setattr(APIRoute, "handle", noted)
    return taken


def told(answer: httpx.Response) -> tuple[int, bytes, Mapping[str, str]]:
    """Returns all of an answer that does not change with time."""
    headers = dict(answer.headers)
    headers["cache-status"] = headers.get("cache-status", "").partition("ttl=")[0]
    return answer.status_code, answer.content, headers


@pytest.mark.parametrize("path", PATHS)
async def test_a_hit_gets_the_same_answer_on_both_ways(client: httpx.AsyncClient, user: str, path: str) -> None:
    path = path.format(user=user)
    await client.get(path)
    direct, whole = await client.get(path), await client.get(path, headers=WHOLE)
    assert "; hit" in direct.headers["cache-status"]
    assert told(direct) == told(whole)


@pytest.mark.parametrize(
    "path",
    ["/users/0", "/users/one", "/users/007", "/users/9999", "/products/NONE", "/products/%00", "/inventory/NONE"],
)
async def test_a_missing_row_or_bad_key_gets_the_same_answer_on_both_ways(client: httpx.AsyncClient, path: str) -> None:
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
async def test_a_list_gets_the_same_answer_on_both_ways(client: httpx.AsyncClient, user: str, query: str) -> None:
    await client.get("/products/SKU")
    path = f"/products?{query}"
    direct, whole = await client.get(path), await client.get(path, headers=WHOLE)
    assert direct.status_code in (200, 422)
    assert told(direct) == told(whole)


async def test_a_request_with_nothing_but_a_key_takes_the_direct_way(
    client: httpx.AsyncClient, user: str, whole: list[str]
) -> None:
    for path in PATHS:
        await client.get(path.format(user=user))
    await client.post("/page-views/home")
    assert whole == []
    await client.post("/page-views/home", json={"count": 2})
    await client.post("/page-views/home", headers={"Expect": "100-continue"})
    assert whole == ["/page-views/{page:anything}"] * 2


async def test_a_list_takes_the_direct_way_if_the_query_has_only_keys(
    client: httpx.AsyncClient, user: str, whole: list[str]
) -> None:
    whole.clear()
    await client.get("/products?sku=SKU&sku=NONE")
    assert whole == []
    await client.get("/products?sku=SKU&limit=1")
    assert whole == ["/products"]


@pytest.mark.parametrize(("error", "status"), [(RuntimeError("Nobody expected it."), 500), (Overloaded("Busy."), 503)])
async def test_an_error_gets_the_same_answer_on_both_ways(
    app: FastAPI, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int
) -> None:
    async def fail(key: str) -> None:
        raise error

    monkeypatch.setattr(app.state.resources.products, "get", fail)
    client.headers["X-Request-ID"] = "one"  # Otherwise each answer has its own.
    direct, whole = await client.get("/products/SKU"), await client.get("/products/SKU", headers=WHOLE)
    assert direct.status_code == status
    assert told(direct) == told(whole)


async def test_an_unexpected_error_reaches_the_server_which_logs_it(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(key: str) -> None:
        raise RuntimeError("Nobody expected it.")

    monkeypatch.setattr(app.state.resources.products, "get", fail)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://fourways") as client:
        with pytest.raises(RuntimeError, match="Nobody expected it"):
            await client.get("/products/SKU")


async def test_an_added_middleware_wraps_the_direct_way(settings: Settings, whole: list[str]) -> None:
    app = create_app(settings)
    app.add_middleware(CORSMiddleware, allow_origins=["https://example.org"])
    async with client_of(app) as client:
        answer = await client.get("/users/9999", headers={"Origin": "https://example.org"})
    assert whole == []
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (404, "https://example.org")


async def test_a_router_with_a_login_takes_the_whole_way() -> None:
    def login() -> None:
        raise AssertionError

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        asked.append(scope["path"])

    async def nothing(*message: Any) -> Any:
        raise AssertionError

    asked: list[str] = []
    guarded = APIRouter(dependencies=[Depends(login)])
    guarded.add_api_route("/users/{user_id}", users.read)
    scope = {"type": "http", "method": "GET", "path": "/users/1", "headers": []}
    await DirectWay(application, guarded.routes)(scope, nothing, nothing)
    assert asked == ["/users/1"]


async def test_a_route_in_front_of_ours_comes_first(settings: Settings) -> None:
    """Somebody adds `GET /products/cheapest` above `GET /products/{sku}`."""

    async def cheapest() -> dict[str, str]:
        return {"sku": "CUP-1"}

    app = create_app(settings)
    app.add_api_route("/products/cheapest", cheapest)
    app.router.routes.insert(0, app.router.routes.pop())
    async with client_of(app) as client:
        direct, whole = [await client.get("/products/cheapest", headers=each) for each in ({}, WHOLE)]
    assert told(direct) == told(whole)
    assert direct.json() == {"sku": "CUP-1"}


async def test_an_application_mounted_in_front_of_ours_comes_first(settings: Settings) -> None:
    """Somebody mounts another application above ours."""

    async def other(scope: Scope, receive: Receive, send: Send) -> None:
        await Response("Another one.")(scope, receive, send)

    app = create_app(settings)
    app.mount("/users", other)
    app.router.routes.insert(0, app.router.routes.pop())
    async with client_of(app) as client:
        assert [(await client.get("/users/1", headers=each)).text for each in ({}, WHOLE)] == ["Another one."] * 2


async def test_a_login_added_when_a_router_is_included_is_enforced(settings: Settings) -> None:
    """Somebody includes a router with a login, instead of adding its routes."""

    def login() -> None:
        raise HTTPException(401)

    app = create_app(settings)
    app.router.routes[:] = [route for route in app.router.routes if route not in users.router.routes]
    app.include_router(users.router, dependencies=[Depends(login)])
    async with client_of(app) as client:
        assert [(await client.get("/users/1", headers=each)).status_code for each in ({}, WHOLE)] == [401, 401]


async def test_a_route_of_another_class_takes_the_whole_way() -> None:
    class Timed(APIRoute):
        pass

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        asked.append(scope["path"])

    async def nothing(*message: Any) -> Any:
        raise AssertionError

    asked: list[str] = []
    timed = APIRouter(route_class=Timed)
    timed.add_api_route("/users/{user_id}", users.read)
    scope = {"type": "http", "method": "GET", "path": "/users/1", "headers": []}
    await DirectWay(application, timed.routes)(scope, nothing, nothing)
    assert asked == ["/users/1"]


async def test_a_route_with_its_own_matching_comes_first(settings: Settings) -> None:
    """Somebody adds a route that matches every request with another version, whatever its path is."""

    class Versioned(APIRoute):
        def matches(self, scope: Scope) -> tuple[Match, Scope]:
            is_ours = (b"version", b"2") in scope["headers"]
            return (Match.FULL, {"endpoint": self.endpoint, "path_params": {}}) if is_ours else (Match.NONE, {})

    async def second() -> str:
        return "The second version."

    app = create_app(settings)
    app.router.routes.insert(0, Versioned("/users/second", second, methods=["GET"]))
    async with client_of(app) as client:
        answers = [await client.get("/users/1", headers={"Version": version}) for version in ("2", "1")]
    assert [answer.json() == "The second version." for answer in answers] == [True, False]


async def test_a_mounted_application_gives_the_same_answer_on_both_ways(settings: Settings) -> None:
    """Somebody mounts our application below a path that looks like one of our own paths."""
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        outer = Starlette(routes=[Mount("/users", app)])
        async with httpx.AsyncClient(transport=httpx.ASGITransport(outer), base_url="http://fourways") as client:
            for path in ("/users/users/7000", "/users/products/NONE", "/users/7000"):
                direct, whole = [await client.get(path, headers=each) for each in ({}, WHOLE)]
                assert direct.status_code == whole.status_code == 404
                assert direct.json() == whole.json()


async def test_a_middleware_can_read_the_matched_route(settings: Settings) -> None:
    """Somebody counts requests by their route, as metrics libraries usually do."""
    seen: list[tuple[str, Mapping[str, str]]] = []

    class Counting:
        def __init__(self, app: ASGIApp) -> None:
            self._app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await self._app(scope, receive, send)
            seen.append((scope["route"].path, scope["path_params"]))

    app = create_app(settings)
    app.add_middleware(Counting)
    async with client_of(app) as client:
        for headers in ({}, WHOLE):
            await client.get("/users/1", headers=headers)
    assert seen == [("/users/{user_id}", {"user_id": "1"})] * 2


async def test_an_exception_handler_can_read_the_key(settings: Settings) -> None:
    app = create_app(settings)

    @app.exception_handler(418)
    async def tea(request: Request, error: Exception) -> Response:
        return Response(request.path_params["sku"], 418)

    async def fail(key: str) -> None:
        raise HTTPException(418)

    async with client_of(app) as client:
        app.state.resources.products.get = fail
        direct, whole = [await client.get("/products/SKU", headers=each) for each in ({}, WHOLE)]
    assert direct.text == "SKU"
    assert told(direct) == told(whole)


async def test_a_handler_of_500_gives_the_same_answer_on_both_ways(settings: Settings) -> None:
    app = create_app(settings)

    @app.exception_handler(500)
    async def broken(request: Request, error: Exception) -> Response:
        return Response("Broken.", 500)

    async def fail(key: str) -> None:
        raise HTTPException(500, "Somebody said so.")

    async with client_of(app) as client:
        app.state.resources.products.get = fail
        client.headers["X-Request-ID"] = "one"
        direct, whole = [await client.get("/products/SKU", headers=each) for each in ({}, WHOLE)]
    assert told(direct) == told(whole)


async def test_a_precondition_is_checked(client: httpx.AsyncClient, user: str) -> None:
    for path in (each.format(user=user) for each in PATHS):
        etag = (await client.get(path)).headers["etag"]
        assert (await client.get(path, headers={"If-None-Match": etag})).status_code == 304


async def test_head_is_a_hit_without_a_body(client: httpx.AsyncClient, user: str) -> None:
    await client.get("/products/SKU")
    answer = await client.head("/products/SKU")
    assert (answer.status_code, "; hit" in answer.headers["cache-status"]) == (200, True)


async def test_a_view_with_a_count_or_a_key_is_counted_accordingly(client: httpx.AsyncClient) -> None:
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


def test_an_endpoint_with_other_parameters_is_refused() -> None:
    async def read(key: str, resources: AllResources, limit: int) -> Response:
        raise AssertionError

    with pytest.raises(ValueError, match=r"^read asks for more than the direct way can tell: limit\.$"):
        direct(read)
    assert read not in WAYS


def test_an_endpoint_without_a_resource_is_refused() -> None:
    async def read(key: str) -> Response:
        raise AssertionError

    with pytest.raises(ValueError, match=r"^read works on 0 resources, and the direct way knows one\.$"):
        direct(read)


def test_an_endpoint_of_a_list_may_have_only_query_parameters() -> None:
    async def read(
        resources: AllResources,
        key: Annotated[list[str] | None, Query()] = None,
        limit: Annotated[int, Query()] = 50,
        agent: Annotated[str, Header()] = "",
    ) -> Response:
        raise AssertionError

    with pytest.raises(ValueError, match=r"^read asks for more than the direct way can tell: agent\.$"):
        direct(read)
    assert read not in WAYS
