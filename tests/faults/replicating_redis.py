"""A Redis that can be a replica: it listens on a port, for another one to follow it, and on a unix socket."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.embedded.binaries import redis_program
from tests.eventually import PATIENCE, eventually
from tests.open_directory import open_directory
from tests.service import free_port


class ReplicatingRedis:
    """A Redis that keeps nothing on disk."""

    @classmethod
    @asynccontextmanager
    async def started(cls) -> AsyncIterator[Self]:
        """Runs it as a primary until the block ends."""
        with open_directory() as directory:
            redis = cls(str(directory / "redis.sock"), free_port())
            options = {"port": str(redis.port), "bind": "127.0.0.1", "unixsocket": redis.socket, "save": ""}
            options["repl-diskless-sync"], options["repl-diskless-sync-delay"] = "yes", "0"
            words = [word for name, value in options.items() for word in (f"--{name}", value)]
            process = await asyncio.create_subprocess_exec(
                redis_program("server"), *words, cwd=directory, stdout=asyncio.subprocess.DEVNULL
            )
            try:
                await eventually(redis._answers)
                yield redis
            finally:
                process.terminate()
                await asyncio.wait_for(process.wait(), PATIENCE)

    def __init__(self, socket: str, port: int) -> None:
        self.socket, self.port = socket, port
        self.url = f"unix://{socket}"

    async def follow(self, primary: Self) -> None:
        """Makes it a replica, and returns when it is in sync. Its clients stay connected."""
        async with Redis.from_url(self.url) as redis:
            await redis.replicaof("127.0.0.1", str(primary.port))

            async def is_level() -> bool:
                return bool((await redis.info("replication"))["master_link_status"] == "up")

            await eventually(is_level)

    async def lead(self) -> None:
        """Makes it a primary."""
        async with Redis.from_url(self.url) as redis:
            await redis.replicaof("NO", "ONE")

    async def _answers(self) -> bool:
        async with Redis.from_url(self.url) as redis:
            try:
                return bool(await redis.ping())
            except (RedisError, OSError):
                return False
