"""What has to be settled before a request is routed. A pure ASGI middleware: it costs microseconds.

HEAD    is a GET whose body is not sent
a URL   whose bytes are not UTF-8 is refused: it would be read as another one, with replacement characters
"""

from urllib.parse import unquote_to_bytes

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.routers.problems import problem


class Edge:
    """Wraps the application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        head = scope["method"] == "HEAD"

        async def send_headers(message: Message) -> None:
            if message["type"] == "http.response.body":
                if message.get("more_body", False):
                    return
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        send_on: Send = send_headers if head else send
        if head:
            scope = {**scope, "method": "GET"}
        if b"%" in scope.get("raw_path", b"") + scope["query_string"] and not _is_utf8(scope):
            refusal = problem(400, "unreadable", "The URL is not UTF-8.")
            await refusal(scope, receive, send_on)
            return
        await self._app(scope, receive, send_on)


def _is_utf8(scope: Scope) -> bool:
    try:
        unquote_to_bytes(scope["raw_path"]).decode()
        unquote_to_bytes(scope["query_string"]).decode()
    except UnicodeDecodeError:
        return False
    return True
