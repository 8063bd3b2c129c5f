"""The rows of one contestant in the lab's schema, and the statements that read and write them.

What can go wrong: `DatabaseUnavailable`.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from app.availability import available
from app.caching import Revoke
from app.lab.comparison.pool import Pool
from app.lab.strategy import Row


class LabTable:
    """The rows of one contestant, whose keys begin with `prefix`; `cached` says whether they have an outbox.

    `count` is called for each statement, with the number of keys it reads, or None for a write. Raises
    DatabaseUnavailable.
    """

    def __init__(
        self,
        pool: Pool,
        prefix: str,
        *,
        cached: bool = False,
        count: Callable[[int | None], None] = lambda keys: None,
    ) -> None:
        self._pool, self._prefix, self._count = pool, prefix, count
        table = "entries" if cached else "plain_entries"
        self._load = f"SELECT value, version FROM {table} WHERE key = $1"
        self._load_many = f"SELECT key, value, version FROM {table} WHERE key = ANY($1::text[])"
        self._save = f"UPDATE {table} SET value = $2 WHERE key = $1 RETURNING value, version"
        self._add = f"UPDATE {table} SET value = value + $2 WHERE key = $1 RETURNING value, version"
        # Sorted, so that two transactions lock the rows in the same order.
        self._save_many = (
            f"UPDATE {table} SET value = new.value FROM (SELECT * FROM unnest($1::text[], $2::bigint[]) "
            f"AS new (key, value) ORDER BY key) AS new WHERE {table}.key = new.key"
        )

    async def load(self, key: str) -> Row | None:
        """Returns the row of `key`."""
        self._count(1)
        async with available():
            return _row(await self._pool.fetchrow(self._load, self._prefix + key))

    async def load_many(self, keys: Sequence[str]) -> dict[str, Row]:
        """Returns the rows of those `keys` that exist."""
        self._count(len(keys))
        async with available():
            rows = await self._pool.fetch(self._load_many, [self._prefix + key for key in keys])
        return {row["key"][len(self._prefix) :]: Row(row["value"], row["version"]) for row in rows}

    async def load_shared(self, key: str) -> tuple[bool, Row | None]:
        """Returns whether the row's lock could be shared (no writer held it), and the row."""
        self._count(1)
        async with available():
            (row,) = await self._pool.fetch("SELECT * FROM load_entry($1)", self._prefix + key)
        return bool(row["unlocked"]), None if row["version"] is None else _row(row)

    async def save(self, key: str, value: int) -> Row | None:
        """Sets its value and returns the new row; None when there is none."""
        return await self._change(self._save, key, value)

    async def add(self, key: str, count: int) -> Row | None:
        """Adds to its value and returns the new row; None when there is none."""
        return await self._change(self._add, key, count)

    async def save_many(self, values: dict[str, int]) -> None:
        """Sets many values in one transaction."""
        self._count(None)
        keys = [self._prefix + key for key in values]
        async with available():
            await self._pool.execute(self._save_many, keys, list(values.values()))

    async def save_each(self, values: Sequence[tuple[str, int]]) -> None:
        """Sets them in order, in one transaction."""
        self._count(
            None
        )  # Before the transaction: the crash drill waits until this is sent, not until its first answer.
        async with available(), self._pool.acquire() as connection, connection.transaction():
            for place, (key, value) in enumerate(values):
                if place:
                    self._count(None)
                await connection.execute(self._save, self._prefix + key, value)

    async def save_locked(self, key: str, value: int, revoke: Revoke) -> Row | None:
        """Saves under the row's lock; `revoke` is sent together with the change, and both must answer before COMMIT."""
        name = self._prefix + key
        self._count(None)
        self._count(None)
        async with available(), self._pool.acquire() as connection, connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock(stock_lock($1))", name)
            changed, revoked = await asyncio.gather(
                connection.fetchrow(self._save, name, value), revoke(), return_exceptions=True
            )
            for outcome in (revoked, changed):
                if isinstance(outcome, BaseException):
                    raise outcome
        return _row(changed)

    async def _change(self, statement: str, key: str, value: int) -> Row | None:
        # One statement is its own transaction, without BEGIN and COMMIT.
        self._count(None)
        async with available():
            return _row(await self._pool.fetchrow(statement, self._prefix + key, value))


def _row(row: Any) -> Row | None:
    return None if row is None else Row(row["value"], row["version"])


async def add_rows(pool: Pool, prefix: str, keys: Sequence[str], *, cached: bool) -> None:
    """Adds a row of value 0 for each key under a prefix; `cached` as in `LabTable`."""
    async with available():
        await pool.execute(
            f"INSERT INTO {'entries' if cached else 'plain_entries'} (key, value, version) "
            "SELECT $1 || key, 0, nextval('row_version') FROM unnest($2::text[]) AS new (key) ON CONFLICT DO NOTHING",
            prefix,
            list(keys),
        )
