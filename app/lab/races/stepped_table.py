"""A table with one number under each key. Each of its statements is a step of a schedule.

A connection stands for a process: one statement at a time, and at most one transaction. `schema.py` has the tables.

What can go wrong: two statements that wait for each other would wait in Postgres, unseen by the gate. So a writer only
tries to get a row's lock, and tries again when a lock is released.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import asyncpg

from app.caching import Revoke
from app.lab.races.gate import Gate
from app.lab.strategy import Row

T = TypeVar("T")

CHANGE = """
WITH changed AS (
  UPDATE rows SET value = {value}, version = nextval('versions') WHERE key = $1 RETURNING key, value, version
), recorded AS (INSERT INTO outbox (key, version, done) SELECT key, version, false FROM changed)
SELECT value, version FROM changed
"""
SAVE, ADD = CHANGE.format(value="$2"), CHANGE.format(value="value + $2")

APPLY = """
WITH fresh AS (INSERT INTO applied SELECT DISTINCT unnest($1::text[]) ON CONFLICT DO NOTHING RETURNING batch),
sums AS (
  SELECT key, sum(delta)::bigint AS delta FROM unnest($1::text[], $2::text[], $3::bigint[]) AS new (batch, key, delta)
  JOIN fresh USING (batch) GROUP BY key
)
UPDATE rows SET value = value + delta FROM sums WHERE sums.key = rows.key
"""


@dataclass(frozen=True, slots=True)
class Change:
    """A row of the outbox."""

    id: int
    key: str
    version: int


class SteppedTable:
    """The table as one actor sees it. `commits` is called with each committed value and its version."""

    def __init__(
        self, connection: asyncpg.Connection, gate: Gate, actor: int, commits: Callable[[int, int], None]
    ) -> None:
        self._connection, self._gate, self._actor, self._commits = connection, gate, actor, commits

    async def load(self, key: str) -> Row | None:
        """Returns the row of `key`."""
        return await self._step("SELECT", lambda: self._load(key))

    async def load_many(self, keys: Sequence[str]) -> dict[str, Row]:
        """Returns the rows of those `keys` that exist. No case has more than one key, so each row is one step."""
        rows = {key: await self.load(key) for key in keys}
        return {key: row for key, row in rows.items() if row is not None}

    async def load_shared(self, key: str) -> tuple[bool, Row | None]:
        """Returns whether the row's lock could be shared (no writer held it), and the row, which is read after that."""

        async def load() -> tuple[bool, Row | None]:
            async with self._connection.transaction():
                unlocked = await self._connection.fetchval("SELECT pg_try_advisory_xact_lock_shared(hashtext($1))", key)
                return bool(unlocked), await self._load(key)

        return await self._step("SELECT, sharing the lock", load)

    async def save(self, key: str, value: int) -> Row | None:
        """Sets its value and returns the new row; None when there is none."""
        return await self._step(f"UPDATE to {value}", lambda: self._change(SAVE, key, value))

    async def add(self, key: str, count: int) -> Row | None:
        """Adds to its value and returns the new row; None when there is none."""
        return await self._step(f"UPDATE by {count}", lambda: self._change(ADD, key, count))

    async def save_many(self, values: dict[str, int]) -> None:
        """Sets many values in one transaction."""
        await self.save_each(list(values.items()))

    async def save_each(self, values: Sequence[tuple[str, int]]) -> None:
        """Sets the values in order, in one step: no other process sees what is not committed."""

        async def save() -> None:
            async with self._connection.transaction():
                for key, value in values:
                    await self._change(SAVE, key, value)

        await self._step(f"UPDATE to {', '.join(str(value) for _key, value in values)}", save)

    async def save_locked(self, key: str, value: int, revoke: Revoke) -> Row | None:
        """Sets its value under the row's lock. `revoke` is sent together with the change, and both have answered before
        COMMIT."""
        await self._lock(key)
        try:
            row, revoked = await asyncio.gather(
                self._step(f"UPDATE to {value}", lambda: self._change(SAVE, key, value, committed=False)),
                revoke(),
                return_exceptions=True,
            )
            for outcome in (revoked, row):
                if isinstance(outcome, BaseException):
                    raise outcome
        except Exception:
            await self._step("ROLLBACK", self.roll_back)
            raise
        assert row is None or isinstance(row, Row)

        async def commit() -> None:
            await self._connection.execute("COMMIT")
            if row is not None:
                self._commits(row.value, row.version)
            self._gate.unlock()

        await self._step("COMMIT", commit)
        return row

    async def undone(self) -> list[Change]:
        """Returns the changes that no relay has invalidated yet, the oldest first."""

        async def undone() -> list[Change]:
            rows = await self._connection.fetch("SELECT id, key, version FROM outbox WHERE NOT done ORDER BY id")
            return [Change(**row) for row in rows]

        return await self._step("SELECT from the outbox", undone)

    async def done(self, changes: Sequence[Change]) -> None:
        """Marks changes as invalidated."""
        ids = [change.id for change in changes]

        async def done() -> None:
            await self._connection.execute("UPDATE outbox SET done = true WHERE id = ANY($1::bigint[])", ids)

        await self._step("UPDATE the outbox", done)

    async def apply(self, batches: Mapping[str, Mapping[str, int]]) -> int:
        """Counts the batches that are new, in one transaction, and returns how many rows that changed."""
        each = [(batch, key, delta) for batch, deltas in batches.items() for key, delta in deltas.items()]

        async def apply() -> int:
            columns = [list(column) for column in zip(*each, strict=True)]
            return int((await self._connection.execute(APPLY, *columns)).split()[-1])

        return await self._step("count batches that are new", apply)

    async def standing(self, keys: Sequence[str], batches: Sequence[str]) -> tuple[dict[str, int], frozenset[str]]:
        """Returns the values of keys, and which of the batches were counted, from one snapshot."""

        async def standing() -> tuple[dict[str, int], frozenset[str]]:
            async with self._connection.transaction(isolation="repeatable_read"):
                rows = await self._connection.fetch(
                    "SELECT key, value FROM rows WHERE key = ANY($1::text[])", list(keys)
                )
                counted = await self._connection.fetch(
                    "SELECT batch FROM applied WHERE batch = ANY($1::text[])", list(batches)
                )
            return {row["key"]: row["value"] for row in rows}, frozenset(row["batch"] for row in counted)

        return await self._step("SELECT with the ledger", standing)

    async def reset(self, key: str) -> None:
        """Resets the tables before a schedule: one row of value 0, and nothing else."""
        await self._connection.execute("DELETE FROM rows; DELETE FROM outbox; DELETE FROM applied")
        await self._connection.execute("INSERT INTO rows VALUES ($1, 0, 1)", key)

    async def roll_back(self) -> None:
        """Rolls back the transaction, if there is one, as Postgres does when a dead process' connection ends."""
        if self._connection.is_in_transaction():
            await self._connection.execute("ROLLBACK")
        self._gate.unlock()

    async def _lock(self, key: str) -> None:
        async def lock() -> bool:
            await self._connection.execute("BEGIN")
            if await self._connection.fetchval("SELECT pg_try_advisory_xact_lock(hashtext($1))", key):
                return True
            await self._connection.execute("ROLLBACK")
            return False

        try:
            while not await self._step("BEGIN, lock the row", lock):
                await self._gate.unlocked()
        except ConnectionError:
            await self._gate.bypass(self._actor, self.roll_back)  # Postgres notices that the connection is broken.
            raise

    async def _load(self, key: str) -> Row | None:
        row = await self._connection.fetchrow("SELECT value, version FROM rows WHERE key = $1", key)
        return None if row is None else Row(**row)

    async def _change(self, statement: str, key: str, value: int, *, committed: bool = True) -> Row | None:
        row = await self._connection.fetchrow(statement, key, value)
        if row is not None and committed:
            self._commits(row["value"], row["version"])
        return None if row is None else Row(**row)

    async def _step(self, text: str, call: Callable[[], Awaitable[T]]) -> T:
        return await self._gate.step(
            self._actor, text, call, lambda: ConnectionError("The answer of the database is lost."), show=_shown
        )


def _shown(answer: object) -> str:
    match answer:
        case unlocked, Row(value=value):
            return f"{value}" if unlocked else f"{value}, locked"
        case Row(value=value):
            return str(value)
        case False:
            return "somebody has it"
        case list() as changes:
            return f"{len(changes)} changes" if changes else "nothing"
    return ""
