"""The documentation is made once."""

import asyncio
import re
import threading
from typing import Any

import httpx
import pytest
from fastapi.openapi.utils import get_openapi

from app.main import create_app
from app.routers import documents
from app.settings import Settings
from tests.eventually import PATIENCE, eventually


async def test_the_openapi_document_is_made_once_beside_the_loop_for_all_who_ask(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client asks, and a thread begins to make it · four more ask, and others are answered · it is made"""
    makers, go_on = [], threading.Event()

    def held(**named: Any) -> dict[str, Any]:
        makers.append(threading.current_thread())
        assert go_on.wait(PATIENCE)
        return get_openapi(**named)

    monkeypatch.setattr(documents, "get_openapi", held)
    asking = [asyncio.create_task(client.get("/openapi.json")) for _ in range(5)]

    async def has_begun() -> bool:
        return bool(makers)

    await eventually(has_begun)
    assert (await client.get("/health/live")).status_code == 200
    assert (await client.get("/docs")).status_code == 200
    go_on.set()
    answers = await asyncio.gather(*asking)
    assert len(makers) == 1
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1


async def test_below_a_prefix_the_page_names_what_it_needs_below_it(settings: Settings) -> None:
    app = create_app(settings)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app, root_path="/api"), base_url="http://localhost") as client,
    ):
        page = (await client.get("/api/docs")).text
        named = set(re.findall(r"[\"'](/[^\"']*(?:\.json|\.js|\.css|\.png))[\"']", page))
        assert len(named) == 4
        assert {(await client.get(each)).status_code for each in named} == {200}
        assert all(each.startswith("/api/") for each in named)
