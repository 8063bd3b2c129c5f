"""A real PgBouncer in its own process, in front of the tests' Postgres."""

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from app.embedded.account import postgres_account
from tests.eventually import PATIENCE, eventually
from tests.open_directory import open_directory
from tests.service import free_port

INI = """
[databases]
* = host={host} user=fourways
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
admin_users = fourways
pool_mode = {mode}
default_pool_size = {sessions}
server_login_retry = 0.1
"""
MODES = ("session", "transaction")


class PgBouncer:
    """PgBouncer as Debian ships it, with at most `sessions` in Postgres for each database; `url` leads through it.

    It is started again when it ends by itself: 1.18 does when a client disconnects while it cancels a statement ("bad
    client state").
    """

    def __init__(self, database_url: str, mode: str, sessions: int, ini: Path) -> None:
        self._parts = urlsplit(database_url)
        self._mode, self._sessions, self._ini = mode, sessions, ini
        self._port = free_port()
        self.url = f"postgresql://fourways@127.0.0.1:{self._port}{self._parts.path}"
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Starts it, and returns when it answers."""
        # System servers are seldom on a user's PATH.
        program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")
        if program is None:
            pytest.skip("There is no pgbouncer on this machine.")
        self._write()
        self._running = asyncio.create_task(self._run(program))
        await eventually(self._answers)

    async def stop(self) -> None:
        """Ends it, with all its connections."""
        if self._running is not None:
            self._running.cancel()
            with suppress(asyncio.CancelledError):
                await self._running

    async def _run(self, program: str) -> None:
        while True:
            process = self._spawned(program)
            try:
                await asyncio.to_thread(process.wait)
            finally:
                process.terminate()
                await asyncio.to_thread(process.wait, PATIENCE)

    def _spawned(self, program: str) -> subprocess.Popen[bytes]:
        # The socket of Postgres is private to its account. (uvloop cannot start a process as another user.)
        account = postgres_account()
        return subprocess.Popen(
            [program, str(self._ini)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            user=None if account is None else account.uid, group=None if account is None else account.gid,
            extra_groups=None if account is None else [],
        )  # fmt: skip

    async def switch_to(self, mode: str) -> None:
        """Changes its `pool_mode` while its clients stay connected."""
        self._mode = mode
        self._write()
        await self.administer("RELOAD")

    async def administer(self, command: str) -> None:
        """Executes a command of its console."""
        connection = await asyncpg.connect(self.url.replace(self._parts.path, "/pgbouncer"), statement_cache_size=0)
        await connection.execute(command)
        await connection.close()

    def _write(self) -> None:
        host = parse_qs(self._parts.query)["host"][0]
        self._ini.write_text(INI.format(host=host, port=self._port, mode=self._mode, sessions=self._sessions))

    async def _answers(self) -> bool:
        assert self._running is not None
        assert not self._running.done()
        try:
            connection = await asyncpg.connect(self.url, statement_cache_size=0)
        except OSError:
            return False
        await connection.close()
        return True


@asynccontextmanager
async def pgbouncer(database_url: str, mode: str = "session", *, sessions: int = 20) -> AsyncIterator[PgBouncer]:
    """Yields a PgBouncer that runs, in front of this database."""
    with open_directory() as directory:
        pooler = PgBouncer(database_url, mode, sessions, directory / "pgbouncer.ini")
        try:
            await pooler.start()
            yield pooler
        finally:
            await pooler.stop()
