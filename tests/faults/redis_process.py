"""A Redis or a Sentinel with a configuration of its own, as one process on a port."""

import asyncio
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.embedded.binaries import redis_program
from tests.eventually import PATIENCE, eventually

PASSWORD = "secret"
"""Of Redis. A Sentinel wants none."""


class RedisProcess:
    """One process."""

    @classmethod
    @asynccontextmanager
    async def started(cls, directory: Path, port: int, lines: Sequence[str], *options: str) -> AsyncIterator[Self]:
        """Runs it until the block ends, unless it was killed before. A Sentinel wants no password."""
        configuration = _configured(directory, [f"port {port}", "bind 127.0.0.1", f"dir {directory}", *lines])
        process = await asyncio.create_subprocess_exec(
            redis_program("server"), configuration, *options, cwd=directory, stdout=asyncio.subprocess.DEVNULL
        )
        password = None if options else PASSWORD
        async with Redis(port=port, password=password, socket_timeout=PATIENCE, protocol=2) as client:
            server = cls(port, process, client)
            try:
                await eventually(server._answers)
                yield server
            finally:
                await server.kill()

    def __init__(self, port: int, process: asyncio.subprocess.Process, client: Redis) -> None:
        self.port, self._process, self._client = port, process, client

    async def ask(self, *words: str) -> Any:
        """Returns what it answers to a command."""
        return await self._client.execute_command(*words)  # type: ignore[no-untyped-call]

    async def cut_off(self, user: str) -> None:
        """Lets this user in no more."""
        await self.ask("ACL", "SETUSER", user, "off")
        await self.ask("CLIENT", "KILL", "USER", user)

    async def let_in(self, user: str) -> None:
        """Lets this user in again."""
        await self.ask("ACL", "SETUSER", user, "on")

    async def is_replica(self) -> bool:
        """Whether it is a replica, and in sync."""
        told = await self.ask("INFO", "replication")
        return bool(told["role"] == "slave" and told["master_link_status"] == "up")

    def pause(self) -> None:
        """Stops it (SIGSTOP): it accepts connections, and answers nothing."""
        self._process.send_signal(signal.SIGSTOP)

    async def kill(self) -> None:
        """Kills it (`kill -9`), if it still runs."""
        if self._process.returncode is None:
            self._process.kill()
            await asyncio.wait_for(self._process.wait(), PATIENCE)

    async def _answers(self) -> bool:
        assert self._process.returncode is None, "Its port was taken."
        try:
            return bool(await self._client.ping())
        except (RedisError, OSError):
            return False


def _configured(directory: Path, lines: Sequence[str]) -> Path:
    directory.mkdir()
    configuration = directory / "redis.conf"  # It rewrites this file, and a Sentinel does not start without it.
    configuration.write_text("\n".join(lines) + "\n")
    return configuration
