"""Errors over HTTP: every error is a problem with a sentence."""

import logging
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy.exc import ProgrammingError

from app.errors import DatabaseUnavailable
from app.routers.problems import STATUSES, install
from app.settings import Settings
from tests.in_process import application
from tests.routers.conftest import Contents
from tests.service import free_port

LARGEST, LARGEST_OF_MANY = 65_536, 4_194_304
"""The defaults of the settings."""
USER = {"name": "Ada", "email": "ada@example.com"}


def problem(answer: httpx.Response) -> dict[str, Any]:
    """Returns the body of a problem without the request's id, and checks that it matches the status line."""
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert (body.pop("request_id", None) is not None) == (answer.status_code >= 500)
    assert {"type", "title", "status", "detail"} <= body.keys() <= {"type", "title", "status", "detail", "errors"}
    assert body["status"] == answer.status_code
    assert body["detail"].endswith(".")
    return body


async def test_a_path_that_does_not_exist_is_named(client: httpx.AsyncClient) -> None:
    answer = await client.get("/nowhere")
    assert problem(answer) == {
        "type": "not-found",
        "title": "Not Found",
        "status": 404,
        "detail": "There is nothing at /nowhere.",
    }


async def test_a_path_is_quoted_with_its_line_breaks(client: httpx.AsyncClient) -> None:
    """Different paths are never quoted in the same way, neither to the client nor in the log."""
    answer = await client.get("/no%0Awhere%0D")
    assert answer.json()["detail"] == "There is nothing at /no\nwhere\r."


@pytest.mark.parametrize("path", ["/users/", "/users/1/", "/strategies/", "/health", "/user", "/USERS", "/*"])
async def test_a_path_that_is_nearly_right_is_not_redirected(client: httpx.AsyncClient, path: str) -> None:
    assert problem(await client.get(path))["type"] == "not-found"


async def test_a_long_path_is_not_repeated_in_full(client: httpx.AsyncClient) -> None:
    detail = problem(await client.get("/" + "x" * 20_000))["detail"]
    assert len(detail) < 200


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/", "GET, HEAD"),
        ("/users", "GET, POST, HEAD"),
        ("/users/1", "GET, PATCH, DELETE, HEAD"),
        ("/products", "GET, POST, HEAD"),
        ("/products/A/B", "GET, PATCH, DELETE, HEAD"),
        ("/strategies", "GET, HEAD"),
        ("/write-behind", "GET, HEAD"),
        ("/metrics", "GET, HEAD"),
        ("/health/live", "GET, HEAD"),
        ("/health/ready", "GET, HEAD"),
        ("/docs", "GET, HEAD"),
        ("/docs/assets/swagger-ui.css", "GET, HEAD"),
        ("/openapi.json", "GET, HEAD"),
    ],
)
async def test_a_405_lists_the_allowed_methods(client: httpx.AsyncClient, path: str, allowed: str) -> None:
    for method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"} - {
        *allowed.split(", ")
    }:
        answer = await client.request(method, path)
        assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
        assert problem(answer)["detail"] == f"{path} does not take {method}, but {allowed}."


async def test_every_method_in_allow_is_accepted(client: httpx.AsyncClient) -> None:
    for path in ("/users", "/users/1", "/products", "/products/A", "/metrics"):
        for method in (await client.options(path)).headers["allow"].split(", "):
            assert (await client.request(method, path)).status_code != 405


@pytest.mark.parametrize(
    ("path", "largest"),
    [("/users", LARGEST), ("/products", LARGEST), ("/page-views/home", LARGEST), ("/page-views", LARGEST_OF_MANY)],
)
async def test_a_body_that_is_too_large_is_refused(client: httpx.AsyncClient, path: str, largest: int) -> None:
    answer = await client.post(path, content=b" " * (largest + 1), headers={"Content-Type": "application/json"})
    assert answer.status_code == 413
    assert problem(answer) == {
        "type": "content-too-large",
        "title": "Content Too Large",
        "status": 413,
        "detail": f"The body is larger than {largest:,} bytes.",
    }


