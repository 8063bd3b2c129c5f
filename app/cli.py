"""The commands: `fourways serve` and `fourways demo`."""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Annotated, NoReturn

import typer
import uvicorn
from rich.console import Console
from uvicorn.supervisors import Multiprocess

from app.demo import add_demo_data
from app.embedded import EmbeddedError, Endpoints, embedded_servers, running_endpoints
from app.errors import DatabaseUnavailable
from app.main import create_app
from app.schema import migrate
from app.settings import Settings, SettingsError, read_settings

console = Console(highlight=False, soft_wrap=True)
commands = typer.Typer(
    help="The four caching strategies in front of a database.", no_args_is_help=True, add_completion=False
)

GRACE = 10
"""Seconds that requests under way have to end once the service was told to stop."""


def main() -> None:
    """Runs a command. What a person can mend is told in a sentence, without a traceback."""
    try:
        commands()
    except (EmbeddedError, SettingsError, DatabaseUnavailable) as error:
        console.print(str(error), style="red")
        raise SystemExit(1) from None


@commands.command()
def serve(
    workers: Annotated[int, typer.Option(min=1, max=64, help="How many processes serve.")] = 1,
) -> None:
    """Serve, until Ctrl-C. Without REDIS_URL and DATABASE_URL a Redis and a Postgres of its own are started first."""
    settings = read_settings()
    listener = _listen(settings)
    with _stopped_in_order(), ExitStack() as stack:
        if settings.redis_url is None:
            endpoints = stack.enter_context(embedded_servers(settings.directory, report=console.print))
            _prepare(endpoints)
            # Workers read their settings from the environment, as the application always does.
            os.environ.update(REDIS_URL=endpoints.redis_url, DATABASE_URL=endpoints.database_url)
        _tell(settings)
        _run(read_settings(), workers, listener)


@commands.command()
def demo() -> None:
    """Add the demo data that the examples speak of. Doing it again changes nothing."""
    settings = read_settings()
    endpoints = None if settings.database_url else running_endpoints(settings.directory)
    url = settings.database_url or (endpoints.database_url if endpoints else None)
    if url is None:
        raise SettingsError(f"Nothing runs in {settings.directory}: start it with `make run`, or set DATABASE_URL.")
    _report_demo(url)


def _listen(settings: Settings) -> socket.socket:
    """The port, taken before anything is started: that it is not free shall be the first thing one learns."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        listener.listen(2048)
    except OSError as error:
        raise SettingsError(
            f"Port {settings.port} of {settings.host} cannot be had ({error.strerror}): "
            f"stop what listens there, or choose another one, as in `PORT={settings.port + 1} make run`."
        ) from None
    listener.set_inheritable(True)
    return listener


@contextmanager
def _stopped_in_order() -> Iterator[None]:
    """Turns SIGTERM into an exception, as SIGINT is one: then what was started is stopped on the way out."""

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    except KeyboardInterrupt:
        console.print("Stopped.")


@contextmanager
def _undisturbed() -> Iterator[None]:
    """A second Ctrl-C must not leave a server behind."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    yield


def _prepare(endpoints: Endpoints) -> None:
    console.print("Bringing the schema up to date")
    migrate(endpoints.database_url)
    _report_demo(endpoints.database_url)


def _report_demo(url: str) -> None:
    users, products = asyncio.run(add_demo_data(url))
    console.print(f"Demo data is there: {users} users, {products} products")


def _tell(settings: Settings) -> None:
    address = f"http://{settings.host}:{settings.port}"
    console.print(f"\nFourways serves at [bold]{address}[/bold]; Ctrl-C stops it. What to try:\n")
    console.print(f"  {address}/       where to begin")
    console.print(f"  {address}/docs   every call")
    console.print(f"  curl -i {address}/users/1   twice: from the database, and from the cache\n")


def _run(settings: Settings, workers: int, listener: socket.socket) -> None:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    config = uvicorn.Config(
        "app.main:app" if workers > 1 else create_app(settings),
        workers=workers,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=GRACE,
    )
    if workers == 1:
        uvicorn.Server(config).run(sockets=[listener])
        return
    Multiprocess(config, sockets=[listener]).run()
