"""The application as separate processes, which can be killed one by one or all at once, and started again at the same
address: its clients know only that one."""

import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import psutil  # type: ignore[import-untyped]

from tests.eventually import eventually
from tests.fork_server import start
from tests.keyed import HUNG_UP, Keyed, kill
from tests.process_tree import ProcessTree
from tests.service import Service, free_port, ready


class Connection(Keyed):
    """A connection that knows its port, which identifies the process at the other end."""

    @property
    def port(self) -> int:
        """The port of our end."""
        return int(self._writer.get_extra_info("sockname")[1])


class Application:
    """`uvicorn` with some workers, at a fixed address."""

    def __init__(
        self, redis_url: str, database_url: str, settings: Mapping[str, str], *, app: str, workers: int
    ) -> None:
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self.workers = workers
        self._app = app
        self._environment = {
            **os.environ,
            "REDIS_URL": redis_url,
            "DATABASE_URL": database_url,
            # By default, Uvicorn closes a connection after 5 s of idleness, and the machine may be busy for that long.
            "UVICORN_TIMEOUT_KEEP_ALIVE": "120",
            **settings,
        }
        self._service: Service | None = None

    @classmethod
    @asynccontextmanager
    async def running(
        cls,
        redis_url: str,
        database_url: str,
        settings: Mapping[str, str],
        *,
        app: str = "app.main:app",
        workers: int = 3,
    ) -> AsyncIterator["Application"]:
        """Runs the application from when it is ready until a final SIGTERM. `settings` are environment variables."""
        application = cls(redis_url, database_url, settings, app=app, workers=workers)
        await application.start()
        try:
            await ready(application.service)
            yield application
        finally:
            await application.stop()

    @property
    def service(self) -> Service:
        """The running service."""
        assert self._service is not None, "It does not run."
        return self._service

    async def start(self) -> None:
        """Starts it, without waiting until it is ready."""
        process = start(
            [
                sys.executable, "-m", "uvicorn", self._app, "--port", str(self._port), "--workers", str(self.workers),
                "--no-access-log", "--log-level", "error",
            ],
            self._environment,
            screen=None,
            session=False,
        )  # fmt: skip
        self._service = Service(self.url, process)

    async def stop(self) -> None:
        """Sends SIGTERM, if it still runs, and waits for an orderly exit."""
        self.service.process.send_signal(signal.SIGTERM)
        await self.service.ended()

    async def kill(self) -> None:
        """Kills all its processes (`kill -9`)."""
        await kill(self.service)

    async def killed(self, worker: psutil.Process) -> None:
        """Kills one worker (`kill -9`), which its supervisor replaces. Returns when there are as many as before."""
        worker.kill()
        await ProcessTree((worker,)).gone()
        await eventually(self._is_complete)

    def processes(self) -> list[psutil.Process]:
        """Returns the worker processes."""
        found = ProcessTree.of(self.service.process.pid).workers()
        # A supervisor without workers is itself reported as one; a single worker has no supervisor.
        return [one for one in found if self.workers == 1 or one.pid != self.service.process.pid]

    @asynccontextmanager
    async def each(self) -> AsyncIterator[list[Connection]]:
        """Yields a connection to each worker, once all of them serve."""
        async with AsyncExitStack() as stack:
            found: dict[int, Connection] = {}

            async def all_are_found() -> bool:
                try:
                    connection = await Connection.to(self.url)
                    stack.push_async_callback(connection.close)
                    await connection.ask("/health/live")
                    for worker in self.processes():
                        if any(
                            one.raddr and one.raddr.port == connection.port for one in worker.net_connections("tcp")
                        ):
                            found.setdefault(worker.pid, connection)
                except (*HUNG_UP, psutil.Error):
                    return False
                return len(found) == self.workers

            await eventually(all_are_found)
            yield list(found.values())

    async def told(self) -> Mapping[str, Any]:
        """Returns what /write-behind answers, as soon as it can."""
        said: Mapping[str, Any] = {}

        async def it_says() -> bool:
            nonlocal said
            try:
                connection = await Connection.to(self.url)
            except ConnectionError:
                return False
            try:
                answer = await connection.ask("/write-behind")
            except HUNG_UP:
                return False
            finally:
                await connection.close()
            said = answer.json()
            return answer.status == 200

        await eventually(it_says)
        return said

    async def _is_complete(self) -> bool:
        with contextlib.suppress(psutil.Error):
            return len(self.processes()) == self.workers
        return False
