"""`fourways serve`: runs the application in one or more processes, with the servers it needs, until Ctrl-C.

    start    bind the port -> start Redis and Postgres, unless both are named -> migrate, add demo data -> serve
    stop     SIGINT or SIGTERM -> answer requests in flight -> stop what was started, in reverse order

What can go wrong: the port is taken, or a setting is wrong (`SettingsError`); a server does not start
(`EmbeddedError`). Each message is a sentence that can be shown to a person.
"""

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from functools import partial
from logging.config import dictConfig
from multiprocessing import resource_tracker
from types import FrameType
from typing import Self, cast

import uvicorn
from rich.console import Console
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from app.connections import Connections, allow_descriptors
from app.database import open_database
from app.demo import add_demo_data
from app.embedded import EmbeddedError, embedded_servers
from app.errors import DatabaseUnavailable
from app.http_connection import HttpConnection
from app.log_lines import LINES
from app.schema import Schema, migrate, schema
from app.settings import Settings, SettingsError
from app.unknown_variables import warn_of_unknown_variables

GRACE = 10
"""How long, in seconds, requests in flight may run after the service was told to stop."""
SILENCE = 60
"""How long, in seconds, a worker may leave its supervisor unanswered before it is replaced. Many workers that start
together on a small machine are slow, not dead."""
SAID = {"app.unknown_variables": {"level": "ERROR"}}
"""The loggers of the processes that serve: what `serve` has said before them, each would repeat."""


def serve(settings: Settings, workers: int, console: Console, complaints: Console) -> None:
    """Serves until SIGINT or SIGTERM, and prints its steps on the `console`.

    Raises:
        SettingsError: The port is not available.
        EmbeddedError: A server does not start.
        SystemExit: The application does not start. Its standard error says why.
    """
    dictConfig(LINES)
    warn_of_unknown_variables()
    listener = _listen(settings)
    with _Leaving() as leaving, ExitStack() as stack:
        if settings.redis_url is None:
            _start(settings, stack, leaving, console)
        elif settings.database_url is not None:
            _warn(settings.database_url, complaints)
        if not leaving.asked:
            _welcome(settings, console)
            _run(settings, workers, listener, leaving)
    console.print("Stopped.")


def _start(settings: Settings, stack: ExitStack, leaving: "_Leaving", console: Console) -> None:
    """Starts the embedded servers until the stack ends, migrates the database, and adds the demo data."""
    try:
        endpoints = stack.enter_context(embedded_servers(settings.directory, report=console.print))
    except EmbeddedError:
        # Ctrl-C also ends a server that is just being spawned and still in our process group. Nothing is left of it.
        if leaving.asked:
            return
        raise
    if not leaving.asked:
        console.print("Bringing the schema up to date")
        migrate(endpoints.database_url)
    if not leaving.asked:
        console.print(f"Demo data is there: {asyncio.run(add_demo_data(endpoints.database_url))}")
    # The application and its workers read their settings from the environment.
    os.environ.update(REDIS_URL=endpoints.redis_url, DATABASE_URL=endpoints.database_url)


def _listen(settings: Settings) -> socket.socket:
    """Binds the port before anything is started, so that a taken port is the first thing reported."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        another = settings.port + 1 if settings.port < 65_535 else settings.port - 1
        raise SettingsError(
            f"Port {settings.port} of {settings.host} cannot be had ({error.strerror}): "
            f"stop what listens there, or choose another one, as in `PORT={another} make run`."
        ) from None
    listener.set_inheritable(True)
    return listener


class _Leaving:
    """Handles SIGINT and SIGTERM by only recording them: `asked` is checked between two steps, and by the server.

    An exception could occur between any two instructions, and not every place propagates it. Ctrl-C -> the handler
    raises while an event loop clears a `WeakValueDictionary` -> Python drops what a weak reference's callback raises,
    with a line on standard error -> the process keeps serving, and nothing can stop it.
    """

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._hear)
        return self

    def __exit__(self, *error: object) -> None:
        # At exit Python restores the default handlers, and another Ctrl-C would turn the exit into a failure.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.asked = True


def _warn(url: str, complaints: Console) -> None:
    """Warns early if the operator's own database is not ready. The service starts anyway; it may become ready later."""

    async def found() -> str:
        async with open_database(
            url, connections=1, timeout=timedelta(seconds=2), counted=lambda resource: None
        ) as database:
            return await schema(database)

    try:
        state = asyncio.run(found())
    except DatabaseUnavailable as error:
        state = str(error)
    if state != Schema.CURRENT:
        complaints.print(f"The database is not ready: {state}", style="red")


