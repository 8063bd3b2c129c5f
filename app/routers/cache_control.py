"""Who may keep an answer: the client, and the caches between it and this service (RFC 9111).

rows           to be asked for anew each time; the ETag makes that cheap
users          the same, and nobody but the client keeps them: they are persons
documents      as rows: an older one would describe another version of this service
problems, operations    nobody keeps them

Without a word on it, a cache decides by itself, and Varnish serves an old row for two minutes. The fields are bytes, as
they are sent: a hit is not to spend time on them.
"""

from typing import Any

from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

ROW = (b"cache-control", b"no-cache")
PERSONAL = (b"cache-control", b"private, no-cache")
UNKEPT = (b"cache-control", b"no-store")


class UnkeptJSON(JSONResponse):
    """What an operator asks, as JSON: it is of this moment."""

    def __init__(self, content: Any, status_code: int = 200, **more: Any) -> None:
        super().__init__(content, status_code, **more)
        self.raw_headers.append(UNKEPT)


class Document:
    """Wraps an application that answers documents."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], ROW]
            await send(message)

        await self._app(scope, receive, send_marked)
