"""The application as it is run: uvicorn in processes of its own, spoken to over HTTP."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx

from tests.eventually import PATIENCE, eventually
from tests.fork_server import REPOSITORY as REPOSITORY
from tests.fork_server import Started, start
from tests.free_port import free_port as free_port

QUIETLY = ("app.main:app", "--no-access-log", "--log-level", "warning")
UVICORN = ("-m", "uvicorn", *QUIETLY)
FOURWAYS = ("-m", "app", "serve")
"""Two ways to run it. Both read their port from the environment."""


@dataclass(frozen=True, slots=True)
class Service:
    """A running application."""

    url: str
    process: Started

    def client(self, connections: int = 100) -> httpx.AsyncClient:
        """A client of it, to be used in an `async with`."""
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        # It speaks no TLS: to read the certificates of all the world would take longer than most tests.
        return httpx.AsyncClient(base_url=self.url, limits=limits, timeout=PATIENCE, verify=False)

    async def ended(self) -> int:
        """Returns when the process has ended, with its exit code."""
        return await asyncio.to_thread(self.process.wait, PATIENCE)


@asynccontextmanager
async def serving(
    redis_url: str,
    database_url: str,
    *,
    command: Sequence[str] = UVICORN,
    workers: int = 1,
    program: Sequence[str] = (sys.executable,),
    **settings: str,
) -> AsyncIterator[Service]:
    """The command with these stores, ready to serve; stopped by SIGTERM at the end.

    `program` runs it, and `settings` are further environment variables.
    """
    port = str(free_port())
    stores = {"REDIS_URL": redis_url, "DATABASE_URL": database_url}
    environment = {**os.environ, **stores, "PORT": port, "UVICORN_PORT": port, **settings}
    process = start([*program, *command, "--workers", str(workers)], environment, screen=None, session=False)
    service = Service(f"http://127.0.0.1:{port}", process)
    try:
        await ready(service)
        yield service
    finally:
        process.send_signal(signal.SIGTERM)
        await service.ended()


async def ready(service: Service) -> None:
    """Returns when the service says that it is ready."""
    async with service.client() as client:
        await eventually(lambda: _is_ready(client, service.process))


async def _is_ready(client: httpx.AsyncClient, process: Started) -> bool:
    assert process.poll() is None, f"The service ended with {process.returncode}."
    try:
        return bool((await client.get("/health/ready")).json()["status"] == "ready")
    except httpx.TransportError:
        return False
