"""The application as it is run: uvicorn in processes of its own, spoken to over HTTP."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.eventually import PATIENCE, eventually

REPOSITORY = Path(__file__).parent.parent
QUIETLY = ("app.main:app", "--no-access-log", "--log-level", "warning")
UVICORN = ("-m", "uvicorn", *QUIETLY)
FORKING = ("-m", "tests.forking", *QUIETLY)
FOURWAYS = ("-m", "app", "serve")
"""Three ways to run it. All are told their port by the environment."""


@dataclass(frozen=True, slots=True)
class Service:
    """A running application."""

    url: str
    process: asyncio.subprocess.Process

    def client(self, connections: int = 100) -> httpx.AsyncClient:
        """A client of it, to be used in an `async with`."""
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        # It speaks no TLS: to read the certificates of all the world would take longer than most tests.
        return httpx.AsyncClient(base_url=self.url, limits=limits, timeout=PATIENCE, verify=False)


def free_port() -> int:
    """A port that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def serving(
    redis_url: str, database_url: str, *, command: Sequence[str] = UVICORN, workers: int = 1, **settings: str
) -> AsyncIterator[Service]:
    """The command with these stores, ready to serve; stopped by SIGTERM at the end.

    `settings` are further environment variables.
    """
    port = str(free_port())
    stores = {"REDIS_URL": redis_url, "DATABASE_URL": database_url}
    environment = {**os.environ, **stores, "PORT": port, "UVICORN_PORT": port, **settings}
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, "--workers", str(workers),
        cwd=REPOSITORY, env=environment,
        stdout=asyncio.subprocess.DEVNULL,  # What to try, which nobody reads here. Complaints go to stderr.
    )  # fmt: skip
    try:
        service = Service(f"http://127.0.0.1:{port}", process)
        await ready(service)
        yield service
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.wait(), PATIENCE)


async def ready(service: Service) -> None:
    """Returns when the service says that it is ready."""
    async with service.client() as client:
        await eventually(lambda: _is_ready(client, service.process))


async def _is_ready(client: httpx.AsyncClient, process: asyncio.subprocess.Process) -> bool:
    assert process.returncode is None, f"The service ended with {process.returncode}."
    try:
        return bool((await client.get("/health/ready")).json()["status"] == "ready")
    except httpx.TransportError:
        return False
