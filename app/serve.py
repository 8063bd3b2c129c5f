"""`fourways serve`: runs the application, with the servers it needs, until Ctrl-C. `supervisor.py` runs it in several
processes.

    start    bind the port -> start Redis and Postgres, unless both are named -> migrate, add demo data -> serve
    stop     SIGINT, SIGTERM or SIGHUP -> answer requests in flight -> stop what was started, in reverse order

What can go wrong: the port is taken, or a setting is wrong (`SettingsError`); a server does not start
(`EmbeddedError`). Each message is a sentence that can be shown to a person.
"""

import asyncio
import errno
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from functools import partial
from logging.config import dictConfig
from pathlib import Path
from types import FrameType
from typing import Self, cast

import uvicorn
from rich.console import Console
from uvicorn.config import STARTUP_FAILURE

from app.connections import Connections, allow_descriptors
from app.counting_files import kept_directory
from app.database import open_database
from app.demo import add_demo_data
from app.embedded import EmbeddedError, embedded_servers
from app.errors import DatabaseUnavailable
from app.http_connection import HttpConnection
from app.log_lines import lines
from app.privileges import missing_in_postgres
from app.schema import Schema, migrate, schema
from app.settings import Settings, SettingsError
from app.supervisor import SILENCE, Supervisor
from app.unknown_variables import warn_of_unknown_variables

GRACE = 10
"""How long, in seconds, requests in flight may run after the service was told to stop."""
SAID = {"app.unknown_variables": {"level": "ERROR"}}
"""The loggers of the processes that serve: what `serve` has said before them, each would repeat."""


def serve(settings: Settings, workers: int, console: Console, complaints: Console) -> None:
    """Serves until SIGINT, SIGTERM or SIGHUP, and prints its steps on the `console`.

    Raises:
        SettingsError: The port is not available.
        EmbeddedError: A server does not start.
        SystemExit: The application does not start. Its standard error says why.
    """
    dictConfig(lines(settings))
    warn_of_unknown_variables()
    screen = _Screen(console)
    listener = _listen(settings)
    with _Leaving() as leaving, ExitStack() as stack:
        if settings.redis_url is None:
            _start(settings, stack, leaving, screen)
        elif settings.database_url is not None:
            _warn(settings.database_url, complaints)
        if not leaving.asked:
            _welcome(settings, screen)
            _run(settings, workers, listener, leaving)
    screen.print("Stopped.")


class _Screen:
    """A console that may be gone: what is printed to a terminal that was closed is dropped, and the stop goes on."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def print(self, text: str, style: str | None = None) -> None:
        try:
            self._console.print(text, style=style)
        except OSError:
            # Python flushes what is still held when it exits, and fails if it cannot.
            with Path(os.devnull).open("w") as nothing:
                os.dup2(nothing.fileno(), self._console.file.fileno())


def _start(settings: Settings, stack: ExitStack, leaving: "_Leaving", screen: _Screen) -> None:
    """Starts the embedded servers until the stack ends, migrates the database, and adds the demo data."""
    try:
        endpoints = stack.enter_context(embedded_servers(settings.directory, report=screen.print))
    except EmbeddedError:
        # Ctrl-C also ends a server that is just being spawned and still in our process group. Nothing is left of it.
        if leaving.asked:
            return
        raise
    if not leaving.asked:
        screen.print("Bringing the schema up to date")
        migrate(endpoints.database_url)
    if not leaving.asked:
        screen.print(f"Demo data is there: {asyncio.run(add_demo_data(endpoints.database_url))}")
    # The application and its workers read their settings from the environment.
    os.environ.update(REDIS_URL=endpoints.redis_url, DATABASE_URL=endpoints.database_url)


def _listen(settings: Settings) -> socket.socket:
    """Binds the port before anything is started, so that a taken port is the first thing reported."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        listener.listen(settings.listen_backlog)
    except OSError as error:
        listener.close()
        another = settings.port + 1 if settings.port < 65_535 else settings.port - 1
        to_do = {
            errno.EADDRINUSE: f"stop what listens there, or choose another one, as in PORT={another}",
            errno.EACCES: "choose one above 1023 in PORT",
        }.get(error.errno or 0, "name an address of this machine in FOURWAYS_HOST")
        raise SettingsError(
            f"Port {settings.port} of {settings.host} cannot be had ({error.strerror}): {to_do}."
        ) from None
    listener.set_inheritable(True)
    return listener


