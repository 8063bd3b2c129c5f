"""A client's connection through a wire, to the server and back."""

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from tests.faults.conversation import Conversation
from tests.faults.end import End

if TYPE_CHECKING:
    from tests.faults.wire import Upstream, Wire


class Passage:
    """The two ends of a connection. It lasts until both are lost."""

    def __init__(self, wire: "Wire", conversation: Conversation, to: "Upstream | None") -> None:
        self.wire, self._to = wire, to
        self.client = End(self, conversation.asked, wire.halts_command)
        self.server = End(self, conversation.answered, wire.halts_answer)
        self.client.other, self.server.other = self.server, self.client
        self.ended = asyncio.Event()
        self._connecting = asyncio.create_task(self._connect())

    def cut(self) -> None:
        """Ends the connection now. What is in flight is lost."""
        self.client.abort()
        self.server.abort()

    def mute(self) -> None:
        """Keeps all further answers from the client."""
        self.server.muted = True

    def hang_up(self, end: End) -> None:
        """Tells this end that the other one has closed."""
        assert end.transport is not None
        if end is self.client:
            end.transport.close()
        else:
            # Not closed: over TCP, an answer that arrives at a closed socket would discard what the server has not read
            # yet. The server closes its side when it has read everything.
            with suppress(OSError):  # It has hung up, too, and the loop has not noticed yet.
                end.transport.write_eof()

    def end(self) -> None:
        """Marks the connection as over: both ends are lost."""
        self.ended.set()
        self.wire.forget(self)

    async def _connect(self) -> None:
        try:
            if not self.server.aborted:
                await self.wire.connect(self.server, self._to)
        except OSError:
            pass  # As if the server had hung up.
        if self.server.transport is None:
            self.server.connection_lost(None)
