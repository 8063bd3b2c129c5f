"""uvicorn's own HTTP, whose answers leave in one write each.

    uvicorn      head: write · body: write      two system calls, and each may wake the client
    here         head, body: write              what is written in one tick of the event loop leaves together

Two fifths of what a hit costs over HTTP are spent in those two calls. `fourways serve` uses it, below
`HttpConnection`; the command line of uvicorn knows no class but its own.

What can go wrong: what is held must leave before the connection ends, and before it is much. So it is sent at the end
of the tick at the latest, before a close, before the other side's end is acted upon, and from `LARGEST` on at once:
else a stream would never meet the pause that uvicorn asks for when the client does not read.
"""

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LARGEST = 65_536
"""Bytes from which on nothing waits for the end of the tick."""


class OneWrite(HttpToolsProtocol):
    """One connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Puts the joining transport before the real one."""
        self._joined = self.join(transport)
        super().connection_made(cast("asyncio.Transport", self._joined))

    def join(self, transport: asyncio.Transport) -> "Joined":
        """The joining transport."""
        return Joined(transport)

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """The client has said all. After this the real transport closes itself, and asks nobody:

        the answer is written, and held
                                            the client's end is read, and the transport closes
        what is held is dropped
        """
        self._joined.flush()
        return None


class Joined:
    """A transport whose writes of one tick become one. All else is the other transport's."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._held: list[bytes] = []
        self._size = 0
        self._loop = asyncio.get_running_loop()

    def write(self, data: bytes) -> None:
        """Sends it at the end of this tick, or at once with all that is held, if that is much."""
        if not self._held:
            self._loop.call_soon(self.flush)
        self._held.append(data)
        self._size += len(data)
        if self._size >= LARGEST:
            self.flush()

    def close(self) -> None:
        """Sends what is held, and closes."""
        self.flush()
        self._transport.close()

    def is_closing(self) -> bool:
        """Whether nothing can be written any more."""
        return self._transport.is_closing()

    def flush(self) -> None:
        """Sends what is held."""
        held, self._held, self._size = self._held, [], 0
        if held and not self.is_closing():
            self._transport.write(b"".join(held))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
