"""A transport that can end its own half first.

    the client sends, and has not read · a refusal is written, and the connection closed
    the client's next bytes find nobody, and the system answers them with a reset, which drops what is not read yet

So what is written leaves, then our end; and the connection closes when the client has ended, too, or after `LINGER`.
"""

import asyncio
from collections.abc import Callable
from datetime import timedelta

from app.speed.one_write import Joined

LINGER = timedelta(seconds=2)


class Lingering(Joined):
    """It asks `lingers` at its close whether the client may be sending yet."""

    def __init__(self, transport: asyncio.Transport, lingers: Callable[[], bool]) -> None:
        super().__init__(transport)
        self._lingers = lingers
        self._lingering: bool = False

    def close(self) -> None:
        """Sends what is held, and closes, at once or as said above."""
        if self.is_closing():
            return
        if not self._lingers():
            super().close()
            return
        self.flush()
        self._lingering = True
        self._transport.write_eof()
        self._transport.resume_reading()
        self._loop.call_later(LINGER.total_seconds(), self._transport.abort)

    def is_closing(self) -> bool:
        """Whether nothing can be written any more."""
        return self._lingering or self._transport.is_closing()
