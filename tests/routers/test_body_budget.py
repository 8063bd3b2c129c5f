"""The memory budget for all large bodies of one process."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI

from app.main import create_app
from app.settings import Settings

ORDINARY = 65_536
"""The limit of an ordinary body: the budget never refuses a body of at most this size."""
BUDGET = 200_000
JSON = {"Content-Type": "application/json"}


@pytest.fixture
async def app(settings: Settings) -> AsyncIterator[FastAPI]:
    app = create_app(settings.model_copy(update={"bodies_bytes": BUDGET}))
    async with app.router.lifespan_context(app):
        yield app


def views(size: int) -> bytes:
    """Returns a body of that many bytes that counts one view."""
    return b'{"views":[{"page":"home"}]' + b" " * (size - 27) + b"}"


async def test_a_large_body_is_refused_while_others_use_up_the_budget(client: httpx.AsyncClient) -> None:
    """
    A sends most of its body, and waits     B sends a body of the same size: 503
                                            C sends an ordinary body: accepted
    A sends the rest: accepted              B sends its body again: accepted
    """
    sent, rest = asyncio.Event(), asyncio.Event()
    body = views(ORDINARY + BUDGET // 2 + 10_000)

    async def in_two_parts() -> AsyncIterator[bytes]:
        yield body[:-10]
        sent.set()
        await rest.wait()
        yield body[-10:]

    slow = asyncio.create_task(client.post("/page-views", content=in_two_parts(), headers=JSON))
    await sent.wait()
    refused = await client.post("/page-views", content=body, headers=JSON)
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert (refused.json()["type"], refused.json()["detail"]) == (
        "overloaded",
        "The large bodies that are being sent take more than 200,000 bytes together.",
    )
    assert (await client.post("/page-views", content=views(ORDINARY), headers=JSON)).status_code == 202
    rest.set()
    assert (await slow).status_code == 202
    assert (await client.post("/page-views", content=body, headers=JSON)).status_code == 202


async def test_an_aborted_body_returns_its_bytes_to_the_budget(app: FastAPI, client: httpx.AsyncClient) -> None:
    head = [(b"host", b"localhost"), (b"content-type", b"application/json"), (b"transfer-encoding", b"chunked")]
    scope = {
        "type": "http", "method": "POST", "path": "/page-views", "raw_path": b"/page-views", "query_string": b"",
        "headers": head, "http_version": "1.1", "scheme": "http", "server": ("fourways", 80), "root_path": "",
    }  # fmt: skip
    for _ in range(3):
        messages = iter(
            [
                {"type": "http.request", "body": b" " * (ORDINARY + BUDGET), "more_body": True},
                {"type": "http.disconnect"},
            ]
        )

        async def receive(messages: object = messages) -> object:
            return next(messages)  # type: ignore[call-overload]

        async def send(message: object) -> None:
            """Drops the answer."""

        await app(scope, receive, send)  # type: ignore[arg-type]
    body = views(ORDINARY + BUDGET)
    assert (await client.post("/page-views", content=body, headers=JSON)).status_code == 202
