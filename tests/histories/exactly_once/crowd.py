"""A crowd of clients, and its end: everything that was answered is counted, and every worker says so."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from app.embedded import Endpoints
from tests.caching.write_behind.views import COUNTED
from tests.eventually import eventually
from tests.histories.exactly_once.application import Application
from tests.histories.exactly_once.books import Books
from tests.histories.exactly_once.ends import carried, dead_letters, psql, stored, waiting
from tests.histories.exactly_once.visitor import Client, Reader, Visitor

PAGES = 40
"""Number of pages for careful visitors, and also for careless ones."""


@asynccontextmanager
async def visiting(
    name: str, application: Application, stores: Endpoints, books: Books, randomness: random.Random
) -> AsyncIterator[None]:
    """Runs two visitors of each kind and two readers while the block lasts, and until they complete what they began."""
    pages = {
        careful: [f"{name}/{'careful' if careful else 'careless'}/{number}" for number in range(PAGES)]
        for careful in (False, True)
    }
    looking = asyncio.Lock()

    async def look(page: str) -> int:
        try:
            async with looking, psql(stores.database_url) as sql:
                return await sql.fetchval(f"SELECT views FROM ({COUNTED}) AS counted WHERE page = $1", page) or 0
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return 0

    def client(pages: list[str]) -> Client:
        return Client(application.url, books, pages, random.Random(randomness.random()))

    over = asyncio.Event()
    visitors = [
        Visitor(f"{name}-{number}-{many}", client(pages[careful]), many=many, careful=careful)
        for number in range(2)
        for many in (False, True)
        for careful in (False, True)
    ]
    readers = [Reader(client([*pages[True], *pages[False]]), look) for _ in range(2)]
    async with asyncio.TaskGroup() as group:
        for visitor in visitors:
            group.create_task(visitor.visit(over))
        for reader in readers:
            group.create_task(reader.read(over))
        yield
        over.set()


async def enough(books: Books, views: int) -> bool:
    """Whether at least `views` views were counted, and no answered total lacks anything."""
    return books.counted.total() >= views and not books.lacking


async def settled(application: Application, stores: Endpoints, books: Books) -> tuple[float, dict[str, int]]:
    """Returns when all that was answered is in Postgres, nothing is pending, and each worker tells exactly what
    Postgres has. Returns the seconds that this took, and what Postgres has.

    A call of many pages that was answered with an error may have been accepted in part: when Redis loses this part, it
    is accepted again, too, some time later.
    """
    found: dict[str, int] = {}
    less: dict[str, int] = {}
    wrong: list[str] = []

    async def all_agree() -> bool:
        nonlocal found, less, wrong
        quiet = await carried(stores.redis_url)
        every = await stored(stores.database_url)
        found = {page: every.get(page, 0) for page in books.sent}
        less = {page: views - found[page] for page, views in books.counted.items() if found[page] < views}
        if not quiet or less:
            return False
        answers = {page: [await each.ask(f"/page-views/{page}") for each in connections] for page in found}
        wrong = [
            f"{page}: Postgres has {found[page]}, and a worker says {answer.body!r}"
            for page, each in answers.items()
            for answer in each
            if answer.status != 200 or answer.json() != {"page": page, "views": found[page]}
        ]
        return not wrong

    async with application.each() as connections:
        try:
            took = await eventually(all_agree)
        except AssertionError as error:
            raise AssertionError(
                f"There waits {await waiting(stores.redis_url)}; there lack {less}; {wrong}."
            ) from error
    assert await dead_letters(stores.database_url) == 0
    return took, found
