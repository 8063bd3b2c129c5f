"""How a connection refuses a request, and closes before its client does.

    a refusal       replaces the application's answer, in the request's turn; input after it is ignored
    a client        that takes too long is refused, or disconnected

What can go wrong: the application has already begun with the refused request. It sees that the client has disconnected,
and its answer is dropped.
"""

from datetime import timedelta
from typing import Any

from app.connections import Connections
from app.flow import Flow
from app.no_request import TOO_SLOW
from app.settings import Settings
from app.speed.one_write import OneWrite


class Refusing(OneWrite):
    """One connection. Its subclass maintains the state of the request."""

    flow: Flow
    _among: Connections
    _most: Settings
    _since: float
    """When the current state began, as of the last tick."""
    _held: bytes
    """Bytes that wait for the end of an answer, or for their turn."""
    _deaf: bool
    """Whether further input is ignored."""
    _ended: bool
    """Whether the client has ended its stream."""
    _closes: bool
    """Whether a check has found the connection closing."""
    _unfinished: bool
    """Whether a request has begun and is incomplete."""
    _in_head: bool
    """Whether its head is incomplete, too."""
    url: bytes

    def _refuse(self, refusal: Any) -> None:
        """Sends the refusal in place of the application's answer, in the request's turn, and ignores further input."""
        if self._deaf:
            return  # One refusal is enough. The parser may reach the next fault before it can be stopped.
        self._deaf = True
        if self._unfinished and not self._in_head:
            if self.pipeline:  # The application has not seen it yet.
                self.pipeline[0] = (self.cycle, refusal)
                self.cycle.keep_alive = self.cycle.more_body = False
                return
            if not self._give_up():
                return
        app, named = self.app, self.url
        super().on_message_begin()
        self.url, self.app = b"/", refusal
        super().on_headers_complete()
        self.app = app
        if not named:  # The parser still has the method of the request before, which may be HEAD.
            self.scope["method"] = "GET"
        self.cycle.keep_alive = self.cycle.more_body = False

    def _give_up(self) -> bool:
        """Tells the application that the rest of a body will not come. Returns False if it has begun to answer."""
        cycle = self.cycle
        if cycle.response_complete:
            self.transport.close()
        elif cycle.response_started:
            self.transport.abort()
        else:
            cycle.disconnected, self.cycle = True, None  # type: ignore[assignment]  # as it is at the beginning
            cycle.message_event.set()
        return self.cycle is None

    def _is_answering(self) -> bool:
        if self.pipeline or self.cycle is None:
            return bool(self.pipeline)
        return not (self.cycle.response_complete or self.cycle.more_body)

    def _lingers(self) -> bool:
        """Ignores further input, because the connection is closing. Returns True if it should linger: the client may
        still be sending."""
        lingers = (self._deaf or self._unfinished or bool(self._held)) and not self._ended
        self._deaf, self._held = True, b""
        return lingers and self._among.may_linger(self)

    def look(self, now: float, tick: float) -> None:
        """Ends what takes too long."""
        most, closes = self._most, self.transport.is_closing()
        if closes and not self._closes:
            self._closes, self._since = True, now
        waited = timedelta(seconds=now - self._since - tick)
        if closes or self.flow.write_paused:
            if waited > most.body_timeout:
                self.transport.abort()
        elif self._is_answering():
            return
        elif self._unfinished and not self._deaf:
            if waited > (most.header_timeout if self._in_head else most.body_timeout):
                self._refuse(TOO_SLOW)
        elif waited > most.keep_alive:
            self.transport.close()

    def abort(self) -> None:
        """Ends the connection now."""
        self.transport.abort()
