"""How a connection refuses a request, and ends.

    a refusal       takes the place of the application's answer, in the request's turn, and then nothing more is heard
    the end         of the service refuses what has not come as a whole, and waits for no client; what has is answered

What can go wrong: the application has begun with the request that is refused. It is told that the client has gone, and
its answer is dropped.
"""

from typing import Any

from app.no_request import ENDING
from app.one_write import OneWrite


class Refusing(OneWrite):
    """One connection. What is known of the request is its subclass's."""

    _deaf: bool
    """Nothing more is heard."""
    _unfinished: bool
    """A request has begun, and is not there as a whole."""
    _in_head: bool
    """Nor is its head."""
    url: bytes

    def shutdown(self) -> None:
        """The service ends."""
        if self._unfinished and not self._deaf:
            self._refuse(ENDING)
        else:
            super().shutdown()

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
