"""The checks before a request is routed. A pure ASGI middleware: it costs microseconds.

HEAD    is handled as GET; the server withholds the body
a URL   whose bytes are not UTF-8 is refused: it would be read as another one, with replacement characters
a body  that is compressed is refused: it would be read as if it were not
a body  that is too large is refused: at once if its length is declared, else when it exceeds the limit. A body of many
        views may be larger. But parsing JSON blocks the event loop for a time that depends on its parts (`parts.py`),
        and all large bodies together share a budget (`body_budget.py`)

FastAPI's own `max_body_size` does not help: it lets a call that reads no body run to its end, and then answers 413
instead of the result.
"""

from collections.abc import Awaitable
from urllib.parse import unquote_to_bytes

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.header_fields import header_fields
from app.routers.body_budget import BodyBudget
from app.routers.codings import unknown_coding
from app.routers.parts import Parts
from app.routers.problems import problem
from app.settings import Settings

MANY = "/page-views"
"""The path that accepts a larger body with POST."""
WITHOUT_BODY = frozenset({"1.0", "1.1"})
"""The versions of HTTP in which a request that declares no body has none (RFC 9112, section 6.3)."""


class Edge:
    """The middleware that does the checks."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._ordinary, self._many = settings.body_bytes, settings.batch_bytes
        self._least = min(self._ordinary, self._many)
        self._budget = BodyBudget(settings.bodies_bytes)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        # Not `async`, which would cost each request another coroutine.
        if scope["type"] != "http":
            return self._app(scope, receive, send)
        if scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        url = scope.get("raw_path", b"") + b"?" + scope["query_string"]
        if (b"%" in url or not url.isascii()) and not _is_utf8(url):
            return problem(400, "unreadable", "The URL is not UTF-8.")(scope, receive, send)
        headers = header_fields(scope)
        length = headers.get(b"content-length", b"0")
        if length == b"0" and b"transfer-encoding" not in headers and scope["http_version"] in WITHOUT_BODY:
            return self._app(scope, receive, send)
        # The server has checked its form, and enforces the declared length.
        declared = int(length) if length.isdigit() else 0
        if declared > self._least and declared > (most := self._most(scope)):
            return problem(413, "content-too-large", _too_large(most))(scope, receive, send)
        if (b"transfer-encoding" in headers or b"content-encoding" in headers) and (
            refusal := unknown_coding(scope["method"], scope["headers"], headers)
        ):
            return refusal(scope, receive, send)
        return self._with_body(scope, receive, send)

    def _most(self, scope: Scope) -> int:
        path: str = scope["path"]
        many = scope["method"] == "POST" and path.removeprefix(scope.get("root_path", "")) == MANY
        return self._many if many else self._ordinary

    async def _with_body(self, scope: Scope, receive: Receive, send: Send) -> None:
        size = charged = 0
        parts = Parts()

        async def receive_limited() -> Message:
            nonlocal size, charged
            message = await receive()
            body: bytes = message.get("body", b"")
            size += len(body)
            if size > self._least:
                if size > (most := self._most(scope)):
                    raise HTTPException(413, _too_large(most))
                parts.count(body)
                self._budget.charge(size - self._least - charged)
                charged = size - self._least
            return message

        try:
            await self._app(scope, receive_limited, send)
        finally:
            self._budget.release(charged)


def _too_large(most: int) -> str:
    return f"The body is larger than {most:,} bytes."


def _is_utf8(url: bytes) -> bool:
    try:
        unquote_to_bytes(url).decode()
    except UnicodeDecodeError:
        return False
    return True
