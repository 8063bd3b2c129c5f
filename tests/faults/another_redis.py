"""One more Redis, of the kind that the application embeds."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.embedded.home import make_home
from app.embedded.redis_server import SOCKET, RedisServer
from tests.open_directory import open_directory


@asynccontextmanager
async def another_redis() -> AsyncIterator[str]:
    """Starts an empty Redis, and yields its URL. It stops when the block ends."""
    with open_directory() as directory:
        server = RedisServer(make_home(directory / "redis", SOCKET), directory / "redis.log")
        await asyncio.to_thread(server.start)
        try:
            yield server.url
        finally:
            await asyncio.to_thread(server.stop)
