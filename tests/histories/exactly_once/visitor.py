"""Clients: visitors that view pages, one or many at a time, and readers of their totals."""

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from tests.histories.exactly_once.application import Connection
from tests.histories.exactly_once.books import Books
from tests.keep_alive import Answer
from tests.keyed import HUNG_UP

PATIENCE = 10.0
"""Seconds after which a waiting client hangs up."""
LONGEST = 60.0
"""Longest time in seconds for which the whole application may be away."""
PAUSE = 0.02
"""Pause in seconds after an error."""
ALPHA = 1.1

Stored = Callable[[str], Awaitable[int]]
"""Returns what the database has of a page; 0 when it does not answer."""


class Client:
    """Calls on one connection, and on a new one when that is lost. Now and then it changes the connection anyway, and
    so perhaps the worker."""

    def __init__(self, url: str, books: Books, pages: Sequence[str], randomness: random.Random) -> None:
        self.books, self.pages, self.random = books, pages, randomness
        self._url = url
        self._connection: Connection | None = None
        self._weights = list(itertools.accumulate(1 / rank**ALPHA for rank in range(1, len(pages) + 1)))

    def choose(self, number: int = 1) -> list[str]:
        """Returns pages: the first one most often."""
        return self.random.choices(self.pages, cum_weights=self._weights, k=number)

    async def call(self, path: str, body: object = None, key: str | None = None) -> Answer | None:
        """Returns the answer; None when the call was not done, or nobody knows."""
        if self.random.random() < 0.03:
            await self.close()
        connection, self._connection = self._connection or await self._connected(), None
        self.books.counts["calls"] += 1
        try:
            async with asyncio.timeout(PATIENCE):
                answer = await (connection.ask(path) if body is None else connection.post(path, body, key=key))
        except (*HUNG_UP, TimeoutError):
            self.books.counts["hung up"] += 1
            await connection.close()
            return None
        self._connection = connection
        if answer.status == 503:
            assert "retry-after" in answer.headers, answer
            self.books.counts[f"503 {answer.json()['type']}"] += 1
            return None
        if answer.status not in (200, 202):
            self.books.wrong.append(f"{path}: {answer}")
            return None
        return answer

    async def _connected(self) -> Connection:
        async with asyncio.timeout(LONGEST):
            while True:
                try:
                    return await Connection.to(self._url)
                except ConnectionError:
                    await asyncio.sleep(PAUSE)

    async def close(self) -> None:
        """Closes the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


class Visitor:
    """Views pages. A careful visitor names each call, and repeats it until it is answered, so it knows what was
    counted. A careless one goes on to the next call."""

    def __init__(self, name: str, client: Client, *, many: bool, careful: bool) -> None:
        self.name, self._client, self._many, self._careful = name, client, many, careful
        self.calls = 0

    async def visit(self, over: asyncio.Event) -> None:
        """Posts until `over` is set. A careful visitor completes the call that it has begun."""
        try:
            while not over.is_set():
                await self._view()
                self.calls += 1
        finally:
            await self._client.close()

    async def _view(self) -> None:
        client, books = self._client, self._client.books
        views = Counter({page: client.random.randint(1, 3) for page in client.choose(20 if self._many else 1)})
        (page, count), *_ = views.items()
        path = "/page-views" if self._many else f"/page-views/{page}"
        body: Any = {"count": count}
        if self._many:
            body = {"views": [{"page": page, "count": count} for page, count in views.items()]}
        key = f"{self.name}-{self.calls}" if self._careful else None
        with books.call(views) as call:
            floor = books.floor(page)
            answer = await client.call(path, body, key)
            while answer is None:
                await asyncio.sleep(PAUSE)
                if not self._careful:
                    return
                books.counts["repeated"] += 1
                call.repeated = True
                floor = books.floor(page)
                answer = await client.call(path, body, key)
        books.counted.update(views)
        books.counts["answered"] += 1
        if self._many:
            if answer.json() != {"accepted": views.total()}:
                books.wrong.append(f"{self.name}: {answer}")
        elif (told := answer.json()["views"]) is not None:
            books.hear(page, floor, told)


class Reader:
    """Asks Postgres, and then the service, which must not know less."""

    def __init__(self, client: Client, stored: Stored) -> None:
        self._client, self._stored = client, stored

    async def read(self, over: asyncio.Event) -> None:
        """Reads until `over` is set, preferring pages whose totals lacked something."""
        try:
            while not over.is_set():
                await self._look(self._client.choose()[0])
                for page in sorted(self._client.books.lacking):
                    await self._look(page)
        finally:
            await self._client.close()

    async def _look(self, page: str) -> None:
        books = self._client.books
        books.look(page, await self._stored(page))
        floor = books.floor(page)
        answer = await self._client.call(f"/page-views/{page}")
        if answer is None:
            await asyncio.sleep(PAUSE)
        else:
            books.hear(page, floor, answer.json()["views"])
