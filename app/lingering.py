"""A transport that can close its own half first.

    the client sends, and has not read · a refusal is written, and the connection closed
    the client's next bytes reach a closed socket; the kernel answers with a reset, which drops what is not read yet

So the transport sends what is written, then its end of stream. The connection closes when the client has ended, too, or
after `LINGER`.
"""

import asyncio
from collections.abc import Callable
from datetime import timedelta

from app.speed.one_write import Joined

LINGER = timedelta(seconds=2)


class Lingering(Joined):
    """On close, it calls `lingers` to learn whether the client may still be sending."""

    def __init__(self, transport: asyncio.Transport, lingers: Callable[[], bool]) -> None:
        super().__init__(transport)
        self._lingers = lingers
        self._lingering: bool = False

    def close(self) -> None:
        """Sends what is held, and closes, either at once or after lingering."""
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
        """Whether the transport accepts no more writes."""
        return self._lingering or self._transport.is_closing()
