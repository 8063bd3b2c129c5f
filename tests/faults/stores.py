"""A separate Redis and Postgres that may be killed: the servers that the application embeds, driven by hand."""

import asyncio
import os
import random
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import ClassVar, Self

import asyncpg
import psutil  # type: ignore[import-untyped]
from redis.asyncio import Redis

from app.embedded import Endpoints
from app.embedded.account import postgres_account
from app.embedded.home import make_home, postgres_directory
from app.embedded.identity import parent_of, servers_in, signal_process
from app.embedded.postgres_server import PROGRAMS as POSTGRES
from app.embedded.postgres_server import SOCKET as POSTGRES_SOCKET
from app.embedded.postgres_server import PostgresServer
from app.embedded.redis_server import PROGRAMS as REDIS
from app.embedded.redis_server import SOCKET as REDIS_SOCKET
from app.embedded.redis_server import RedisServer
from app.schema import migrate
from tests.eventually import eventually
from tests.open_directory import open_directory

PAUSE = 0.03
"""Seconds between two repetitions of a fault."""


class Stores:
    """Both servers, in a directory that every user may enter."""

    template: ClassVar[Path | None] = None
    """Where the first user in a session leaves its migrated cluster, for the others to start from. Copying it takes a
    sixth of the time of making it. Copies have one system identifier: two of them do not count as two databases."""

    @classmethod
    @contextmanager
    def started(cls) -> Iterator[Self]:
        """Runs both, empty and migrated, until the block ends."""
        with open_directory() as directory:
            stores = cls(directory)
            try:
                stores._start_migrated()
                yield stores
            finally:
                stores.stop()

    def __init__(self, directory: Path) -> None:
        self._redis_home = make_home(directory / "redis", REDIS_SOCKET)
        self._redis = RedisServer(self._redis_home, directory / "redis.log")
        account = postgres_account()
        self._postgres_home = make_home(postgres_directory(directory, account), POSTGRES_SOCKET, account)
        self.postgres_log = directory / "postgres.log"
        """The log of Postgres, from its first start on."""
        self._postgres = PostgresServer(self._postgres_home, self.postgres_log)

    @property
    def endpoints(self) -> Endpoints:
        """Their URLs, now and after a restart."""
        return Endpoints(self._redis.url, self._postgres.url)

    def start(self) -> None:
        """Starts both."""
        self._redis.start()
        self._postgres.start()

    def stop(self) -> None:
        """Stops both."""
        self._redis.stop()
        self._postgres.stop()

    def _start_migrated(self) -> None:
        data = self._postgres_home.directory / "data"
        if self.template is not None and self.template.exists():
            _copy(self.template, data)
            self.start()
            return
        self.start()
        migrate(self.endpoints.database_url)
        if self.template is not None:
            self._postgres.stop()
            _copy(data, self.template)
            self._postgres.start()

    async def kill_redis(self, down: float) -> None:
        """Kills Redis (`kill -9`), and restarts it on the same file after `down` seconds."""
        self._redis_process().kill()
        await asyncio.to_thread(self._redis.stop)
        await asyncio.sleep(down)
        await asyncio.to_thread(self._redis.start)

    async def rewind_redis(self, lost: float) -> None:
        """Restarts Redis without its last `lost` seconds, as after a power cut or a failover."""
        log = self._redis_log()
        before = log.stat().st_size
        await asyncio.sleep(lost)
        self._redis_process().kill()
        await asyncio.to_thread(self._redis.stop)
        os.truncate(log, before)
        await asyncio.to_thread(self._redis.start)

    async def shorten_redis(self, lost: int) -> None:
        """Does the same without the last `lost` bytes of its file, which may then end in the middle of a command."""
        self._redis_process().kill()
        await asyncio.to_thread(self._redis.stop)
        log = self._redis_log()
        os.truncate(log, max(0, log.stat().st_size - lost))
        await asyncio.to_thread(self._redis.start)
        # If the file was cut between a MULTI and its EXEC, Redis 6.2 leaves the MULTI in it. At the next start it would
        # take everything written after that as a part of that transaction.
        async with Redis.from_url(self._redis.url) as redis:

            async def is_loaded() -> bool:
                return not (await redis.info("persistence"))["loading"]

            async def is_rewritten() -> bool:
                told = await redis.info("persistence")
                return not told["aof_rewrite_in_progress"] and not told["aof_rewrite_scheduled"]

            await eventually(is_loaded)
            await redis.bgrewriteaof()
            await eventually(is_rewritten)

    async def empty_redis(self) -> None:
        """Kills Redis (`kill -9`), and restarts it without a file, like one that keeps none."""
        self._redis_process().kill()
        await asyncio.to_thread(self._redis.stop)
        # Redis 7 keeps a list of its files beside them, and files that the list names must exist.
        shutil.rmtree(self._redis_home.directory / "appendonlydir", ignore_errors=True)
        for file in self._redis_home.directory.glob("*.aof"):
            file.unlink()
        await asyncio.to_thread(self._redis.start)

    @asynccontextmanager
    async def putting_postgres_back(self) -> AsyncIterator[None]:
        """Loses what is committed in the block: the data directory is restored to its earlier state, and Postgres is
        stopped each time."""
        data, copy = self._postgres_home.directory / "data", self._postgres_home.directory / "copy"
        for come_from, goes_to in ((data, copy), (copy, data)):
            await asyncio.to_thread(self._postgres.stop)
            if goes_to == data:
                shutil.rmtree(data)
            await asyncio.to_thread(_copy, come_from, goes_to)
            await asyncio.to_thread(self._postgres.start)
            if goes_to == copy:
                yield

    async def cut_redis(self, randomness: random.Random, times: int) -> None:
        """Cuts half of the connections, again and again, whatever is in flight on them."""
        async with Redis.from_url(self._redis.url) as redis:
            for _ in range(times):
                for connection in await redis.client_list():
                    if randomness.random() < 0.5:
                        await redis.client_kill_filter(_id=connection["id"], skipme=True)
                await asyncio.sleep(PAUSE)

    async def flush_redis(self, times: int) -> None:
        """Removes everything, values and leases, again and again: readers have to load."""
        async with Redis.from_url(self._redis.url) as redis:
            for _ in range(times):
                await redis.flushdb()
                await asyncio.sleep(PAUSE)

    async def cut_postgres(self, times: int) -> None:
        """Ends half of the sessions, again and again, whatever is in flight on them, even a COMMIT."""
        connection = await asyncpg.connect(self._postgres.url)
        for _ in range(times):
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'fourways' AND random() < 0.5"
            )
            await asyncio.sleep(PAUSE)
        await connection.close()

    async def kill_postgres(self) -> None:
        """Kills Postgres with all its sessions (`kill -9`). It stays down."""
        for process in servers_in(self._postgres_home.directory / "data", POSTGRES):
            signal_process(process, signal.SIGKILL)
        await asyncio.to_thread(self._postgres.stop)

    async def crash_postgres(self) -> None:
        """Does what `pg_ctl restart -m immediate` does: Postgres ends as in a crash, and recovers from its log."""
        processes = servers_in(self._postgres_home.directory / "data", POSTGRES)
        pids = {process.pid for process in processes}
        for process in processes:
            if parent_of(process) not in pids:
                signal_process(process, signal.SIGQUIT)
        await asyncio.to_thread(self._postgres.stop)
        await asyncio.to_thread(self._postgres.start)

    def _redis_log(self) -> Path:
        return max(self._redis_home.directory.rglob("*.aof"), key=lambda file: file.stat().st_mtime)

    def _redis_process(self) -> psutil.Process:
        (process,) = servers_in(self._redis_home.directory, REDIS)
        return process


def _copy(data: Path, copy: Path) -> None:
    """Copies a directory, including the owner of each file."""
    subprocess.run(["cp", "-a", data, copy], check=True)
