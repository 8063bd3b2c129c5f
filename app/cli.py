"""The commands: `fourways serve`, `fourways demo`, `fourways dead-letters` and `fourways lab`."""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from multiprocessing import resource_tracker
from types import FrameType
from typing import Annotated, Self

import typer
import uvicorn
from rich.console import Console
from rich.table import Column, Table
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from app.database import open_database
from app.demo import add_demo_data
from app.embedded import EmbeddedError, Endpoints, embedded_servers, running_endpoints
from app.errors import Conflict, DatabaseUnavailable, NotFound
from app.lab.commands import lab
from app.page_views.store import LARGEST, DeadLetter, PageViewStore
from app.schema import Schema, migrate, schema
from app.settings import Settings, SettingsError, read_settings

# Without markup and emoji: a path or a value may contain what looks like it.
console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
complaints = Console(highlight=False, soft_wrap=True, markup=False, emoji=False, stderr=True)
commands = typer.Typer(
    help="The four caching strategies in front of a database. Every setting is an environment variable, or a line of a "
    "file .env; .env.example lists them.",
    no_args_is_help=True,
    add_completion=False,
)
dead_letters = typer.Typer(
    help="Page views that Postgres has refused: list them, replay them once the cause is gone, or discard them.",
    no_args_is_help=True,
)
commands.add_typer(dead_letters, name="dead-letters")
commands.add_typer(lab, name="lab")

NONE = "There are no dead letters."
GRACE = 10
"""Seconds that requests under way have to end once the service was told to stop."""
SILENCE = 60
"""Seconds that a worker may not answer its supervisor before it is replaced: many that start together on a small
machine are slow, and not dead."""


def main() -> None:
    """Runs a command. What a person can mend is told in a sentence, without a traceback."""
    try:
        commands()
    except (EmbeddedError, SettingsError, DatabaseUnavailable) as error:
        complaints.print(str(error), style="red")
        raise SystemExit(1) from None


@commands.command()
def serve(
    workers: Annotated[int, typer.Option(min=1, max=64, help="How many processes serve.")] = 1,
) -> None:
    """Serve at PORT (8000), until Ctrl-C.

    Without REDIS_URL and DATABASE_URL, a Redis and a Postgres are started first, with their data in FOURWAYS_DIRECTORY
    (.fourways) and demo data in them, and stopped at the end. With them, nothing is started and nothing is migrated.
    """
    settings = read_settings()
    listener = _listen(settings)
    with _Leaving() as leaving, ExitStack() as stack:
        if settings.redis_url is None:
            with leaving.deferred():
                endpoints = stack.enter_context(embedded_servers(settings.directory, report=console.print))
                _prepare(endpoints)
            # The application reads its settings from the environment, as it always does, and so do its workers.
            os.environ.update(REDIS_URL=endpoints.redis_url, DATABASE_URL=endpoints.database_url)
        elif settings.database_url is not None:
            _report_schema(settings.database_url)
        _tell(settings)
        _run(workers, listener)


@commands.command()
def demo() -> None:
    """Add the demo data that the examples speak of, to tables that are empty. Doing it again changes nothing.

    It goes to DATABASE_URL, or else to the Postgres that `fourways serve` runs in FOURWAYS_DIRECTORY.
    """
    _report_demo(_running_database())


Letters = Annotated[
    list[int] | None, typer.Argument(metavar="ID", help="The ids that `list` shows.", min=1, max=LARGEST)
]
All = Annotated[bool, typer.Option("--all", help="All that there are.")]


@dead_letters.command("list")
def list_dead_letters() -> None:
    """Show the dead letters, oldest first."""

    async def shown(store: PageViewStore) -> int:
        # Whatever is too long for its column is continued in the next line: a page has to be known exactly.
        columns = (Column(name, overflow="fold") for name in ("id", "page", "views", "why", "tries", "since"))
        table = Table(*columns, box=None)
        async for letter in _all_letters(store):
            # Where there is no page, the bytes as they came.
            page = repr(letter.entry)[1:] if letter.page is None else letter.page
            views = "" if letter.delta is None else f"{letter.delta:,}"
            since = f"{letter.created_at:%Y-%m-%d %H:%M:%S}"
            table.add_row(str(letter.id), _plain(page), views, _plain(letter.reason), str(letter.deliveries), since)
        console.print(table if table.row_count else NONE, soft_wrap=not table.row_count)
        return 0

    _with_letters(shown)


@dead_letters.command()
def replay(ids: Letters = None, every: All = False) -> None:
    """Count the views of dead letters whose cause is gone, and remove those letters."""

    async def replayed(store: PageViewStore, letter: int) -> str:
        page, views = await store.replay(letter)
        return f"Dead letter {letter}: {views:,} views of {_plain(page)} are counted."

    _each(ids, every, replayed)


@dead_letters.command()
def discard(ids: Letters = None, every: All = False) -> None:
    """Remove dead letters. Their views are never counted."""

    async def discarded(store: PageViewStore, letter: int) -> str:
        await store.discard(letter)
        return f"Dead letter {letter} is discarded."

    _each(ids, every, discarded)


