"""What has to be settled before a request is routed. A pure ASGI middleware: it costs microseconds.

HEAD    is a GET; the server keeps its body back
a URL   whose bytes are not UTF-8 is refused: it would be read as another one, with replacement characters
a body  that is compressed is refused, for it would be read as if it were not
a body  that is too large is refused: at once when its length is declared, else when it has grown too large. Of many
        views it may be larger; but what is read as JSON holds everyone up, and takes time by its parts

FastAPI's own `max_body_size` will not do: it lets a call that reads no body run to its end, and then answers 413 in
place of what was done.
"""

from collections.abc import Mapping
from urllib.parse import unquote_to_bytes

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.routers.codings import unknown_coding
from app.routers.problems import problem
from app.settings import Settings

MANY = "/page-views"
"""What takes a larger body with POST."""
PARTS: Mapping[str, tuple[tuple[bytes, ...], int]] = {
    "lists and objects": ((b"[", b"{"), 32_768),
    "quotation marks": ((b'"',), 80_000),
    "commas": ((b",",), 262_144),
}
"""How often a large body may have which bytes. 10,000 views have 10,000, 60,000 and 20,000, and what is in their
pages. So much is read within 50 ms, where 4 MB of nothing but lists take a second."""


class Edge:
    """Wraps the application."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._ordinary, self._many = settings.body_bytes, settings.batch_bytes
        self._least = min(self._ordinary, self._many)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        fields: dict[bytes, bytes] = dict(scope["headers"])
        declared = _declared_length(fields)
        if not _is_utf8(scope):
            refusal = problem(400, "unreadable", "The URL is not UTF-8.")
            await refusal(scope, receive, send)
        elif declared > self._least and declared > (most := self._most(scope)):
            refusal = problem(413, "content-too-large", _too_large(most))
            await refusal(scope, receive, send)
        elif (b"transfer-encoding" in fields or b"content-encoding" in fields) and (
            coded := unknown_coding(scope["method"], scope["headers"], fields)
        ):
            await coded(scope, receive, send)
        else:
            await self._app(scope, self._limited(scope, receive), send)

    def _most(self, scope: Scope) -> int:
        path: str = scope["path"]
        many = scope["method"] == "POST" and path.removeprefix(scope.get("root_path", "")) == MANY
        return self._many if many else self._ordinary

    def _limited(self, scope: Scope, receive: Receive) -> Receive:
        size = 0
        counts: dict[str, int] = {}

        async def receive_limited() -> Message:
            nonlocal size
            message = await receive()
            body: bytes = message.get("body", b"")
            size += len(body)
            if size > self._least:
                if size > (most := self._most(scope)):
                    raise HTTPException(413, _too_large(most))
                _count(body, counts)
            return message

        return receive_limited


def _count(body: bytes, counts: dict[str, int]) -> None:
    for what, (marks, most) in PARTS.items():
        counts[what] = counts.get(what, 0) + sum(map(body.count, marks))
        if counts[what] > most:
            raise HTTPException(413, f"The body has more than {most:,} {what}.")


def _too_large(most: int) -> str:
    return f"The body is larger than {most:,} bytes."


def _is_utf8(scope: Scope) -> bool:
    url = scope.get("raw_path", b"") + b"?" + scope["query_string"]
    if b"%" not in url and url.isascii():
        return True
    try:
        unquote_to_bytes(url).decode()
    except UnicodeDecodeError:
        return False
    return True


def _declared_length(fields: Mapping[bytes, bytes]) -> int:
    # The server has checked its form, and counts what really comes.
    length = fields.get(b"content-length", b"0")
    return int(length) if length.isdigit() else 0
