"""Who may cache an answer: the client, and the HTTP caches between it and this service (RFC 9111).

rows           cached, but revalidated each time; the ETag makes that cheap
users          the same, but cached by the client only: they are personal data
documents      as rows: an older one would describe another version of this service
problems, operations    not cached at all

Without Cache-Control an HTTP cache decides by itself, and Varnish serves an old row for two minutes. The fields are
bytes, ready to send, so that a hit spends no time on them.
"""

from typing import Any

from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

ROW = (b"cache-control", b"no-cache")
PERSONAL = (b"cache-control", b"private, no-cache")
UNKEPT = (b"cache-control", b"no-store")


class UnkeptJSON(JSONResponse):
    """JSON that must not be cached: what operators read, which is current only at this moment."""

    def __init__(self, content: Any, status_code: int = 200, **more: Any) -> None:
        super().__init__(content, status_code, **more)
        self.raw_headers.append(UNKEPT)


class Document:
    """Wraps an application that serves documents, and adds their Cache-Control."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], ROW]
            await send(message)

        await self._app(scope, receive, send_marked)
