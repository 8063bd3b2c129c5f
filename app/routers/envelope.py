"""The outermost middleware: what a proxy adds to a request, and what it gets with the answer.

    a prefix        the path below which a proxy serves this service. It is taken off the path, so that all else sees
                    the same paths as without a proxy, and put before links: in Location, `/`, and the documents
    a request id    is answered as it was sent, and stands in each line of the log (`request_id.py`)
    an access log   one line for each request, if FOURWAYS_ACCESS_LOG is set

The operator sets the prefix (FOURWAYS_ROOT_PATH, or the server's root path), or a proxy that strips it says so in
X-Forwarded-Prefix. What the operator has set comes first.

What can go wrong: any client can send X-Forwarded-Prefix. So it must be a plain path, which leads to no other host; it
is never taken off a path, which would lead past rules of the proxy about paths; and a document that has it in its links
says so in `Vary`.
"""

import logging
import time
from collections.abc import Awaitable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.header_fields import header_fields
from app.log_lines import ACCESS
from app.plain_path import plain_path
from app.request_id import CURRENT, HEADER, sent_id
from app.settings import Settings

logger = logging.getLogger(ACCESS)

FORWARDED = b"x-forwarded-prefix"
VARY = (b"vary", FORWARDED)
PREFIX = "fourways.prefix"
"""Where the prefix stands in the scope, if there is one."""


class Envelope:
    """The middleware."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._prefix, self._logs = settings.root_path, settings.access_log
        self._always = bool(self._prefix) or self._logs

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        # Not `async`, which would cost each request another coroutine. Most of them need no more than the first lines.
        if scope["type"] != "http":
            return self._app(scope, receive, send)
        CURRENT.set(scope)
        headers = header_fields(scope)
        if not (self._always or HEADER in headers or FORWARDED in headers or scope.get("root_path")):
            return self._app(scope, receive, send)
        asked = scope
        if prefix := self._prefix or scope.get("root_path", "").rstrip("/"):
            scope = _without(prefix, scope)
        else:
            prefix = plain_path(headers.get(FORWARDED, b"").decode("latin-1")) or ""
        if prefix:
            scope = {**scope, PREFIX: prefix}
        return self._enveloped(scope, receive, send, asked, prefix.encode(), sent_id(headers))

    async def _enveloped(
        self, scope: Scope, receive: Receive, send: Send, asked: Scope, prefix: bytes, sent: bytes | None
    ) -> None:
        began, status = time.perf_counter(), 0

        async def send_enveloped(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [(name, _linked(prefix, name, value)) for name, value in message["headers"]]
                if sent is not None:
                    headers.append((HEADER, sent))
                message = {**message, "headers": headers}
            await send(message)

        try:
            await self._app(scope, receive, send_enveloped)
        except Exception:
            status = status or 500  # It is answered outside of us.
            raise
        finally:
            if self._logs:
                _log(asked, status, time.perf_counter() - began)


def _without(prefix: str, scope: Scope) -> Scope:
    """Returns the scope without the prefix. Some proxies have stripped it, and some have not."""
    path: str = scope["path"]
    if path == prefix or path.startswith(f"{prefix}/"):
        raw = scope.get("raw_path", b"").removeprefix(prefix.encode()) or b"/"
        scope = {**scope, "path": path.removeprefix(prefix) or "/", "raw_path": raw}
    return {**scope, "root_path": ""}


def _linked(prefix: bytes, name: bytes, value: bytes) -> bytes:
    return prefix + value if name == b"location" and value.startswith(b"/") else value


def _log(scope: Scope, status: int, took: float) -> None:
    # As it was sent: without control characters. A query may hold what is nobody's business.
    path = scope.get("raw_path", b"").decode("latin-1") or scope["path"]
    fields = {"method": scope["method"], "path": path, "status": status or None, "ms": round(took * 1000, 3)}
    logger.info(
        "%s %s %s %.3f ms", scope["method"], path, status or "unanswered", took * 1000, extra={"access": fields}
    )
