"""Clients of all four strategies, over HTTP, on one instance or another. They record what they were answered."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from tests.histories.identity.shelf import Shelf
from tests.histories.identity.views import Views
from tests.histories.linearizability.client import Client
from tests.keep_alive import Answer
from tests.keyed import Keyed, keyed
from tests.outages.failover.any_instance import AnyInstance
from tests.outages.failover.two_histories import Read, TwoHistories, Write
from tests.service import Service

READERS, WRITERS, SHOPPERS, VISITORS = 3, 2, 3, 2
PACE = 0.02
"""Seconds between two calls of a reader or a visitor."""
SKUS = ("S1", "S2")
HOT = "hot"
"""The page that is viewed again and again. Each other page is viewed once."""
PATIENCE = 30.0
"""Seconds after which a request counts as hung."""

Connections = Mapping[str, Keyed]
"""A connection to each instance, by its URL."""


class Clients:
    """All clients. `rows` are the keys of the users and products that they read and write."""

    def __init__(self, services: Sequence[Service], rows: Sequence[str], randomness: random.Random) -> None:
        self.rows = TwoHistories()
        self.shelf, self.views = Shelf(), Views()
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        """Answers that must never be given."""
        self._services, self._keys, self._randomness = services, rows, randomness
        self._over = asyncio.Event()

    @asynccontextmanager
    async def calling(self) -> AsyncIterator[None]:
        """Runs the clients while the block lasts. At its end, all calls are answered."""
        async with asyncio.TaskGroup() as group:
            for _ in range(READERS):
                group.create_task(self._read(self._own()))
            for number in range(WRITERS):
                group.create_task(self._write(self._own(), self._keys[number::WRITERS]))
            for number in range(SHOPPERS):
                group.create_task(self._shop(self._own(), f"c{number}"))
            for number in range(VISITORS):
                group.create_task(self._visit(self._own(), f"{number}"))
            try:
                yield
            finally:
                self._over.set()

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Connections]:
        """Yields a connection to each instance."""
        async with AsyncExitStack() as stack:
            yield {service.url: (await stack.enter_async_context(keyed(service, 1)))[0] for service in self._services}

    async def read(self, connection: Keyed, key: str) -> bool:
        """Reads a row. Returns whether it was a hit that was verified."""
        began = time.monotonic()
        answer = await self._asked(connection, "GET", f"/{key}")
        how = answer.headers.get("cache-status", "")
        if answer.status != 200 or "unverified" in how or "stale-if-error" in how:
            self._count("read", answer, "marked")
            return False
        row = answer.json()
        self.rows.reads[key].append(Read(began, time.monotonic(), row["name"], row["version"], how))
        self.counts[how.split(";")[1].strip()] += 1
        return "hit" in how

    def _own(self) -> random.Random:
        return random.Random(self._randomness.random())

    async def _asked(self, connection: Keyed, method: str, path: str, body: object = None) -> Answer:
        return await asyncio.wait_for(connection.ask(path, method=method, body=body), PATIENCE)

    def _count(self, what: str, answer: Answer, good: str) -> None:
        """Counts an answer. Only a good one, and a 503, are right."""
        if answer.status in (200, 202):
            self.counts[good] += 1
        elif answer.status == 503:
            self.counts[f"{what} refused"] += 1
        else:
            self.wrong.append(f"A {what} was answered {answer.status} {answer.body!r}.")

    async def _read(self, own: random.Random) -> None:
        async with self.connected() as connections:
            while not self._over.is_set():
                await asyncio.sleep(PACE)
                await self.read(own.choice(list(connections.values())), own.choice(self._keys))

    async def _write(self, own: random.Random, keys: Sequence[str]) -> None:
        """Writes rows, and reads each afterwards: so the caches have what the database will have lost."""
        number = 0
        async with self.connected() as connections:
            while not self._over.is_set():
                await asyncio.sleep(own.uniform(0.02, 0.15))
                (key,) = own.choices(keys, [1 / place**2 for place in range(1, len(keys) + 1)])
                number += 1
                await self._write_once(own.choice(list(connections.values())), key, f"{key} {number}")
                await self.read(own.choice(list(connections.values())), key)

    async def _write_once(self, connection: Keyed, key: str, name: str) -> None:
        began = time.monotonic()
        self.rows.writes[key][name] = Write(began)
        answer = await self._asked(connection, "PATCH", f"/{key}", {"name": name})
        self._count("write", answer, "written")
        if answer.status == 200:
            self.rows.writes[key][name] = Write(began, time.monotonic(), answer.json()["version"])

    async def _shop(self, own: random.Random, name: str) -> None:
        target = AnyInstance([service.url for service in self._services], own)
        client = Client(name, target, self.shelf.recorder, own)
        try:
            while not self._over.is_set():
                await client.call(SKUS)
        finally:
            await target.close()

    async def _visit(self, own: random.Random, name: str) -> None:
        number = 0
        async with self.connected() as connections:
            while not self._over.is_set():
                await asyncio.sleep(2 * PACE)
                number += 1
                await self._view(own, connections, f"{name}/{number}")

    async def _view(self, own: random.Random, connections: Connections, page: str) -> None:
        self.views.view(page)
        self.counts["hot sent"] += 1
        viewed = {"views": [{"page": page}, {"page": HOT}]}
        answer = await self._asked(own.choice(list(connections.values())), "POST", "/page-views", viewed)
        self._count("view", answer, "viewed")
        if answer.status != 202:
            return
        self.views.took(page)
        total = await self._asked(own.choice(list(connections.values())), "GET", f"/page-views/{page}")
        if total.status == 200 and total.json()["views"] > 1:
            self.wrong.append(f"{page} was viewed once, and its total was {total.json()['views']}.")
