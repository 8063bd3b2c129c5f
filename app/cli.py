"""The command line: `fourways serve`, `check`, `demo`, `grants`, `dead-letters` and `lab`."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from app import VERSION
from app.check import check, show
from app.database import open_database
from app.demo import add_demo_data
from app.embedded import running_endpoints
from app.errors import Conflict, NotFound
from app.faults import FAULTS
from app.grants_commands import grants
from app.lab.commands import lab
from app.page_views.models import DeadLetter
from app.page_views.salvage import LARGEST
from app.page_views.store import PageViewStore
from app.serve import serve as serve_until_told
from app.settings import SettingsError, read_settings
from app.store_health import OK

# Without markup and emoji, because a path or a value may contain text that looks like them.
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
commands.add_typer(grants, name="grants")
commands.add_typer(lab, name="lab")

NONE = "There are no dead letters."


def main() -> None:
    """Runs a command. Prints an error that the user can fix as a sentence, without a traceback."""
    try:
        commands()
    except FAULTS as error:
        complaints.print(str(error), style="red")
        raise SystemExit(1) from None


def _say_version(asked: bool) -> None:
    if asked:
        console.print(f"fourways {VERSION}")
        raise typer.Exit


@commands.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    # No docstring: the commands have their help above.
    pass


Workers = Annotated[int, typer.Option(min=1, max=64, help="How many processes serve.")]


@commands.command()
def serve(
    workers: Workers = 1,
    root_path: Annotated[
        str | None, typer.Option(metavar="PATH", help="The path below which a proxy serves this, as in /api.")
    ] = None,
) -> None:
    """Serve at PORT (8000), until Ctrl-C.

    Without REDIS_URL and DATABASE_URL, a Redis and a Postgres are started first, with their data in FOURWAYS_DIRECTORY
    (.fourways) and demo data in them, and stopped at the end. With them, nothing is started and nothing is migrated.
    """
    if root_path is not None:
        os.environ["FOURWAYS_ROOT_PATH"] = root_path  # The workers read their settings from the environment.
    serve_until_told(read_settings(), workers, console, complaints)


@commands.command("check")
def check_stores(workers: Workers = 1) -> None:
    """Try the settings and both stores, and say what to do about each fault. Exits with 1 if there is one.

    Tries REDIS_URL and DATABASE_URL, or else the servers that `fourways serve` runs in FOURWAYS_DIRECTORY, and whether
    they have room for one more instance. Changes nothing.
    """
    found = asyncio.run(check(read_settings(), workers))
    show(found, console)
    if any(says != OK for says in found.values()):
        raise SystemExit(1)


@commands.command()
def demo() -> None:
    """Add the demo data that the examples speak of, to tables that are empty. Doing it again changes nothing.

    It goes to DATABASE_URL, or else to the Postgres that `fourways serve` runs in FOURWAYS_DIRECTORY.
    """
    console.print(f"Demo data is there: {asyncio.run(add_demo_data(_running_database()))}")


Letters = Annotated[
    list[int] | None, typer.Argument(metavar="ID", help="The ids that `list` shows.", min=1, max=LARGEST)
]
All = Annotated[bool, typer.Option("--all", help="All that there are.")]


@dead_letters.command("list")
def list_dead_letters() -> None:
    """Show the dead letters, oldest first."""

    async def shown(store: PageViewStore) -> int:
        # A value too long for its column continues on the next line, because a page must be shown in full.
        columns = (Column(name, overflow="fold") for name in ("id", "page", "views", "why", "tries", "since"))
        table = Table(*columns, box=None)
        async for letter in _all_letters(store):
            # Without a page, show the raw bytes.
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
    """Returns foreign text on one line, with escapes for characters that a terminal would interpret."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


async def _all_letters(store: PageViewStore) -> AsyncIterator[DeadLetter]:
    after = 0
    while letters := await store.dead_letters(200, after):
        for letter in letters:
            yield letter
        after = letters[-1].id


def _with_letters(act: Callable[[PageViewStore], Awaitable[int]]) -> None:
    """Acts on the dead letters, and exits with code 1 if any action failed."""
    url = _running_database()

    async def acted() -> int:
        async with open_database(
            url, connections=2, timeout=timedelta(seconds=10), counted=lambda resource: None
        ) as database:
            return await act(PageViewStore(database))

    if asyncio.run(acted()):
        raise SystemExit(1)


def _running_database() -> str:
    """Returns DATABASE_URL, or the URL of the Postgres that `fourways serve` runs in FOURWAYS_DIRECTORY."""
    settings = read_settings()
    endpoints = None if settings.database_url else running_endpoints(settings.directory)
    url = settings.database_url or (endpoints.database_url if endpoints else None)
    if url is None:
        raise SettingsError(
            f"Nothing runs in {settings.directory}: start it with `make run` or `fourways serve`, or set REDIS_URL and "
            "DATABASE_URL."
        )
    return url