class _Leaving:
    """Handles SIGINT, SIGTERM and SIGHUP by only recording them: `asked` is checked between two steps, and by the
    server.

    An exception could occur between any two instructions, and not every place propagates it. Ctrl-C -> the handler
    raises while an event loop clears a `WeakValueDictionary` -> Python drops what a weak reference's callback raises,
    with a line on standard error -> the process keeps serving, and nothing can stop it.
    """

    def __init__(self) -> None:
        self.asked = False
        self.hears_hangup = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
        """Whether the end of the terminal is a reason to stop. It is not under `nohup`."""
        self._numbers = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if self.hears_hangup else [])]

    def __enter__(self) -> Self:
        for number in self._numbers:
            signal.signal(number, self._hear)
        return self

    def __exit__(self, *error: object) -> None:
        # At exit Python restores the default handlers, and another Ctrl-C would turn the exit into a failure.
        for number in self._numbers:
            signal.signal(number, signal.SIG_IGN)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.asked = True


def _warn(url: str, complaints: Console) -> None:
    """Warns early if the operator's own database is not ready. The service starts anyway; it may become ready later."""

    async def found() -> str:
        async with open_database(
            url, connections=1, timeout=timedelta(seconds=2), counted=lambda resource: None
        ) as database:
            # What hides the tables would look like a missing migration.
            return await missing_in_postgres(database) or await schema(database)

    try:
        state = asyncio.run(found())
    except DatabaseUnavailable as error:
        state = str(error)
    if state != Schema.CURRENT:
        complaints.print(f"The database is not ready: {state}", style="red")


def _welcome(settings: Settings, screen: _Screen) -> None:
    # A service that listens on all addresses is reachable at localhost.
    host = "localhost" if settings.host in ("0.0.0.0", "::") else settings.host
    host = f"[{host}]" if ":" in host else host
    address = f"http://{host}:{settings.port}"
    screen.print(f"\nFourways serves at {address}; Ctrl-C stops it. What to try:\n", style="bold")
    screen.print(f"  {address}/       where to begin")
    screen.print(f"  {address}/docs   every call")
    screen.print(f"  curl -i {address}/users/1   twice: from the database, and from the cache\n")


def _run(settings: Settings, workers: int, listener: socket.socket, leaving: _Leaving) -> None:
    allow_descriptors(settings)
    # Named, not imported: the command line must work, and report errors, even if the application's settings are wrong.
    configured = lines(settings)
    config = uvicorn.Config(
        "app.main:app",
        workers=workers,
        log_config={**configured, "loggers": {**configured["loggers"], **SAID}},
        log_level=settings.log_level,
        access_log=False,  # The application's own has the request's id and its duration.
        backlog=settings.listen_backlog,  # Each worker calls listen again.
        timeout_graceful_shutdown=GRACE,
        timeout_worker_healthcheck=SILENCE,
        http=cast("type[asyncio.Protocol]", partial(HttpConnection, Connections(settings))),  # uvicorn only calls it.
        ws="none",
        proxy_headers=False,  # Nothing here needs the client's address, and parsing it costs every request.
    )
    if workers == 1:
        _Server(config, leaving).run(sockets=[listener])
        return
    supervisor = Supervisor(config, sockets=[listener])
    # From here on the supervisor handles the signals. An earlier one was recorded in `leaving`.
    if leaving.asked:
        return
    with kept_directory():
        supervisor.run()
    if supervisor.failed:
        raise SystemExit(STARTUP_FAILURE)


class _Server(uvicorn.Server):
    """Uvicorn's server, but a second Ctrl-C does not hurry it: requests in flight have `GRACE` seconds, and no more."""

    def __init__(self, config: uvicorn.Config, leaving: _Leaving) -> None:
        super().__init__(config)
        self._leaving = leaving

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        with super().capture_signals():
            if self._leaving.hears_hangup:  # Uvicorn leaves this one alone, and its default is the end of the process.
                signal.signal(signal.SIGHUP, self.handle_exit)
            # From here on the server handles the signals. An earlier one was recorded in `leaving`.
            self.should_exit = self.should_exit or self._leaving.asked
            yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if not self.should_exit:
            super().handle_exit(sig, frame)
