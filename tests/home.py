"""Where one newcomer runs the command."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from tests.eventually import PATIENCE, eventually
from tests.service import free_port
from tests.terminal import Terminal, terminal


class Home:
    """A directory with nothing in it, and a port: where one newcomer runs the command."""

    def __init__(self, path: Path) -> None:
        self._path, self._screens = path, 0
        self.port = str(free_port())
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = {"FOURWAYS_DIRECTORY": str(path / "data"), "PORT": self.port}

    def screen(self) -> Path:
        """A file for a command to print to."""
        self._screens += 1
        return self._path / f"screen-{self._screens}"

    @asynccontextmanager
    async def runs(self, *arguments: str, **environment: str) -> AsyncIterator[Terminal]:
        """A `fourways` command here."""
        async with terminal(self.screen(), "fourways", *arguments, **{**self.environment, **environment}) as running:
            yield running

    @asynccontextmanager
    async def serves(self, *arguments: str) -> AsyncIterator[tuple[Terminal, httpx.AsyncClient]]:
        """`fourways serve` here, ready, and a client of it."""
        async with self.runs("serve", *arguments) as running, self.client() as client:
            await running.shows("Fourways serves at")

            async def is_ready() -> bool:
                # Where there is more to do than the machine can, trust may lapse for a moment.
                return bool((await client.get("/health/ready")).json()["status"] == "ready")

            await eventually(is_ready)
            yield running, client

    async def complains(self, *arguments: str, **environment: str) -> tuple[int, str]:
        """Runs a command that is expected to end by itself: its exit code, and what it printed."""
        async with self.runs(*arguments, **environment) as running:
            return await running.code(), running.screen

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, timeout=PATIENCE, verify=False)