async def test_a_chunked_body_that_grows_too_large_is_refused(client: httpx.AsyncClient) -> None:
    async def chunks() -> Any:
        for _ in range(5):
            yield b" " * (16 * 1024)

    answer = await client.post("/users", content=chunks(), headers={"Content-Type": "application/json"})
    assert (answer.status_code, problem(answer)["detail"]) == (413, "The body is larger than 65,536 bytes.")


async def test_the_largest_body_is_read(client: httpx.AsyncClient) -> None:
    body = b'{"name": "Ada", "email": "ada@example.com"}'.ljust(LARGEST)
    answer = await client.post("/users", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 201


async def test_a_call_without_a_body_does_nothing_when_it_gets_one_that_is_too_large(
    client: httpx.AsyncClient, rows: Contents
) -> None:
    body = b" " * (LARGEST + 1)
    for path in ("/users/1", "/products/KETTLE-1"):
        problem(await client.request("DELETE", path, content=body))
        assert (await client.get(path)).status_code == 200


@pytest.mark.parametrize(
    ("content_type", "declared"),
    [
        (None, "and there is no Content-Type"),
        ("", "and there is no Content-Type"),
        ("text/plain", "not as text/plain"),
        ("text/json", "not as text/json"),
        ("application/x-www-form-urlencoded", "not as application/x-www-form-urlencoded"),
        ("multipart/form-data; boundary=x", "not as multipart/form-data"),
        ("application/json, text/plain", "not as application/json, text/plain"),
        ("json", "not as json"),
    ],
)
async def test_a_body_must_be_declared_as_json(
    client: httpx.AsyncClient, content_type: str | None, declared: str
) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    answer = await client.post("/users", content=b'{"name": "Ada", "email": "ada@example.com"}', headers=headers)
    assert answer.status_code == 415
    assert problem(answer)["detail"] == f"The body must be declared as application/json, {declared}."


@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON; charset=utf-8", "application/x+json"])
async def test_json_may_be_declared_in_several_ways(client: httpx.AsyncClient, content_type: str) -> None:
    body = b'{"name": "Ada", "email": "ada@example.com"}'
    answer = await client.post("/users", content=body, headers={"Content-Type": content_type})
    assert answer.status_code == 201


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b'{"name": ', "The body is not JSON: Expecting value, at character 10."),
        (b'{"name": "Ada"', "The body is not JSON: Expecting ',' delimiter, at character 15."),
        (b'{"name": "A\nda"}', "The body is not JSON: Invalid control character, at character 12."),
        (b"{'name': 1}", "The body is not JSON: Expecting property name enclosed in double quotes, at character 2."),
        (b"{} {}", "The body is not JSON: Extra data, at character 4."),
        (b'"\xff"', "The body cannot be read: it is not UTF-8."),
        ('{"name": "Ada"}'.encode("utf-16"), "The body cannot be read: it is not UTF-8."),
        (b"[" * 13_000, "The body cannot be read: it is nested too deeply."),
        (b"9" * 5_000, "The body cannot be read: a number in it has too many digits."),
    ],
    ids=["end", "comma", "control", "quotes", "more", "latin", "utf-16", "nested", "digits"],
)
async def test_an_unreadable_body_is_explained(client: httpx.AsyncClient, body: bytes, detail: str) -> None:
    answer = await client.post("/users", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, problem(answer)["type"]) == (400, "unreadable")
    assert answer.json()["detail"] == detail


async def test_each_invalid_field_is_named_with_the_rule_it_breaks(client: httpx.AsyncClient) -> None:
    answer = await client.post("/products", json={"sku": " A", "name": "", "price": 12.5, "colour": "red"})
    assert answer.status_code == 422
    assert problem(answer) == {
        "type": "invalid",
        "title": "Unprocessable Content",
        "status": 422,
        "detail": "body.sku must not contain control characters, nor begin or end with a blank; "
        "body.name must not be empty; "
        'body.price must be a decimal number as text, like "12.50": up to 10 digits, and up to 4 behind the point; '
        "body.colour is not a field that can be set here.",
        "errors": [
            {"where": "body.sku", "what": "must not contain control characters, nor begin or end with a blank"},
            {"where": "body.name", "what": "must not be empty"},
            {
                "where": "body.price",
                "what": 'must be a decimal number as text, like "12.50": up to 10 digits, and up to 4 behind the point',
            },
            {"where": "body.colour", "what": "is not a field that can be set here"},
        ],
    }


