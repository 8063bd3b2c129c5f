"""A real PgBouncer in its own process, in front of the tests' Postgres."""

import asyncio
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
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
pool_mode = {mode}
"""


@asynccontextmanager
async def pgbouncer(database_url: str, mode: str = "session") -> AsyncIterator[str]:
    """Yields the URL of the same database through PgBouncer, as Debian ships it, in this `pool_mode`."""
    # System servers are seldom on a user's PATH.
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        pytest.skip("There is no pgbouncer on this machine.")
    parts, port = urlsplit(database_url), free_port()
    account = postgres_account()
    with open_directory() as directory:
        ini = directory / "pgbouncer.ini"
        ini.write_text(INI.format(host=parse_qs(parts.query)["host"][0], port=port, mode=mode))
        process = await asyncio.create_subprocess_exec(
            program, str(ini), stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
            # The socket of Postgres is private to its account.
            user=None if account is None else account.uid, group=None if account is None else account.gid,
            extra_groups=None if account is None else [],
        )  # fmt: skip
        url = f"postgresql://fourways@127.0.0.1:{port}{parts.path}"

        async def answers() -> bool:
            assert process.returncode is None, f"pgbouncer ended with {process.returncode}."
            try:
                connection = await asyncpg.connect(url, statement_cache_size=0)
            except OSError:
                return False
            await connection.close()
            return True

        try:
            await eventually(answers)
            yield url
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
            await asyncio.wait_for(process.wait(), PATIENCE)
