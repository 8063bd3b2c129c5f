"""One end of a connection through a wire: the client's, or the server's."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, cast

from tests.faults.message import HANG_UP, Message

if TYPE_CHECKING:
    from tests.faults.passage import Passage


class End(asyncio.Protocol):
    """A queue of what arrives at this end. It leaves at the other end as soon as nothing holds it up.

    There is no task and no limit: everything that is held up is kept.
    """

    other: "End"

    def __init__(
        self,
        passage: "Passage",
        read: Callable[[bytes], Iterable[Message]],
        halts: Callable[["Passage", Message], bool],
    ) -> None:
        self.transport: asyncio.Transport | None = None
        self.lost = False
        self.aborted = False
        self.muted = False
        self._passage = passage
        self._read = read
        self._halts = halts
        self._line: deque[tuple[float, Message]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        if self.aborted:
            self.transport.abort()
        self.other.advance()

    def data_received(self, data: bytes) -> None:
        came = self._loop.time()
        self._line.extend((came, message) for message in self._read(data))
        self.advance()

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        self._line.append((self._loop.time(), HANG_UP))
        self.advance()
        self.other.advance()
        if self.other.lost:
            self._passage.end()

    def abort(self) -> None:
        """Closes the connection at once, or as soon as it is made."""
        self.aborted = True
        if self.transport is not None:
            self.transport.abort()

    def advance(self) -> None:
        """Passes on what may pass."""
        if self._timer is not None:
            self._timer.cancel()
        if self.other.lost:
            self._line.clear()
        passed: list[Message] = []
        while self._line and not self._waits(*self._line[0]):
            passed.append(self._line.popleft()[1])
        if passed:
            self.other.take(passed)

    def take(self, messages: list[Message]) -> None:
        """Sends these messages to the peer at this end."""
        if self.transport is None or self.transport.is_closing():
            return
        self.transport.write(b"".join(message.raw for message in messages))
        if messages[-1] is HANG_UP:
            self._passage.hang_up(self)

    def _waits(self, came: float, message: Message) -> bool:
        wire = self._passage.wire
        if self.other.transport is None or self.muted or self.aborted or wire.is_silent:
            return True
        if wire.lateness and came + wire.lateness > self._loop.time():
            self._timer = self._loop.call_at(came + wire.lateness, self.advance)
            return True
        return self._halts(self._passage, message)
