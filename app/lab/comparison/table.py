"""The lab's tables: in a schema of their own, beside the service's and never mixed with them.

    fourways_lab        what the migrations make (outbox, ledger, page_views, …), and beside it
    entries             key, value, version, updated_at: with the triggers of every cached table; for our strategies
    plain_entries       the same with a version, but without an outbox: for those who know of none
    journal             each (key, value) that was set, in its order, and when: what the oracle judges by

The journal costs every strategy the same. Its clock is read within the transaction: a value is committed no earlier.

What can go wrong: `LabError` when another comparison runs in the same database. A process that was killed leaves the
schema behind; the next one removes it.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeAlias

import asyncpg

from app.availability import available
from app.connection import connect
from app.lab.strategy import Row
from app.schema import migrate

SCHEMA = "fourways_lab"
LOCK = 0x666F75726C6162
"""The advisory lock of whoever has the schema: "fourlab" in ASCII."""
PATIENCE = timedelta(seconds=30)

TABLES = """
CREATE UNLOGGED TABLE journal (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, key text COLLATE "C" NOT NULL, value bigint NOT NULL,
  at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE FUNCTION note_value() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO journal (key, value) VALUES (to_jsonb(NEW) ->> TG_ARGV[0], (to_jsonb(NEW) ->> TG_ARGV[1])::bigint);
  RETURN NULL;
END $$;
CREATE TABLE entries (
  key text COLLATE "C" PRIMARY KEY, value bigint NOT NULL, version bigint NOT NULL,
  updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE plain_entries (LIKE entries INCLUDING ALL);
CREATE TRIGGER note_value AFTER UPDATE ON entries FOR EACH ROW EXECUTE FUNCTION note_value('key', 'value');
CREATE TRIGGER note_value AFTER UPDATE ON plain_entries FOR EACH ROW EXECUTE FUNCTION note_value('key', 'value');
CREATE TRIGGER note_value AFTER INSERT OR UPDATE ON page_views
  FOR EACH ROW EXECUTE FUNCTION note_value('page', 'views');
CREATE TRIGGER set_version BEFORE UPDATE ON entries FOR EACH ROW EXECUTE FUNCTION set_version();
CREATE TRIGGER set_version BEFORE UPDATE ON plain_entries FOR EACH ROW EXECUTE FUNCTION set_version();
CREATE TRIGGER record_change AFTER UPDATE ON entries FOR EACH ROW EXECUTE FUNCTION record_change('key');
-- As load_stock: the lock first, and the row in a second statement, which sees what was committed before it began.
CREATE FUNCTION load_entry(wanted text, OUT unlocked boolean, OUT value bigint, OUT version bigint)
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
  unlocked := pg_try_advisory_xact_lock_shared(stock_lock(wanted));
  SELECT e.value, e.version INTO value, version FROM entries e WHERE e.key = wanted;
END $$;
"""


Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"


class LabError(Exception):
    """The lab cannot work; the message says why."""


@dataclass(frozen=True, slots=True)
class Noted:
    """A value that the database had, and since when at the earliest, in seconds of its own clock."""

    value: int
    at: float


@asynccontextmanager
async def lab_schema(database_url: str) -> AsyncIterator[str]:
    """The address at which the lab's tables are the first to be found; they are gone when the block ends.

    Raises LabError when another comparison has them, and DatabaseUnavailable.
    """
    async with available():
        owner = await connect(database_url, PATIENCE)
    try:
        if not await owner.fetchval("SELECT pg_try_advisory_lock($1)", LOCK):
            raise LabError("Another comparison runs in this database; wait for its end.")
        try:
            await owner.execute(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE")
            await owner.execute(f"CREATE SCHEMA {SCHEMA}")
        except asyncpg.InsufficientPrivilegeError as error:
            raise LabError(f"The lab may not make its schema {SCHEMA} in this database: {error}.") from error
        try:
            url = f"{database_url}{'&' if '?' in database_url else '?'}search_path={SCHEMA}"
            await asyncio.to_thread(migrate, url)
            await owner.execute(f"SET search_path = {SCHEMA}")
            await owner.execute(TABLES)
            yield url
        finally:
            await owner.execute(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE")
    finally:
        await owner.close()


@asynccontextmanager
async def open_pool(database_url: str, connections: int) -> AsyncIterator[Pool]:
    """Connections to the lab's schema. They are asyncpg's own: what is measured shall be the strategies, and no ORM."""
    async with (
        available(),
        asyncpg.create_pool(
            database_url.replace("postgresql+asyncpg://", "postgresql://", 1),
            min_size=1,
            max_size=connections,
            command_timeout=PATIENCE.total_seconds(),
            # Nothing is left behind on a connection here that would have to be taken back.
            reset=_kept,
        ) as pool,
    ):
        yield pool


async def _kept(connection: asyncpg.Connection) -> None:
    """Leaves a connection as it is."""


class LabTable:
    """The rows of one contestant, whose keys begin with `prefix`; `cached` says whether they have an outbox.

    `count` is told of each statement: how many keys it asked for, None for a write. Raises DatabaseUnavailable.
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
        """The row of `key`."""
        self._count(1)
        async with available():
            return _row(await self._pool.fetchrow(self._load, self._prefix + key))

    async def load_many(self, keys: Sequence[str]) -> dict[str, Row]:
        """The rows of those of `keys` that exist."""
        self._count(len(keys))
        async with available():
            rows = await self._pool.fetch(self._load_many, [self._prefix + key for key in keys])
        return {row["key"][len(self._prefix) :]: Row(row["value"], row["version"]) for row in rows}

    async def load_shared(self, key: str) -> tuple[bool, Row | None]:
        """Whether the lock of the row could be shared with its writers, and the row."""
        self._count(1)
        async with available():
            (row,) = await self._pool.fetch("SELECT * FROM load_entry($1)", self._prefix + key)
        return bool(row["unlocked"]), None if row["version"] is None else _row(row)

    async def save(self, key: str, value: int) -> Row | None:
        """Sets its value, and answers the new row; None when there is none."""
        return await self._change(self._save, key, value)

    async def add(self, key: str, count: int) -> Row | None:
        """Adds to its value, and answers the new row; None when there is none."""
        return await self._change(self._add, key, count)

    async def save_many(self, values: dict[str, int]) -> None:
        """Sets many values in one transaction."""
        self._count(None)
        keys = [self._prefix + key for key in values]
        async with available():
            await self._pool.execute(self._save_many, keys, list(values.values()))

    async def save_each(self, values: Sequence[tuple[str, int]]) -> None:
        """Sets them one after the other, in one transaction."""
        self._count(None)  # Before the transaction: who waits for this to set out shall not wait for its first answer.
        async with available(), self._pool.acquire() as connection, connection.transaction():
            for place, (key, value) in enumerate(values):
                if place:
                    self._count(None)
                await connection.execute(self._save, self._prefix + key, value)

    async def save_locked(self, key: str, value: int, revoke: Callable[[], Awaitable[None]]) -> Row | None:
        """As `save`, under the row's lock; `revoke` goes out with it, and both have to come back before COMMIT."""
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
        # One statement is a transaction of its own, without BEGIN and COMMIT.
        self._count(None)
        async with available():
            return _row(await self._pool.fetchrow(statement, self._prefix + key, value))


def _row(row: Any) -> Row | None:
    return None if row is None else Row(row["value"], row["version"])


async def add_rows(pool: Pool, prefix: str, keys: Sequence[str], *, cached: bool) -> None:
    """A row of value 0 for each key under a prefix; `cached` as in `LabTable`."""
    async with available():
        await pool.execute(
            f"INSERT INTO {'entries' if cached else 'plain_entries'} (key, value, version) "
            "SELECT $1 || key, 0, nextval('row_version') FROM unnest($2::text[]) AS new (key) ON CONFLICT DO NOTHING",
            prefix,
            list(keys),
        )


async def read_journal(pool: Pool, prefix: str) -> Mapping[str, list[Noted]]:
    """What was noted of the keys under `prefix`, in the order in which the database had it."""
    noted: dict[str, list[Noted]] = {}
    async with available():
        rows = await pool.fetch(
            "SELECT key, value, extract(epoch FROM at)::float8 AS at FROM journal "
            "WHERE starts_with(key, $1) ORDER BY id",
            prefix,
        )
    for row in rows:
        noted.setdefault(row["key"][len(prefix) :], []).append(Noted(row["value"], row["at"]))
    return noted


async def database_clock(pool: Pool) -> tuple[float, float]:
    """How many seconds the database's clock is ahead of this process' `time.monotonic`, and how wrong that may be at
    most: half of a round trip. (Cristian, "Probabilistic clock synchronization", 1989.)"""
    best = (0.0, float("inf"))
    async with available(), pool.acquire() as connection:
        for _try in range(8):
            began = time.monotonic()
            now = await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")
            ended = time.monotonic()
            best = min(best, (now - (began + ended) / 2, (ended - began) / 2), key=lambda found: found[1])
    return best
