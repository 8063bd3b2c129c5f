"""A dump of a database, as an operator makes and restores one."""

import asyncio
import subprocess

import asyncpg

from tests.faults.postgres_program import run_program


async def dumped(database_url: str, snapshot: str | None = None) -> bytes:
    """Runs `pg_dump` in the custom format; with an exported `snapshot`, the caller knows what the dump contains."""
    options = [] if snapshot is None else [f"--snapshot={snapshot}"]
    return await asyncio.to_thread(run_program, "pg_dump", ["--format=custom", *options, database_url])


async def restored_into(database_url: str, dump: bytes) -> None:
    """Runs `pg_restore` into an empty database."""
    await asyncio.to_thread(run_program, "pg_restore", ["--exit-on-error", "--dbname", database_url], dump)


async def restored_over(database_url: str, dump: bytes) -> None:
    """Runs `pg_restore --clean`, which drops and restores the tables. Raises CalledProcessError when it was disturbed.

    It tries to drop the key of a partition before the partition, and continues when that is refused."""
    try:
        await asyncio.to_thread(run_program, "pg_restore", ["--clean", "--if-exists", "--dbname", database_url], dump)
    except subprocess.CalledProcessError as error:
        errors = [line for line in error.stderr.decode().splitlines() if "error:" in line]
        if not all("cannot drop inherited constraint" in line for line in errors):
            raise


async def recreated(admin_url: str, name: str) -> None:
    """Drops a database, whoever is connected to it, and creates it again."""
    connection = await asyncpg.connect(admin_url)
    await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()
