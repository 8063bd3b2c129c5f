"""A port on this machine that refuses connections, or accepts them, and never belongs to anybody else meanwhile."""

import asyncio
import contextlib
import socket
from collections.abc import Callable

HOST = "127.0.0.1"
CROWD = 1000
"""How many clients may try to connect at the same time."""


class Door:
    """Refuses connections until it is opened. `accepted` makes the protocol of each connection."""

    def __init__(self, accepted: Callable[[], asyncio.Protocol]) -> None:
        self._accepted = accepted
        # It never listens: while no other socket does, the system refuses connections, and gives the port to nobody.
        self._holder = _bound(0)
        self.port = int(self._holder.getsockname()[1])
        self._listener: socket.socket | None = None
        self._connecting: set[asyncio.Task[object]] = set()

    def open(self) -> None:
        """Accepts connections from now on."""
        if self._listener is None:
            self._listener = _bound(self.port)
            self._listener.setblocking(False)
            self._listener.listen(CROWD)
            asyncio.get_running_loop().add_reader(self._listener, self._accept, self._listener)

    def shut(self) -> None:
        """Refuses connections from now on."""
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    async def close(self) -> None:
        """Gives the port back."""
        self.shut()
        self._holder.close()
        await asyncio.gather(*self._connecting, return_exceptions=True)

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):  # The client has given up.
            client, _ = listener.accept()
            client.setblocking(False)
            loop = asyncio.get_running_loop()
            connecting = loop.create_task(loop.connect_accepted_socket(self._accepted, client))
            self._connecting.add(connecting)
            connecting.add_done_callback(self._connecting.discard)


def _bound(port: int) -> socket.socket:
    """Returns a socket at this port, which others of ours may share."""
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind((HOST, port))
    return bound
