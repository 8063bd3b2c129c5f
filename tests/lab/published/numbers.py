"""A table of numbers in Postgres, with gates before and after its statements, and statements that fail."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import asyncpg

from app.lab.strategy import Row

UPDATE = "UPDATE numbers SET value = {}, version = version + 1 WHERE key = $1 RETURNING value, version"


class Gate:
    """Callers wait at it until it opens; `reached` says that one has arrived."""

    def __init__(self) -> None:
        self.reached, self.open = asyncio.Event(), asyncio.Event()

    async def passes(self) -> None:
        """Waits at the gate."""
        self.reached.set()
        await self.open.wait()


class Numbers:
    """The table. The next statement that a test holds waits at its gate; later ones do not."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self.loads = 0
        self.failures = 0
        """How many of the next writes fail, and change nothing."""
        self._before: Gate | None = None
        self._behind: Gate | None = None

    @contextmanager
    def held_before(self) -> Iterator[Gate]:
        """Holds the next statement before it is sent."""
        gate = self._before = Gate()
        yield gate
        gate.open.set()

    @contextmanager
    def held_behind(self) -> Iterator[Gate]:
        """Holds the answer of the next statement, which was carried out."""
        gate = self._behind = Gate()
        yield gate
        gate.open.set()

    async def load(self, key: str) -> Row | None:
        """Returns the row."""
        self.loads += 1
        return await self._ask("SELECT value, version FROM numbers WHERE key = $1", key)

    async def save(self, key: str, value: int) -> Row | None:
        """Sets a value."""
        return await self._ask(UPDATE.format("$2"), key, value)

    async def add(self, key: str, count: int) -> Row | None:
        """Adds to a value."""
        return await self._ask(UPDATE.format("value + $2"), key, count)

    async def save_many(self, values: dict[str, int]) -> None:
        """Sets values one after another: no test looks between them."""
        await self.save_each(list(values.items()))

    async def save_each(self, values: Sequence[tuple[str, int]]) -> None:
        """Sets the values of pairs in the same way."""
        for key, value in values:
            await self._ask(UPDATE.format("$2"), key, value)

    async def value(self, key: str = "k") -> int:
        """Returns what Postgres has, without the gates."""
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
