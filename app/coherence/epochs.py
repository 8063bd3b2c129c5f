"""The epochs in Postgres: SQL only."""

from dataclasses import dataclass

from sqlalchemy import text

from app.database import Database
from app.poller import Poller

# One statement, hence one snapshot: the epoch is read at the same moment as the outbox. A history is identified by the
# system identifier and the timeline (a promotion changes it), the database's oid (DROP and CREATE change it), and the
# oids of its tables (`pg_restore --clean` changes them). VACUUM FULL and a rewriting ALTER TABLE keep an oid. The
# timeline is read from the log, where a promotion changes it at once; the control file may lag behind. (With a
# function in FROM, it would cost half as much again.)
LOOK = text("""
SELECT coalesce((SELECT max(id) FROM outbox), 0), EXISTS (SELECT FROM outbox WHERE done_at IS NULL),
       (SELECT id::text FROM deployment), n, token, run, history, claim, claimed_run, pg_is_in_recovery(),
       (pg_control_system()).system_identifier::text,
       CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_walfile_name(pg_current_wal_insert_lsn()) END,
       CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0') END,
       (SELECT oid FROM pg_database WHERE datname = current_database()),
       ARRAY['users'::regclass, 'products'::regclass, 'stock'::regclass, 'page_views'::regclass]::oid[]
FROM (SELECT) AS one LEFT JOIN (SELECT * FROM epochs ORDER BY n DESC LIMIT 1) AS newest ON true
""")

# A refutation and the beginning of the next epoch both update the row with the claim, so only one of them succeeds.
CLAIM = text("UPDATE epochs SET claim = :claim, claimed_run = :run WHERE n = :n AND claim IS NOT DISTINCT FROM :stands")
REFUTE = text("UPDATE epochs SET claim = NULL, claimed_run = NULL WHERE n = :n AND claim = :claim")

# ON CONFLICT names the primary key. While a running pg_restore has not built it yet, the statement fails, and no row of
# ours gets in the restore's way.
FIRST = text(
    "INSERT INTO epochs (n, token, run, history) VALUES (1, :token, :run, :history) ON CONFLICT (n) DO NOTHING"
)
BEGIN = text("""
WITH claimed AS (
  UPDATE epochs SET claim = NULL, claimed_run = NULL WHERE n = :n AND claim = :claim
    AND n = (SELECT max(n) FROM epochs) RETURNING n
)
INSERT INTO epochs (n, token, run, history) SELECT n + 1, :token, :run, :history FROM claimed ON CONFLICT (n) DO NOTHING
""")

# In a cluster, the holders of slots change within an epoch. The row is changed in place: it keeps its token.
HAND_OVER = text("""
UPDATE epochs SET n = n + 1, run = :run WHERE n = :n AND claim IS NULL AND n = (SELECT max(n) FROM epochs)
""")
PROMOTE = text("""
UPDATE epochs SET n = n + 1, run = claimed_run, claim = NULL, claimed_run = NULL WHERE n = :n AND claim = :claim
  AND n = (SELECT max(n) FROM epochs)
""")


@dataclass(frozen=True, slots=True)
class Epoch:
    """The newest epoch: `run` of Redis is trusted with this `history` of the database. `claim` is the token of a claim
    to the next epoch, and `claimed_run` the run that it is for."""

    n: int
    token: str
    run: str
    history: str
    claim: str | None
    claimed_run: str | None


@dataclass(frozen=True, slots=True)
class Look:
    """The result of one poll of the database: the newest id in the outbox, whether any row is undone, the newest epoch.

    `history` is the database's current history, as system/timeline/database/tables. `position` is how far its log has
    come, in bytes."""

    newest: int
    undone: bool
    deployment: str
    epoch: Epoch | None
    standby: bool
    history: str
    position: int


class Epochs:
    """The epochs of one database, which `poller` leads to, too. Every method raises DatabaseUnavailable."""

    def __init__(self, database: Database, poller: Poller) -> None:
        self._database, self._poller = database, poller

    async def look(self) -> Look:
        """Polls the database with one SELECT, without a write and without a check of the connection."""
        (row,) = await self._poller.ask("outbox", LOOK)
        (
            newest,
            undone,
            deployment,
            n,
            token,
            run,
            history,
            claim,
            claimed,
            standby,
            system,
            file,
            position,
            oid,
            oids,
        ) = row
        if standby:
            # A name that leads to a standby may lead to the primary by now, but this connection never will.
            self._poller.reconnect()
        timeline = int(file[:8], 16) if file else 0
        return Look(
            newest=int(newest),
            undone=undone,
            deployment=deployment,
            epoch=None if n is None else Epoch(n, token, run, history, claim, claimed),
            standby=standby,
            history=f"{system}/{timeline}/{oid}/{'-'.join(map(str, oids))}",
            position=int(position or 0),
        )

    def believe(self, timeline: int) -> None:
        """Accepts only this timeline from now on, as the requests' database does: no write reaches another history."""
        self._database.believe(timeline, None)
        self._poller.reconnect()

    def reconnect(self) -> None:
        """Makes the next poll connect anew, to wherever the name leads now."""
        self._database.reconnect()
        self._poller.reconnect()

    async def first(self, token: str, run: str, history: str) -> None:
        """Begins the first epoch, unless there is one."""
        async with self._database.writing("outbox") as connection:
            await connection.execute(FIRST, {"token": token, "run": run, "history": history})

    async def claim(self, epoch: Epoch, claim: str, run: str) -> bool:
        """Claims the next epoch for a run of Redis, replacing the claim in `epoch`. Returns whether it succeeded."""
        parameters = {"n": epoch.n, "claim": claim, "run": run, "stands": epoch.claim}
        async with self._database.writing("outbox") as connection:
            return (await connection.execute(CLAIM, parameters)).rowcount == 1

    async def refute(self, epoch: Epoch) -> bool:
        """Removes the claim in `epoch`, if it still stands. Returns whether it did."""
        async with self._database.writing("outbox") as connection:
            return (await connection.execute(REFUTE, {"n": epoch.n, "claim": epoch.claim})).rowcount == 1

    async def hand_over(self, epoch: Epoch, run: str) -> bool:
        """Records other holders of slots in `epoch`, if it has not changed and no claim stands. Returns whether it
        did."""
        async with self._database.writing("outbox") as connection:
            return (await connection.execute(HAND_OVER, {"n": epoch.n, "run": run})).rowcount == 1

    async def promote(self, epoch: Epoch) -> bool:
        """Records the holders that the claim in `epoch` is for, if it still stands. Returns whether it did."""
        async with self._database.writing("outbox") as connection:
            return (await connection.execute(PROMOTE, {"n": epoch.n, "claim": epoch.claim})).rowcount == 1

    async def begin(self, epoch: Epoch, claim: str, token: str, run: str, history: str) -> bool:
        """Begins the epoch after `epoch`, if `claim` still stands there. Returns whether it did."""
        parameters = {"n": epoch.n, "claim": claim, "token": token, "run": run, "history": history}
        async with self._database.writing("outbox") as connection:
            return (await connection.execute(BEGIN, parameters)).rowcount == 1
