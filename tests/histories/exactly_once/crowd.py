"""A crowd of clients, and how it ends: all that was answered is counted, and everybody says so."""

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
"""So many are viewed by careful visitors, and as many by careless ones."""


@asynccontextmanager
async def visiting(
    name: str, application: Application, stores: Endpoints, books: Books, randomness: random.Random
) -> AsyncIterator[None]:
    """Visitors of each kind, twice, and two readers, while the block lasts, and until what was begun is completed."""
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
    """Whether so many were counted, and nothing is lacking in what is told."""
    return books.counted.total() >= views and not books.lacking


async def settled(application: Application, stores: Endpoints, books: Books) -> tuple[float, dict[str, int]]:
    """Returns when all that was answered is in Postgres, nothing waits, and each worker tells just what Postgres has;
    with the seconds that took, and what that is.

    A call of many pages that was answered with an error may have been taken on in part: of what Redis loses, this part,
    too, is taken on again, some time later.
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
