"""The documentation: a page, its assets, and the OpenAPI document. All of it works offline.

Page and document do not change during the life of a process, so each is made once and has the tag of its content.

What can go wrong: making the OpenAPI document would block the event loop for too long. So a thread makes it, once for
all requests that arrive meanwhile.
"""

import asyncio
from collections.abc import Callable
from hashlib import sha256
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.routing import Mount

from app.routers.answers import bare
from app.routers.cache_control import ROW, Document
from app.routers.envelope import PREFIX, VARY
from app.routers.preconditions import Preconditions
from app.routers.problems import Problem

OPENAPI, DOCS, ASSETS = "/openapi.json", "/docs", "/docs/assets"
MOST_KEPT = 8


def add_documents(app: FastAPI) -> None:
    """Adds the documents to an application that has all its routes."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
            # Problems have their own media type, and FastAPI's `responses` can only refer to a schema for it.
            problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
            schema["components"]["schemas"] |= problem.pop("$defs") | {"Problem": problem}
            app.openapi_schema = schema
        return app.openapi_schema

    def described(prefix: str) -> Response:
        return JSONResponse(openapi() | ({"servers": [{"url": prefix}]} if prefix else {}))

    def page(prefix: str) -> Response:
        return get_swagger_ui_html(
            openapi_url=prefix + OPENAPI,
            title="Fourways",
            swagger_js_url=f"{prefix}{ASSETS}/swagger-ui-bundle.js",
            swagger_css_url=f"{prefix}{ASSETS}/swagger-ui.css",
            swagger_favicon_url=f"{prefix}{ASSETS}/favicon.png",
        )

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend the schema
    assets = StaticFiles(packages=[("fastapi_offline", "static")])
    app.add_api_route(OPENAPI, _Kept(described), include_in_schema=False)
    app.add_api_route(DOCS, _Kept(page), include_in_schema=False)
    app.router.routes.append(Mount(ASSETS, Document(assets), name="assets"))


class _Kept:
    """A document, made once for each prefix below which a proxy serves it. There is at most one, unless a client plays
    with X-Forwarded-Prefix."""

    def __init__(self, made: Callable[[str], Response]) -> None:
        self._made = made
        self._kept: dict[str, tuple[Response, str]] = {}
        self._making = asyncio.Lock()

    async def __call__(self, request: Request, expected: Preconditions) -> Response:
        prefix: str = request.scope.get(PREFIX, "")
        kept = self._kept.get(prefix)
        if kept is None:
            async with self._making:
                kept = self._kept.get(prefix)
                if kept is None:
                    kept = await asyncio.to_thread(self._tagged, prefix)
                    if len(self._kept) >= MOST_KEPT:  # Any client can name another prefix.
                        self._kept.pop(next(iter(self._kept)))
                    self._kept[prefix] = kept
        response, tag = kept
        if expected is not None:
            if (mismatch := expected.mismatch("This document is of another content", tag)) is not None:
                raise mismatch
            if expected.known(tag):
                return bare(304, (b"etag", f'"{tag}"'.encode()), ROW, VARY)
        return response

    def _tagged(self, prefix: str) -> tuple[Response, str]:
        response = self._made(prefix)
        tag = sha256(response.body).hexdigest()[:16]
        response.raw_headers += [(b"etag", f'"{tag}"'.encode()), ROW, VARY]
        return response, tag
