"""What has to be settled before a request is routed. A pure ASGI middleware: it costs microseconds.

HEAD    is a GET; the server keeps its body back
a URL   whose bytes are not UTF-8 is refused: it would be read as another one, with replacement characters
a body  that is too large is refused: at once when its length is declared, else when it has grown too large

FastAPI's own `max_body_size` will not do: it lets a call that reads no body run to its end, and then answers 413 in
place of what was done.
"""

from urllib.parse import unquote_to_bytes

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.routers.problems import problem

LARGEST_BODY = 4 * 1024 * 1024
TOO_LARGE = f"The body is larger than {LARGEST_BODY:,} bytes."


class Edge:
    """Wraps the application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        if not _is_utf8(scope):
            refusal = problem(400, "unreadable", "The URL is not UTF-8.")
            await refusal(scope, receive, send)
        elif _declared_length(scope) > LARGEST_BODY:
            refusal = problem(413, "content-too-large", TOO_LARGE)
            await refusal(scope, receive, send)
        else:
            await self._app(scope, _limited(receive), send)


def _is_utf8(scope: Scope) -> bool:
    url = scope.get("raw_path", b"") + b"?" + scope["query_string"]
    if b"%" not in url and url.isascii():
        return True
    try:
        unquote_to_bytes(url).decode()
    except UnicodeDecodeError:
        return False
    return True


def _declared_length(scope: Scope) -> int:
    # The server has checked its form, and counts what really comes.
    length: bytes = dict(scope["headers"]).get(b"content-length", b"0")
    return int(length) if length.isdigit() else 0


def _limited(receive: Receive) -> Receive:
    size = 0

    async def receive_limited() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > LARGEST_BODY:
            raise HTTPException(413, TOO_LARGE)
        return message

    return receive_limited
