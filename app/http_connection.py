"""One HTTP/1.1 connection of `fourways serve`: uvicorn's protocol with improvements.

    an upgrade      to a protocol that is not supported is ignored, and the body read (RFC 9110, section 7.8)
    a pipeline      is parsed up to the request in flight; reading resumes in its turn, when that is answered
    a head          that is too long, too slow, or not HTTP is refused, after the answers that are due before it
    a half-close    a client that has ended its stream gets its answers before the connection closes

What can go wrong: everything, where answers and requests overlap. So there is at most one request besides the one in
flight, and it waits in uvicorn's own `pipeline`, even if it is refused.
"""

import asyncio
from typing import Any

import httptools
from fastapi.responses import JSONResponse

from app.connections import Connections
from app.flow import Flow
from app.lingering import Lingering
from app.no_request import ENDING, FULL, NO_HTTP, NO_TUNNEL, NO_VERSION
from app.refusing import Refusing
from app.request_head import too_long
from app.request_line import origin_form
from app.speed.one_write import Joined
from app.turns import AT_ONCE
from app.upgrade import without_upgrade

BLANK = b"\r\n\r\n"
SLICE = 4096
"""The most bytes parsed at once. Parsing also stops after a blank line, where another request may begin."""


class HttpConnection(Refusing):
    """One connection."""

    flow: Flow

    def __init__(self, among: Connections, **given: Any) -> None:
        super().__init__(**given)
        self._allow()
        self._among, self._most = among, among.settings
        self._least = min(self._most.url_bytes, self._most.header_bytes)
        """A head of at most this many bytes needs no further check."""
        self._since = among.now
        """When the current state began, as of the last tick."""
        self._held = self.url = b""
        """Bytes that wait for the end of an answer, or for their turn."""
        self._deaf = self._ended = self._closes = False
        """Whether input is ignored · the client has ended its stream · a check has found the connection closing."""
        self._unfinished = self._in_head = False
        """Whether a request has begun and is incomplete · its head is incomplete, too."""
        self._fed = self._unread = 0
        """The number of bytes being parsed, and of earlier ones of the same request that led to no body."""

    def join(self, transport: asyncio.Transport) -> Joined:
        return Lingering(transport, self._lingers)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = Flow(self.transport)
        if not self._among.admit(self):
            self._refuse(FULL)
        self._since = self._among.now

    def connection_lost(self, exc: Exception | None) -> None:
        self._held = b""
        self._among.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._held or len(data) > AT_ONCE:
            if not self._deaf:
                self._hold(self._held + data)  # Data may still arrive: it had been read when reading was paused.
        else:
            self._feed(data)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Handles the end of the client's stream. Returns whether the connection stays open for an answer."""
        self._joined.flush()
        self._ended = True
        if self._unfinished and not (self._in_head or self._deaf):  # The rest of the body will not come.
            if self.pipeline:  # That request has not started. The one being answered is the one before it.
                self.pipeline.popleft()
                self.cycle, self._unfinished, self._deaf = self._before, False, True
                return True
            self._give_up()
        return self._is_answering()

    def pause_writing(self) -> None:
        self._since = self._among.now
        self._among.owes(self)
        super().pause_writing()

    def resume_writing(self) -> None:
        self._since = self._among.now
        if self._is_answering():
            self._among.is_busy(self)
        super().resume_writing()

    def _feed(self, data: bytes) -> None:
        at, end = 0, len(data)
        while at < end and not self._deaf:
            if at >= AT_ONCE or self._is_answering():
                self._hold(data[at:])
                return
            blank = data.find(BLANK, at, at + SLICE)
            stop = min(at + SLICE, end) if blank < 0 else blank + len(BLANK)
            self._parse(data if stop - at == end else data[at:stop])
            at = stop

    def _hold(self, data: bytes) -> None:
        """Holds data until its turn, or until the end of the answer."""
        self._held, self.flow.holds = data, True
        self.flow.pause_reading()
        if not self._is_answering():
            self._among.turns.wait(self)

    def _parse(self, data: bytes) -> None:
        self._fed = len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade()
            if rest := data[upgrade.args[0] :]:
                self._parse(rest)
        except httptools.HttpParserError:
            self._refuse(NO_HTTP)
        if self._unfinished:
            self._unread += self._fed
            self._fed = 0
            if self._unread > self._least:
                self._is_too_long()

    def _is_too_long(self) -> bool:
        """Refuses a request whose head is too long, even if incomplete. The last slice is not counted."""
        if refusal := too_long(self.url, self.headers, self._unread - len(self.url) - SLICE, self._most):
            self._refuse(refusal)
        return self._deaf

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._unfinished = self._in_head = True
        self._unread = 0
        self._since = self._among.now

    def on_headers_complete(self) -> None:
        much = len(self.headers) > self._most.header_count or self._unread + self._fed > self._least
        if much and self._is_too_long():
            return
        if self.parser.should_upgrade():  # The parser stops here, and `_ignore_upgrade` continues.
            return
        if (self.url[:1] != b"/" or self.parser.get_http_version() != "1.1") and (refusal := self._other_line()):
            self._refuse(refusal)
            return
        before = self.cycle
        super().on_headers_complete()
        if self.pipeline:
            self._before = before
        self.headers = []  # Trailers are not header fields of the request (RFC 9110, section 6.5.1).
        self._in_head = False
        self._since = self._among.now

    def _other_line(self) -> JSONResponse | None:
        """Handles an unusual request line. Returns a refusal, or None to accept. A later 1.x is read as 1.1 (RFC 9110,
        section 2.5)."""
        version = self.parser.get_http_version()
        if not version.startswith("1."):
            return NO_VERSION
        if (target := origin_form(self.url, version, self.headers)) is None:
            return NO_HTTP
        self.url = target
        return None

    def on_body(self, body: bytes) -> None:
        self._unread = -self._fed
        if not (self._in_head or self._deaf):
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self._in_head or self._deaf:
            return
        self._unfinished = False
        super().on_message_complete()
        if not self.cycle.response_complete:
            self._among.is_busy(self)

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self._since = self._among.now
        alone = not (self.pipeline or self._held)
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        if not alone and self._is_answering():
            return
        self._among.owes(self)
        if self._held:
            self._among.turns.wait(self)
        elif self._ended:
            self.transport.close()
        else:
            self.flow.resume_reading()

    def read_on(self) -> None:
        """Parses the held bytes: it is this connection's turn."""
        if self._may_read_on():
            held, self._held, self.flow.holds = self._held, b"", False
            self.flow.resume_reading()  # First: parsing may pause it again, as a body does that nothing reads.
            self._feed(held)

    def _may_read_on(self) -> bool:
        return bool(self._held) and not (self._is_answering() or self.transport.is_closing())

    def shutdown(self) -> None:
        """Answers complete requests and refuses an incomplete one, because the service is stopping."""
        while self._may_read_on():
            self.read_on()
        if self._unfinished and not self._deaf:
            self._refuse(ENDING)
        else:
            super().shutdown()

    def _allow(self) -> None:
        """Lets the parser continue after a request that closes, and leave other versions to `_other_line`."""
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True, lenient_version=True)

    def _ignore_upgrade(self) -> None:
        """Parses the head again without its Upgrade. With it, the parser would read no body."""
        method, app = self.parser.get_method(), self.app
        head = without_upgrade(method, self.url, self.parser.get_http_version(), self.headers)
        self.parser = httptools.HttpRequestParser(self)
        self._allow()
        self.app = NO_TUNNEL if method == b"CONNECT" else app
        self._parse(head)
        self.app = app
