"""uvicorn's HTTP protocol, with one write per answer.

    uvicorn      head: write · body: write      two system calls, each of which may wake the client
    here         head, body: write              what is written in one tick of the event loop is sent together

Those two calls take two fifths of the cost of a hit over HTTP. `fourways serve` uses this class, as the base of
`HttpConnection`; uvicorn's command line accepts only its own classes.

What can go wrong: held bytes must be sent before the connection ends, and before there are many. So they are sent at
the end of the tick at the latest, before a close, before the client's end of stream is handled, and at once from
`LARGEST` bytes on. Otherwise a stream would never see the pause that uvicorn requests when the client does not read.
"""

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LARGEST = 65_536
"""The number of held bytes from which on they are sent without waiting for the end of the tick."""


class OneWrite(HttpToolsProtocol):
    """One connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wraps the real transport in the joining one."""
        self._joined = self.join(transport)
        super().connection_made(cast("asyncio.Transport", self._joined))

    def join(self, transport: asyncio.Transport) -> "Joined":
        """Creates the joining transport."""
        return Joined(transport)

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """Sends what is held. The client has ended its stream, and after this call the real transport closes itself:

        the answer is written, and held
                                            the client's end is read, and the transport closes
        the held answer is dropped
        """
        self._joined.flush()
        return None


class Joined:
    """A transport that joins the writes of one tick into one. It delegates everything else to the wrapped transport."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._held: list[bytes] = []
        self._size = 0
        self._loop = asyncio.get_running_loop()

    def write(self, data: bytes) -> None:
        """Holds the data until the end of this tick, or sends all that is held at once if that reaches `LARGEST`."""
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
        """Whether the transport accepts no more writes."""
        return self._transport.is_closing()

    def flush(self) -> None:
        """Sends what is held."""
        held, self._held, self._size = self._held, [], 0
        if held and not self.is_closing():
            self._transport.write(b"".join(held))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
