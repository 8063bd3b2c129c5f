"""A hot standby of a Postgres that answers reads and can be promoted. It follows its primary, or stays as it was made.

It runs as the embedded Postgres does, in its own directory.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import asyncpg

from app.embedded.account import postgres_account
from app.embedded.home import make_home, postgres_directory
from app.embedded.postgres_server import SOCKET, PostgresServer
from tests.eventually import PATIENCE, eventually
from tests.faults.postgres_program import run_program
from tests.open_directory import open_directory


class Standby:
    """A standby of the Postgres at `database_url`."""

    @classmethod
    @contextmanager
    def started(cls, database_url: str, *, follows: bool = False) -> Iterator[Self]:
        """Makes a base backup of what is committed now, and runs it until the block ends. If it `follows`, it receives
        what the primary commits later; otherwise, it lags forever."""
        with open_directory() as directory:
            standby = cls(directory)
            standby.copy(database_url, follows=follows)
            try:
                standby.start()
                yield standby
            finally:
                standby.stop()

    def __init__(self, directory: Path) -> None:
        self._account = postgres_account()
        home = make_home(postgres_directory(directory, self._account), SOCKET, self._account)
        self.sockets = home.sockets
        """The directory of its socket, for a name to lead to."""
        self._data = home.directory / "data"
        self._server = PostgresServer(home, directory / "postgres.log")

    @property
    def url(self) -> str:
        """Its URL, now and after a promotion or a restart."""
        return self._server.url

    def copy(self, database_url: str, *, follows: bool) -> None:
        """Makes the base backup."""
        options = ["-d", database_url, "-D", str(self._data), "--checkpoint=fast", *(["-R"] if follows else [])]
        run_program("pg_basebackup", options)
        (self._data / "standby.signal").touch()

    def start(self) -> None:
        """Starts it: as a standby, or as the primary that it became."""
        self._server.start()

    def stop(self) -> None:
        """Stops it."""
        self._server.stop()

    async def catch_up(self, position: str) -> None:
        """Returns when it has replayed its primary's log up to this position."""

        async def has_replayed() -> bool:
            return bool(await sql.fetchval("SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn", position))

        sql = await asyncpg.connect(self.url)
        await eventually(has_replayed)
        await sql.close()

    async def cut_off(self) -> None:
        """Cuts it off from its primary, and returns when it has replayed what it received: as it will be promoted."""

        async def is_cut_off() -> bool:
            # The last thing received may be half of a record, which is never replayed. Only when nobody receives, and
            # all is replayed, does the process retry now and then.
            return bool(
                await sql.fetchval(
                    "SELECT wait_event = 'RecoveryRetrieveRetryInterval' AND NOT EXISTS"
                    " (SELECT FROM pg_stat_wal_receiver) FROM pg_stat_activity WHERE backend_type = 'startup'"
                )
            )

        sql = await asyncpg.connect(self.url)
        await sql.execute("ALTER SYSTEM SET primary_conninfo = ''")
        await sql.execute("SELECT pg_reload_conf()")
        await eventually(is_cut_off)
        await sql.close()

    async def promote(self) -> None:
        """Promotes it to a primary with its own history: at the next timeline."""
        connection = await asyncpg.connect(self.url)
        assert await connection.fetchval("SELECT pg_promote(true, $1)", round(PATIENCE))
        await connection.close()
