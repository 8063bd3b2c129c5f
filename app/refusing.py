"""How a connection refuses a request, and ends before its client does.

    a refusal       takes the place of the application's answer, in the request's turn, and then nothing more is heard
    a client        that takes too long is refused, or left

What can go wrong: the application has begun with the request that is refused. It is told that the client has gone, and
its answer is dropped.
"""

from datetime import timedelta
from typing import Any

from app.connections import Connections
from app.flow import Flow
from app.no_request import TOO_SLOW
from app.settings import Settings
from app.speed.one_write import OneWrite


class Refusing(OneWrite):
    """One connection. What is known of the request is its subclass's."""

    flow: Flow
    _among: Connections
    _most: Settings
    _since: float
    """When what it does now began, by the time of the last tick."""
    _held: bytes
    """What waits for the end of an answer, or for its turn."""
    _deaf: bool
    """Nothing more is heard."""
    _ended: bool
    """The client has said all."""
    _closes: bool
    """It has been seen closing."""
    _unfinished: bool
    """A request has begun, and is not there as a whole."""
    _in_head: bool
    """Nor is its head."""
    url: bytes

    def _refuse(self, refusal: Any) -> None:
        """Answers so, in the application's place, when it is this request's turn, and hears nothing more."""
        if self._deaf:
            return  # One refusal is enough: the parser may go on to the next fault before it can be stopped.
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
        """Lets the application know that the rest of a body will not come. False if it has begun to answer."""
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
        """It is about to close: nothing more is heard. True if the client may be sending yet."""
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
        """Ends it now."""
        self.transport.abort()
