"""uvicorn's own HTTP, whose answers leave in one write each.

    uvicorn      head: write · body: write      two system calls, and each may wake the client
    here         head, body: write              what is written in one tick of the event loop leaves together

Two fifths of what a hit costs over HTTP are spent in those two calls. `fourways serve` uses it; the command line of
uvicorn knows no class but its own.

What can go wrong: nothing is held longer than to the end of the tick, so what is streamed leaves as before.
"""

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class OneWrite(HttpToolsProtocol):
    """One connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Puts the joining transport before the real one."""
        super().connection_made(cast("asyncio.Transport", Joined(transport)))


class Joined:
    """A transport whose writes of one tick become one. All else is the other transport's."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._held: list[bytes] = []
        self._loop = asyncio.get_running_loop()

    def write(self, data: bytes) -> None:
        """Sends it at the end of this tick."""
        if not self._held:
            self._loop.call_soon(self._send)
        self._held.append(data)

    def close(self) -> None:
        """Sends what is held, and closes."""
        self._send()
        self._transport.close()

    def _send(self) -> None:
        held, self._held = self._held, []
        if held and not self._transport.is_closing():
            self._transport.write(b"".join(held))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