async def test_a_problem_does_not_repeat_the_input(client: httpx.AsyncClient) -> None:
    answer = await client.post("/users", json={"name": ["s3cret"], "email": "s3cret"})
    assert answer.status_code == 422
    assert "s3cret" not in answer.text


async def test_the_first_of_many_mistakes_are_named_and_the_rest_counted(client: httpx.AsyncClient) -> None:
    answer = await client.post("/users", json=USER | {f"unknown{number}": 1 for number in range(4000)})
    body = problem(answer)
    assert (answer.status_code, len(body["errors"])) == (422, 10)
    assert body["detail"].endswith("; and 3,990 more.")
    assert len(answer.content) < 3000


async def test_a_long_field_name_is_truncated(client: httpx.AsyncClient) -> None:
    answer = await client.post("/users", json=USER | {"x" * 50_000: 1})
    assert (answer.status_code, len(answer.content) < 1000) == (422, True)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/users/1", None),
        ("GET", "/users", None),
        ("POST", "/users", USER),
        ("PATCH", "/users/1", {"name": "Ada"}),
        ("DELETE", "/users/1", None),
        ("GET", "/products/A", None),
        ("GET", "/products", None),
        ("GET", "/products?sku=A&sku=B", None),
        ("POST", "/products", {"sku": "A", "name": "A", "price": "1"}),
        ("PATCH", "/products/A", {"name": "A"}),
        ("DELETE", "/products/A", None),
    ],
)
async def test_without_the_database_the_answer_is_a_503_with_retry_after(
    settings: Settings, method: str, path: str, body: dict[str, str] | None
) -> None:
    settings = settings.model_copy(update={"database_url": f"postgresql://postgres@127.0.0.1:{free_port()}/postgres"})
    async with application(settings) as client:
        answer = await client.request(method, path, json=body)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert problem(answer)["type"] == "database-unavailable"
    assert answer.json()["detail"] == "The database refuses connections."


async def test_an_unexpected_error_is_a_problem_without_secrets(
    app: FastAPI, client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken() -> None:
        raise ZeroDivisionError("s3cret")

    app.add_api_route("/broken", broken)
    with caplog.at_level(logging.CRITICAL):
        answer = await client.get("/broken")
    assert (answer.status_code, problem(answer)["type"]) == (500, "internal-error")
    assert "s3cret" not in answer.text


async def test_the_server_can_log_an_unexpected_error(app: FastAPI) -> None:
    async def broken() -> None:
        raise ZeroDivisionError("s3cret")

    app.add_api_route("/broken", broken)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://fourways") as client:
        with pytest.raises(ZeroDivisionError):
            await client.get("/broken")


async def test_another_history_of_postgres_is_reported_and_not_read(app: FastAPI, client: httpx.AsyncClient) -> None:
    created = (await client.post("/users", json=USER)).headers["location"]
    app.state.resources.database.timeline = "0000000A"
    for answer in (await client.get("/users"), await client.patch(created, json={"name": "Ada King"})):
        assert problem(answer) == {
            "type": "database-unavailable",
            "title": "Service Unavailable",
            "status": 503,
            "detail": "Postgres is at timeline 1, and this instance believes what it knew at timeline 10; try again.",
        }
        assert answer.headers["retry-after"] == "1"
    app.state.resources.database.timeline = None
    assert (await client.get("/users")).json()["items"][0]["name"] == "Ada"


def test_every_error_of_an_unavailable_postgres_has_a_status() -> None:
    assert {DatabaseUnavailable, *DatabaseUnavailable.__subclasses__()} <= STATUSES.keys()


async def test_an_error_of_postgres_that_nobody_expects_is_logged_from_where_it_arose() -> None:
    app = FastAPI()
    install(app)

    @app.get("/")
    async def broken() -> None:
        raise ProgrammingError("SELECT", {}, ValueError("not SQL"))

    transport = httpx.ASGITransport(app)  # Raises what a server would log.
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        with pytest.raises(ProgrammingError) as raised:
            await client.get("/")
    assert "broken" in [entry.name for entry in raised.traceback]
