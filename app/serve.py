"""`fourways serve`: the application in one process or several, with the servers it needs, until Ctrl-C.

    start    take the port -> start Redis and Postgres, unless both are named -> migrate, demo data -> serve
    stop     SIGINT or SIGTERM -> answer what was asked -> stop what was started, in reverse

What can go wrong: the port is taken, or a setting is wrong (`SettingsError`); a server does not start
(`EmbeddedError`). Each message is a sentence to show to a person as it is.
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

GRACE = 10
"""Seconds that requests under way have to end once the service was told to stop."""
SILENCE = 60
"""Seconds that a worker may not answer its supervisor before it is replaced: many that start together on a small
machine are slow, and not dead."""


def serve(settings: Settings, workers: int, console: Console, complaints: Console) -> None:
    """Serves until SIGINT or SIGTERM, and tells its steps on the `console`.

    Raises:
        SettingsError: The port cannot be had.
        EmbeddedError: A server does not start.
        SystemExit: The application does not start. Why is on its standard error.
    """
    dictConfig(LINES)
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
    """The servers, until the stack ends, and what belongs in them."""
    try:
        endpoints = stack.enter_context(embedded_servers(settings.directory, report=console.print))
    except EmbeddedError:
        # Ctrl-C ends a server too that is just being born, and is in our group yet. Nothing is left of it.
        if leaving.asked:
            return
        raise
    if not leaving.asked:
        console.print("Bringing the schema up to date")
        migrate(endpoints.database_url)
    if not leaving.asked:
        console.print(f"Demo data is there: {asyncio.run(add_demo_data(endpoints.database_url))}")
    # The application reads its settings from the environment, as it always does, and so do its workers.
    os.environ.update(REDIS_URL=endpoints.redis_url, DATABASE_URL=endpoints.database_url)


def _listen(settings: Settings) -> socket.socket:
    """The port, taken before anything is started: that it is not free shall be the first thing one learns."""
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
    """Hears SIGINT and SIGTERM, and only notes them: `asked` is looked at between two steps, and by the server.

    An exception would come between any two instructions, and not every place lets one out. Ctrl-C -> the handler
    raises while an event loop clears a `WeakValueDictionary` -> Python drops what a weak reference's callback raises,
    with a line on standard error -> it serves on, and nobody can stop it.
    """

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._hear)
        return self

    def __exit__(self, *error: object) -> None:
        # Python's end puts the system's handlers back, and one more Ctrl-C would make a failure of it.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.asked = True


def _warn(url: str, complaints: Console) -> None:
    """A word ahead to whoever brought a database of their own. It is served anyhow: both may be put right meanwhile."""

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
    # Who listens everywhere is found at home.
    host = "localhost" if settings.host in ("0.0.0.0", "::") else settings.host
    host = f"[{host}]" if ":" in host else host
    address = f"http://{host}:{settings.port}"
    console.print(f"\nFourways serves at {address}; Ctrl-C stops it. What to try:\n", style="bold")
    console.print(f"  {address}/       where to begin")
    console.print(f"  {address}/docs   every call")
    console.print(f"  curl -i {address}/users/1   twice: from the database, and from the cache\n")


def _run(settings: Settings, workers: int, listener: socket.socket, leaving: _Leaving) -> None:
    allow_descriptors(settings)
    # Named, and not imported: the command line has to work, and to complain, where the application's settings do not.
    config = uvicorn.Config(
        "app.main:app",
        workers=workers,
        log_config=LINES,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=GRACE,
        timeout_worker_healthcheck=SILENCE,
        http=cast("type[asyncio.Protocol]", partial(HttpConnection, Connections(settings))),  # It is only called.
        ws="none",
        proxy_headers=False,  # Nothing here asks who the client is, and looking costs every request.
    )
    if workers == 1:
        _Server(config, leaving).run(sockets=[listener])
        return
    supervisor = _Supervisor(config, sockets=[listener])
    # From here on it hears the signals. One that came before is ours.
    if leaving.asked:
        return
    supervisor.run()
    if any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes):
        raise SystemExit(STARTUP_FAILURE)


class _Server(uvicorn.Server):
    """Uvicorn's own, which a second Ctrl-C does not hurry: requests under way have their `GRACE`, and no more."""

    def __init__(self, config: uvicorn.Config, leaving: _Leaving) -> None:
        super().__init__(config)
        self._leaving = leaving

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        with super().capture_signals():
            # From here on it hears the signals. One that came before is in `leaving`.
            self.should_exit = self.should_exit or self._leaving.asked
            yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if not self.should_exit:
            super().handle_exit(sig, frame)


class _Supervisor(Multiprocess):
    """Uvicorn's own, with an orderly beginning and end."""

    def init_processes(self) -> None:
        with _ctrl_c_for_us_alone():
            super().init_processes()
        self._hear_their_end()

    def keep_subprocess_alive(self) -> None:
        with _ctrl_c_for_us_alone():
            super().keep_subprocess_alive()
        self._hear_their_end()

    def _hear_their_end(self) -> None:
        # Uvicorn keeps the worker's end of their pipe open, too. Asked whether it lives, a worker that ends instead of
        # answering would be waited for all its `SILENCE` long, and signals with it.
        for process in self.processes:
            process.child_conn.close()

    def terminate_all(self) -> None:
        # The port is closed with the last copy of its socket. With ours open, the system would go on taking connections
        # while the workers end, and nobody would answer them.
        for listener in self.sockets:
            listener.close()
        super().terminate_all()


@contextmanager
def _ctrl_c_for_us_alone() -> Iterator[None]:
    """A terminal sends Ctrl-C to every process, and a worker that is still importing would print a traceback. One that
    starts in this block never sees it; its supervisor ends it with SIGTERM. For us it waits until the block ends."""
    resource_tracker.ensure_running()  # multiprocessing's own helper, whose start would lift the mask.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
