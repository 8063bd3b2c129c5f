"""Redis and Postgres as users run them: embedded, as Debian has them, with TLS, with few privileges, behind a pooler.

Each function starts one, yields what the service is given, and stops it. It skips the test where there is no such
program.
"""

import asyncio
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import asyncpg
import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.embedded import Endpoints
from app.embedded.account import postgres_account
from app.schema import migrate
from tests.eventually import PATIENCE, eventually
from tests.faults.another_redis import another_redis
from tests.faults.certificates import Certificates
from tests.faults.pgbouncer import pgbouncer
from tests.fresh_database import fresh_database
from tests.least_privilege import granted_role, granted_user
from tests.migrated_database import migrated_database
from tests.open_directory import open_directory
from tests.service import free_port

PASSWORD = "p@ss/w#rd?:%"
"""It is percent-encoded in a URL."""
PROGRAMS = "/usr/sbin:/usr/local/sbin:/usr/lib/postgresql/18/bin:/usr/lib/postgresql/17/bin:/usr/lib/postgresql/15/bin"


@dataclass(frozen=True, slots=True)
class Parts:
    """What the stores are made of."""

    servers: Endpoints
    certificates: Certificates


Started = Callable[[Parts], AbstractAsyncContextManager[str]]


@asynccontextmanager
async def embedded_redis(parts: Parts) -> AsyncIterator[str]:
    async with another_redis() as url:
        yield url


@asynccontextmanager
async def redis_user(parts: Parts) -> AsyncIterator[str]:
    """A user with exactly the commands that the service uses."""
    async with another_redis() as url, granted_user(url, "") as granted:
        yield granted


@asynccontextmanager
async def debian_redis(parts: Parts) -> AsyncIterator[str]:
    async with _debian_redis("--port", str(port := free_port())):
        yield await _answering(f"redis://:{quote(PASSWORD, safe='')}@127.0.0.1:{port}/1")


@asynccontextmanager
async def redis_with_tls(parts: Parts) -> AsyncIterator[str]:
    key, crt, ca = (str(parts.certificates.path(name)) for name in ("server.key", "server.crt", "ca.crt"))
    arguments = ("--tls-key-file", key, "--tls-cert-file", crt, "--tls-ca-cert-file", ca, "--tls-auth-clients", "no")
    async with _debian_redis("--port", "0", "--tls-port", str(port := free_port()), *arguments):
        yield await _answering(f"rediss://:{quote(PASSWORD, safe='')}@localhost:{port}?ssl_ca_certs={ca}")


@asynccontextmanager
async def _debian_redis(*arguments: str) -> AsyncIterator[None]:
    with open_directory() as directory:
        options = ("--dir", str(directory), "--requirepass", PASSWORD, "--appendonly", "yes", "--save", "")
        async with _running([_program("redis-server"), *options, *arguments]):
            yield


async def _answering(url: str) -> str:
    """Returns the URL once its Redis answers."""

    async def answers() -> bool:
        async with Redis.from_url(url) as redis:
            try:
                return bool(await redis.ping())
            except (RedisError, OSError):
                return False

    await eventually(answers)
    return url


@asynccontextmanager
async def embedded_postgres(parts: Parts) -> AsyncIterator[str]:
    async with migrated_database(parts.servers.database_url) as url:
        yield url


@asynccontextmanager
async def postgres_role(parts: Parts) -> AsyncIterator[str]:
    """A role that owns nothing, and may do exactly what the service does."""
    async with granted_role(parts.servers.database_url) as role:
        yield role.url


@asynccontextmanager
async def pooled_sessions(parts: Parts) -> AsyncIterator[str]:
    async with fresh_database(parts.servers.database_url) as url, pgbouncer(url, "session") as pooler:
        await asyncio.to_thread(migrate, pooler.url)
        yield pooler.url


