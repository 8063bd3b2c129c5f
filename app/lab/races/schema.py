"""The schema of an exploration: the tables for one number under each key. It is dropped afterwards.

    rows        key, value, version
    outbox      each change of a row, written in the row's transaction, for the relay
    applied     the ledger of counted batches

Its owner holds an advisory lock, so that `abandoned.py` can find the schemas of killed explorations.
"""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from app.lab.own_session import own_session

PREFIX = "fourways_races_"
"""The prefix of the schemas' names."""
LOCK = 0x72616365
"""The first half of the advisory lock of a schema's owner: "race" in ASCII. The second half is the hash of the name."""

PATIENCE = timedelta(seconds=30)

TABLES = """
CREATE SEQUENCE versions START 2;
CREATE TABLE rows (key text PRIMARY KEY, value bigint NOT NULL, version bigint NOT NULL);
CREATE TABLE outbox (id bigserial PRIMARY KEY, key text NOT NULL, version bigint NOT NULL, done bool NOT NULL);
CREATE TABLE applied (batch text PRIMARY KEY);
"""


@asynccontextmanager
async def schema(database_url: str) -> AsyncIterator[str]:
    """Holds a schema with the tables open, and yields its name. Raises LabError where a pooler is in between."""
    name = f"{PREFIX}{secrets.token_hex(4)}"
    connection = await own_session(database_url, PATIENCE)
    try:
        await connection.execute("SELECT pg_advisory_lock($1, hashtext($2))", LOCK, name)
        await connection.execute(f"CREATE SCHEMA {name}")
        try:
            await connection.execute(f"SET search_path TO {name}")
            await connection.execute(TABLES)
            yield name
        finally:
            await connection.execute(f"DROP SCHEMA {name} CASCADE")
    finally:
        await connection.close()
