"""A connection whose POSTs may have an Idempotency-Key, and a way to kill the service at its other end."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from tests.keep_alive import Answer, KeepAlive
from tests.process_tree import ProcessTree
from tests.service import Service

HUNG_UP = (asyncio.IncompleteReadError, ConnectionError)
"""Raised when the other end is gone: the request may or may not have been carried out."""


class Keyed(KeepAlive):
    """A connection that stays open between requests."""

    async def post(self, path: str, body: object, *, key: str | None = None) -> Answer:
        """Sends a POST, and reads its answer."""
        content = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nhost: {self._host}\r\ncontent-type: application/json\r\n"
        if key is not None:
            head += f"idempotency-key: {key}\r\n"
        self._writer.write(f"{head}content-length: {len(content)}\r\n\r\n".encode() + content)
        await self._writer.drain()
        return await self.answer()


@asynccontextmanager
async def keyed(service: Service, number: int) -> AsyncIterator[list[Keyed]]:
    """Yields `number` connections to a service. They are closed at the end."""
    async with AsyncExitStack() as stack:
        connections = [await Keyed.to(service.url) for _ in range(number)]
        for connection in connections:
            stack.push_async_callback(connection.close)
        yield connections


async def kill(service: Service) -> None:
    """Kills every process of the application with SIGKILL, the supervisor first, so that it replaces no worker."""
    tree = ProcessTree.of(service.process.pid)
    for process in tree.alive():
        process.kill()
    await tree.gone()
    await service.ended()