@asynccontextmanager
async def pooled_transactions(parts: Parts) -> AsyncIterator[str]:
    """Fewer sessions than the service has connections."""
    async with fresh_database(parts.servers.database_url) as url, pgbouncer(url, "transaction", sessions=3) as pooler:
        await asyncio.to_thread(migrate, pooler.url)
        yield pooler.url


@asynccontextmanager
async def debian_postgres(parts: Parts) -> AsyncIterator[str]:
    async with _debian_postgres() as port:
        yield await _migrated(f"postgresql://fourways:{quote(PASSWORD, safe='')}@127.0.0.1:{port}/postgres")


@asynccontextmanager
async def postgres_with_tls(parts: Parts) -> AsyncIterator[str]:
    async with _debian_postgres(parts.certificates) as port:
        query = f"sslmode=verify-full&sslrootcert={parts.certificates.path('ca.crt')}"
        yield await _migrated(f"postgresql://fourways:{quote(PASSWORD, safe='')}@localhost:{port}/postgres?{query}")


@asynccontextmanager
async def _debian_postgres(certificates: Certificates | None = None) -> AsyncIterator[int]:
    """Yields the port of a new cluster, which takes passwords only."""
    initdb, postgres, account = _program("initdb"), _program("postgres"), postgres_account()
    owner = {} if account is None else {"user": account.uid, "group": account.gid, "extra_groups": []}
    with open_directory() as directory:
        directory.chmod(0o777)
        (directory / "password").write_text(PASSWORD)
        data = directory / "data"
        arguments = (
            "-D", str(data), "-U", "fourways", "-A", "scram-sha-256", f"--pwfile={directory / 'password'}",
            "-E", "UTF8", "--locale=C.UTF-8", "--no-sync",
        )  # fmt: skip
        async with _running([initdb, *arguments], None, **owner):
            pass
        options = ["-c", "fsync=off", "-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={directory}"]
        if certificates is not None:
            for name in ("server.crt", "server.key"):
                await asyncio.to_thread(_given, certificates.path(name), data / name, owner)
            options += ["-c", "ssl=on"]
            (data / "pg_hba.conf").write_text("hostssl all all all scram-sha-256\n")
        port = free_port()
        async with _running([postgres, "-D", str(data), "-p", str(port), *options], signal.SIGINT, **owner):
            yield port


def _given(file: Path, to: Path, owner: dict[str, object]) -> None:
    """Copies a file, which the owner alone may read."""
    shutil.copy(file, to)
    if "user" in owner:
        shutil.chown(to, owner["user"], owner["group"])  # type: ignore[call-overload]
    to.chmod(0o600)


async def _migrated(url: str) -> str:
    """Returns the URL once its Postgres answers and is migrated."""

    async def answers() -> bool:
        try:
            await (await asyncpg.connect(url)).close()
        except (OSError, asyncpg.CannotConnectNowError):
            return False
        return True

    await eventually(answers)
    await asyncio.to_thread(migrate, url)
    return url


def _program(name: str) -> str:
    found = shutil.which(name) or shutil.which(name, path=PROGRAMS)
    if found is None:
        pytest.skip(f"There is no {name} on this machine.")
    return found


@asynccontextmanager
async def _running(command: Sequence[str], end: int | None = signal.SIGTERM, **owner: object) -> AsyncIterator[None]:
    """Runs a command, and ends it with a signal, or waits until it ends by itself."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL, cwd="/",
        **owner,  # type: ignore[arg-type]
    )  # fmt: skip
    try:
        yield
    finally:
        if process.returncode is None and end is not None:
            process.send_signal(end)
        await asyncio.wait_for(process.wait(), PATIENCE)


REDISES: dict[str, Started] = {
    "embedded": embedded_redis,
    "Debian": debian_redis,
    "TLS": redis_with_tls,
    "ACL": redis_user,
}
POSTGRESES: dict[str, Started] = {
    "embedded": embedded_postgres,
    "Debian": debian_postgres,
    "TLS": postgres_with_tls,
    "DML only": postgres_role,
    "pooled sessions": pooled_sessions,
    "pooled transactions": pooled_transactions,
}
