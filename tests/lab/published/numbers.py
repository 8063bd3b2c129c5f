"""A table of numbers in Postgres, with a gate before and behind its statements, and statements that fail."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import asyncpg

from app.lab.strategy import Row

UPDATE = "UPDATE numbers SET value = {}, version = version + 1 WHERE key = $1 RETURNING value, version"


class Gate:
    """Who comes stands before it until it opens; `reached` tells that somebody does."""

    def __init__(self) -> None:
        self.reached, self.open = asyncio.Event(), asyncio.Event()

    async def passes(self) -> None:
        """Waits before the gate."""
        self.reached.set()
        await self.open.wait()


class Numbers:
    """The table. The next statement that a test holds stands at its gate, and those that come later do not."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self.loads = 0
        self.failures = 0
        """So many of the next writes fail, and change nothing."""
        self._before: Gate | None = None
        self._behind: Gate | None = None

    @contextmanager
    def held_before(self) -> Iterator[Gate]:
        """The next statement waits before it is sent."""
        gate = self._before = Gate()
        yield gate
        gate.open.set()

    @contextmanager
    def held_behind(self) -> Iterator[Gate]:
        """The answer of the next statement waits: it was carried out."""
        gate = self._behind = Gate()
        yield gate
        gate.open.set()

    async def load(self, key: str) -> Row | None:
        """The row."""
        self.loads += 1
        return await self._ask("SELECT value, version FROM numbers WHERE key = $1", key)

    async def save(self, key: str, value: int) -> Row | None:
        """Sets a value."""
        return await self._ask(UPDATE.format("$2"), key, value)

    async def add(self, key: str, count: int) -> Row | None:
        """Adds to a value."""
        return await self._ask(UPDATE.format("value + $2"), key, count)

    async def save_many(self, values: dict[str, int]) -> None:
        """Sets values, one after the other: nothing here looks between them."""
        await self.save_each(list(values.items()))

    async def save_each(self, values: Sequence[tuple[str, int]]) -> None:
        """The same of pairs."""
        for key, value in values:
            await self._ask(UPDATE.format("$2"), key, value)

    async def value(self, key: str = "k") -> int:
        """What Postgres has, past the gates."""
        return int(await self._pool.fetchval("SELECT value FROM numbers WHERE key = $1", key))

    async def _ask(self, statement: str, *arguments: object) -> Row | None:
        before, self._before = self._before, None
        behind, self._behind = self._behind, None
        if before is not None:
            await before.passes()
        if self.failures and statement.startswith("UPDATE"):
            self.failures -= 1
            raise ConnectionError("The database is away.")
        row = await self._pool.fetchrow(statement, *arguments)
        if behind is not None:
            await behind.passes()
        return None if row is None else Row(**row)