def _welcome(settings: Settings, console: Console) -> None:
    # A service that listens on all addresses is reachable at localhost.
    host = "localhost" if settings.host in ("0.0.0.0", "::") else settings.host
    host = f"[{host}]" if ":" in host else host
    address = f"http://{host}:{settings.port}"
    console.print(f"\nFourways serves at {address}; Ctrl-C stops it. What to try:\n", style="bold")
    console.print(f"  {address}/       where to begin")
    console.print(f"  {address}/docs   every call")
    console.print(f"  curl -i {address}/users/1   twice: from the database, and from the cache\n")


def _run(settings: Settings, workers: int, listener: socket.socket, leaving: _Leaving) -> None:
    allow_descriptors(settings)
    # Named, not imported: the command line must work, and report errors, even if the application's settings are wrong.
    config = uvicorn.Config(
        "app.main:app",
        workers=workers,
        log_config={**LINES, "loggers": SAID},
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=GRACE,
        timeout_worker_healthcheck=SILENCE,
        http=cast("type[asyncio.Protocol]", partial(HttpConnection, Connections(settings))),  # uvicorn only calls it.
        ws="none",
        proxy_headers=False,  # Nothing here needs the client's address, and parsing it costs every request.
    )
    if workers == 1:
        _Server(config, leaving).run(sockets=[listener])
        return
    supervisor = _Supervisor(config, sockets=[listener])
    # From here on the supervisor handles the signals. An earlier one was recorded in `leaving`.
    if leaving.asked:
        return
    supervisor.run()
    if any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes):
        raise SystemExit(STARTUP_FAILURE)


class _Server(uvicorn.Server):
    """Uvicorn's server, but a second Ctrl-C does not hurry it: requests in flight have `GRACE` seconds, and no more."""

    def __init__(self, config: uvicorn.Config, leaving: _Leaving) -> None:
        super().__init__(config)
        self._leaving = leaving

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        with super().capture_signals():
            # From here on the server handles the signals. An earlier one was recorded in `leaving`.
            self.should_exit = self.should_exit or self._leaving.asked
            yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if not self.should_exit:
            super().handle_exit(sig, frame)


class _Supervisor(Multiprocess):
    """Uvicorn's supervisor, with an orderly start and stop."""

    def init_processes(self) -> None:
        with _ctrl_c_for_us_alone():
            super().init_processes()
        self._hear_their_end()

    def keep_subprocess_alive(self) -> None:
        with _ctrl_c_for_us_alone():
            super().keep_subprocess_alive()
        self._hear_their_end()

    def _hear_their_end(self) -> None:
        # Uvicorn also keeps the worker's end of the health-check pipe open. A worker that ends instead of answering
        # would then be waited for during all of `SILENCE`, and signals would wait, too.
        for process in self.processes:
            process.child_conn.close()

    def terminate_all(self) -> None:
        # The port closes with the last copy of its socket. If ours stayed open, the kernel would keep accepting
        # connections while the workers end, and nothing would answer them.
        for listener in self.sockets:
            listener.close()
        super().terminate_all()


@contextmanager
def _ctrl_c_for_us_alone() -> Iterator[None]:
    """Blocks SIGINT for workers that start in this block; their supervisor ends them with SIGTERM. A terminal sends
    Ctrl-C to every process, and a worker that is still importing would print a traceback. For this process, SIGINT is
    pending until the block ends."""
    resource_tracker.ensure_running()  # multiprocessing's own helper process, whose start would unblock the signal.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
