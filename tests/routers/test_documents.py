"""The OpenAPI document and the page of the docs."""

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


async def test_the_openapi_document_is_made_once_in_a_thread_for_all_clients(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client requests the document, and a thread begins to make it · four more clients request it, and other requests
    are answered · the document is finished"""
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


async def test_the_docs_page_below_a_prefix_links_its_files_below_that_prefix(settings: Settings) -> None:
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
