"""Clients that read and write while faults happen, and record their answers."""

import asyncio
import random
import traceback
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from app.caching import CacheError, Reading
from app.errors import DatabaseUnavailable
from app.products.models import Product
from app.users.models import User
from tests.coherence.conftest import Instance
from tests.histories.identity.deployment import Deployment
from tests.histories.identity.ledger import Ledger
from tests.histories.identity.shelf import Shelf
from tests.histories.identity.stock_target import StockTarget
from tests.histories.identity.views import Views
from tests.histories.linearizability.client import Client

READERS, SHOPPERS, VISITORS = 4, 3, 2
PACE = 0.01
"""Seconds between two calls of a reader."""
SKUS = ("S1", "S2")


class Crowd:
    """All clients of one deployment."""

    def __init__(self, deployment: Deployment, randomness: random.Random) -> None:
        self._deployment, self._randomness = deployment, randomness
        self.ledger, self.shelf, self.views = Ledger(), Shelf(), Views()
        self._over = asyncio.Event()

    @asynccontextmanager
    async def calling(self) -> AsyncIterator[None]:
        """Runs the clients while the block lasts."""
        rows = sorted(self.ledger.rows)
        async with asyncio.TaskGroup() as group:
            for _ in range(READERS):
                group.create_task(self._read(self._own(), rows))
            for number in range(2):
                group.create_task(self._write(self._own(), rows[number::2]))
            for number in range(SHOPPERS):
                group.create_task(self._shop(self._own(), f"c{number}"))
            for number in range(VISITORS):
                group.create_task(self._visit(self._own(), f"/{number}"))
            try:
                yield
            finally:
                self._over.set()

    def _own(self) -> random.Random:
        return random.Random(self._randomness.random())

    async def _read(self, own: random.Random, rows: Sequence[str]) -> None:
        while not self._over.is_set():
            await asyncio.sleep(PACE)
            with self._deployment.called(own) as (name, instance):
                await self.read(name, instance, own.choice(rows))

    async def read(self, name: str, instance: Instance, key: str) -> Reading[User] | Reading[Product] | None:
        """Reads a row, and checks the answer. Returns None when there was none."""
        expected = self.ledger.expect(key)
        resource, _, row = key.partition("/")
        reading: Reading[User] | Reading[Product]
        try:
            if resource == "users":
                reading = await instance.users.get(int(row))
            else:
                reading = await instance.products.get(row)
        except (CacheError, DatabaseUnavailable):
            self.ledger.counts["refused"] += 1
            return None
        except Exception as error:  # noqa: BLE001  # Whatever the error is, a client would get it as a defect.
            self._broke("read", error)
            return None
        self.ledger.counts[reading.outcome.value] += 1
        if not reading.verified:
            # Postgres was silent: the client is told that the value may have changed.
            self.ledger.counts["unverified"] += 1
            return reading
        value = reading.value
        found = None if value is None else value.name
        self.ledger.read(key, expected, found, reading.version, f"{reading.outcome} by {name}")
        return reading

    async def _write(self, own: random.Random, rows: Sequence[str]) -> None:
        """Writes rows, the last ones seldom: an old value of a row that is written all the time is short-lived."""
        number = 0
        while not self._over.is_set():
            await asyncio.sleep(own.uniform(0.02, 0.15))
            (key,) = own.choices(rows, [1 / place**2 for place in range(1, len(rows) + 1)])
            number += 1
            with self._deployment.called(own) as (_, instance):
                await self.write(instance, key, f"{key} {number}")
            with self._deployment.called(own) as (name, instance):
                await self.read(name, instance, key)

    async def write(self, instance: Instance, key: str, name: str) -> None:
        """Writes a row once."""
        resource, _, row = key.partition("/")
        self.ledger.writing(key, name)
        try:
            if resource == "users":
                version = (await instance.users.change(int(row), {"name": name}, None)).version
            else:
                version = (await instance.products.change(row, {"name": name}, None)).version
        except (CacheError, DatabaseUnavailable):
            self.ledger.counts["not written"] += 1
        except Exception as error:  # noqa: BLE001
            self._broke("write", error)
        else:
            self.ledger.wrote(key, name, version)

    async def _shop(self, own: random.Random, name: str) -> None:
        target = StockTarget(self._deployment, own, lambda: self.ledger.losing)
        client = Client(name, target, self.shelf.recorder, own)
        while not self._over.is_set():
            await client.call(SKUS)

    async def _visit(self, own: random.Random, name: str) -> None:
        number = 0
        while not self._over.is_set():
            await asyncio.sleep(2 * PACE)
            number += 1
            page = f"{name}/{number}"
            with self._deployment.called(own) as (_, instance):
                self.views.view(page)
                try:
                    await instance.resources.page_views.add(page, 1)
                except CacheError:
                    self.ledger.counts["not viewed"] += 1
                else:
                    self.views.took(page)

    def _broke(self, what: str, error: Exception) -> None:
        """Only a database that is being restored may lack rows, tables and triggers."""
        self.ledger.counts[f"{what} broke"] += 1
        if not self.ledger.losing:
            self.ledger.wrong.append(f"A {what} broke: {''.join(traceback.format_exception(error))}")