def _each(ids: list[int] | None, every: bool, act: Callable[[PageViewStore, int], Awaitable[str]]) -> None:
    if bool(ids) == every:
        raise typer.BadParameter("Name the ids of dead letters, or --all of them.")

    async def done(store: PageViewStore) -> int:
        failed = 0
        letters = ids or [letter.id async for letter in _all_letters(store)]
        if not letters:
            console.print(NONE)
        for letter in letters:
            try:
                console.print(await act(store, letter))
            except (NotFound, Conflict) as error:
                complaints.print(_plain(str(error)), style="red")
                failed += 1
        return failed

    _with_letters(done)


def _plain(text: str) -> str:
    """Somebody else's text, on one line: what a terminal would carry out is spelled out."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


async def _all_letters(store: PageViewStore) -> AsyncIterator[DeadLetter]:
    after = 0
    while letters := await store.dead_letters(200, after):
        for letter in letters:
            yield letter
        after = letters[-1].id


def _with_letters(act: Callable[[PageViewStore], Awaitable[int]]) -> None:
    """Acts on the dead letters, and exits with 1 when some of that has failed."""
    url = _running_database()

    async def acted() -> int:
        async with open_database(
            url, connections=2, timeout=timedelta(seconds=10), counted=lambda resource: None
        ) as database:
            return await act(PageViewStore(database))

    if asyncio.run(acted()):
        raise SystemExit(1)


def _running_database() -> str:
    """DATABASE_URL, or else the Postgres that `fourways serve` runs in FOURWAYS_DIRECTORY."""
    settings = read_settings()
    endpoints = None if settings.database_url else running_endpoints(settings.directory)
    url = settings.database_url or (endpoints.database_url if endpoints else None)
    if url is None:
        raise SettingsError(
            f"Nothing runs in {settings.directory}: start it with `make run` or `fourways serve`, or set REDIS_URL and "
            "DATABASE_URL."
        )
    return url


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
    """Turns the first SIGINT or SIGTERM into an exception: what was started is stopped on the way out.

    Not while a server is being started: an exception between two steps of that would leave a lock in a traceback, or a
    child that nobody knows of. There the signal waits until the server is up.
    """

    def __init__(self) -> None:
        self._deferred = False
        self._asked = False

    def __enter__(self) -> Self:
        signal.signal(signal.SIGINT, self._leave)
        signal.signal(signal.SIGTERM, self._leave)
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> bool:
        _deafen()
        if kind is None or kind is KeyboardInterrupt:  # It was asked for, and is no failure.
            console.print("Stopped.")
            return True
        return False

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Holds a signal back until the block has ended."""
        self._deferred = True
        yield
        self._deferred = False
        if self._asked:
            raise KeyboardInterrupt

    def _leave(self, number: int, frame: FrameType | None) -> None:
        _deafen()
        self._asked = True
        if not self._deferred:
            raise KeyboardInterrupt


def _deafen() -> None:
    """The way out takes a second or two. Another Ctrl-C must not leave a server behind."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _prepare(endpoints: Endpoints) -> None:
    console.print("Bringing the schema up to date")
    migrate(endpoints.database_url)
    _report_demo(endpoints.database_url)


def _report_demo(url: str) -> None:
    rows = asyncio.run(add_demo_data(url))
    console.print(
        f"Demo data is there: {rows.users} users, {rows.products} products, stock of {rows.stock}, "
        f"views of {rows.page_views} pages"
    )


def _report_schema(url: str) -> None:
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


def _tell(settings: Settings) -> None:
    # Who listens everywhere is found at home.
    host = "localhost" if settings.host in ("0.0.0.0", "::") else settings.host
    host = f"[{host}]" if ":" in host else host
    address = f"http://{host}:{settings.port}"
    console.print(f"\nFourways serves at {address}; Ctrl-C stops it. What to try:\n", style="bold")
    console.print(f"  {address}/       where to begin")
    console.print(f"  {address}/docs   every call")
    console.print(f"  curl -i {address}/users/1   twice: from the database, and from the cache\n")


def _run(workers: int, listener: socket.socket) -> None:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    # Named, and not imported: the command line has to work, and to complain, where the application's settings do not.
    config = uvicorn.Config(
        "app.main:app",
        workers=workers,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=GRACE,
        timeout_worker_healthcheck=SILENCE,
        http="app.one_write:OneWrite",
        proxy_headers=False,  # Nothing here asks who the client is, and looking costs every request.
    )
    if workers == 1:
        _Server(config).run(sockets=[listener])
        return
    supervisor = _Supervisor(config, sockets=[listener])
    supervisor.run()
    if any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes):
        raise SystemExit(STARTUP_FAILURE)


class _Server(uvicorn.Server):
    """Uvicorn's own, which a second Ctrl-C does not hurry: requests under way have their `GRACE`, and no more."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if not self.should_exit:
            super().handle_exit(sig, frame)


class _Supervisor(Multiprocess):
    """Uvicorn's own, with an orderly beginning and end."""

    def init_processes(self) -> None:
        with _ctrl_c_for_us_alone():
            super().init_processes()

    def keep_subprocess_alive(self) -> None:
        with _ctrl_c_for_us_alone():
            super().keep_subprocess_alive()

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
