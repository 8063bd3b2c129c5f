"""Proxies in front of the bus ports of a cluster's nodes: they cut a node off from the others, but not from clients.

    node A  →  proxy of B  →  bus of B

Each node sends its own messages on its own connections, and each message names its sender. So a proxy knows both ends.
"""

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Self

SENDER = slice(40, 80)
"""Where the header of a message has the id of its sender."""


class ClusterBus:
    """The proxies of one cluster."""

    @classmethod
    @asynccontextmanager
    async def opened(cls) -> AsyncIterator[Self]:
        """Closes all proxies at the end of the block."""
        bus = cls()
        async with bus._stack:
            yield bus

    def __init__(self) -> None:
        self._stack = AsyncExitStack()
        self._cut: set[str] = set()
        self._links: dict[StreamWriter, tuple[str, str]] = {}

    async def port_of(self, node: "asyncio.Future[str]", bus_port: int) -> int:
        """Starts the proxy of one node, and returns its port. `node` is the future of the node's id."""
        running: set[asyncio.Task[None]] = set()

        def accepted(reader: StreamReader, writer: StreamWriter) -> None:
            running.add(task := asyncio.create_task(self._link(reader, writer, node, bus_port)))
            task.add_done_callback(running.discard)

        async def close() -> None:
            server.close()
            for task in list(running):
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            await server.wait_closed()

        server = await asyncio.start_server(accepted, "127.0.0.1", 0)
        self._stack.push_async_callback(close)
        return int(server.sockets[0].getsockname()[1])

    def cut_off(self, node: str) -> None:
        """Ends all links from and to this node, and every new one."""
        self._cut.add(node)
        for writer, ends in self._links.items():
            if node in ends:
                writer.transport.abort()

    def rejoin(self, node: str) -> None:
        """Lets new links from and to this node live."""
        self._cut.discard(node)

    async def _link(self, reader: StreamReader, writer: StreamWriter, node: "asyncio.Future[str]", port: int) -> None:
        try:
            first = await reader.readexactly(SENDER.stop)
            ends = first[SENDER].decode(), await node
            if self._cut.intersection(ends):
                return
            there, here = await asyncio.open_connection("127.0.0.1", port)
            self._links[writer] = ends
            here.write(first)
            try:
                await asyncio.gather(_pump(reader, here), _pump(there, writer))
            finally:
                here.transport.abort()
        except (OSError, EOFError):
            pass  # A link that has ended: its node makes another one.
        finally:
            self._links.pop(writer, None)
            writer.transport.abort()


async def _pump(reader: StreamReader, writer: StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    raise EOFError
