"""The lab's schema: beside the service's, and never mixed with it.

    fourways_lab        what the migrations create (outbox, ledger, page_views, …), and beside it
    entries             key, value, version, updated_at: with the triggers of every cached table; for our strategies
    plain_entries       the same with a version, but without an outbox: for strategies that know of none
    journal             each (key, value) that was set, in order, with its time: what the oracle judges by

The journal costs every strategy the same. Its clock is read within the transaction: a value is committed no earlier.

What can go wrong: `LabError` when another comparison runs in the same database. A killed process leaves the schema
behind; the next one removes it.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from app.availability import available
from app.lab.comparison.lab_error import LabError
from app.lab.comparison.pool import PATIENCE
from app.lab.own_session import own_session
from app.schema import migrate

SCHEMA = "fourways_lab"
LOCK = 0x666F75726C6162
"""The advisory lock of the schema's owner: "fourlab" in ASCII."""

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


@asynccontextmanager
async def lab_schema(database_url: str) -> AsyncIterator[str]:
    """Holds the lab's schema open, and drops it at the end. Yields the address at which its tables are found first.

    Raises LabError when another comparison has them, or a pooler is in between, and DatabaseUnavailable.
    """
    async with available():
        owner = await own_session(database_url, PATIENCE)
    try:
        if not await owner.fetchval("SELECT pg_try_advisory_lock($1)", LOCK):
            raise LabError("Another comparison runs in this database; wait for its end.")
        try:
            await owner.execute(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE")
            await owner.execute(f"CREATE SCHEMA {SCHEMA}")
        except asyncpg.InsufficientPrivilegeError as error:
            raise LabError(f"The lab may not make its schema {SCHEMA} in this database: {error}.") from error
        try:
            url = f"{database_url}{'&' if '?' in database_url else '?'}options=-c%20search_path%3D{SCHEMA}"
            await asyncio.to_thread(migrate, url)
            await owner.execute(f"SET search_path = {SCHEMA}")
            await owner.execute(TABLES)
            yield url
        finally:
            await owner.execute(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE")
    finally:
        await owner.close()
