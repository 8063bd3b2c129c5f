"""The epochs in Postgres: SQL only."""

import re
from dataclasses import dataclass

from sqlalchemy import text

from app.database import Database

# One statement, and so one snapshot: what is believed is of the moment at which the outbox was looked at. A history is
# told by the system's identifier and timeline (another one after a promotion), by the database's oid (another one
# after DROP and CREATE), and by those of its tables (after `pg_restore --clean`). VACUUM FULL and a rewriting ALTER
# TABLE keep an oid. The timeline is that of the log, which changes at once at a promotion; the control file's may not.
LOOK = text("""
SELECT coalesce((SELECT max(id) FROM outbox), 0), EXISTS (SELECT FROM outbox WHERE done_at IS NULL),
       (SELECT id::text FROM deployment), n, token, run, history, claim, claimed_run, pg_is_in_recovery(),
       (SELECT system_identifier::text FROM pg_control_system()),
       CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_walfile_name(pg_current_wal_insert_lsn()) END,
       CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0') END,
       (SELECT oid FROM pg_database WHERE datname = current_database()),
       ARRAY['users'::regclass, 'products'::regclass, 'stock'::regclass, 'page_views'::regclass]::oid[]
FROM (SELECT) AS one LEFT JOIN (SELECT * FROM epochs ORDER BY n DESC LIMIT 1) AS newest ON true
""")

# A refutation and the beginning of the next epoch each change the row of the claim, so one of them finds it changed.
CLAIM = text("UPDATE epochs SET claim = :claim, claimed_run = :run WHERE n = :n AND claim IS NOT DISTINCT FROM :stands")
REFUTE = text("UPDATE epochs SET claim = NULL, claimed_run = NULL WHERE n = :n AND claim = :claim")

# ON CONFLICT names the key: while a live pg_restore has not built it yet, no row of ours gets in its way.
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


@dataclass(frozen=True, slots=True)
class Epoch:
    """The newest epoch: `run` of Redis is believed with this `history` of the database. `claim` says who wants to begin
    another one, with which `claimed_run`."""

    n: int
    token: str
    run: str
    history: str
    claim: str | None
    claimed_run: str | None


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at the database found: the newest id in the outbox, whether any row is undone, the newest epoch.

    `history` is the database's own, as it is now: system/timeline/database/tables; it has come to `position`, in
    bytes."""

    newest: int
    undone: bool
    deployment: str
    epoch: Epoch | None
    standby: bool
    history: str
    position: int


class Epochs:
    """The epochs of one database. Every method raises DatabaseUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def look(self) -> Look:
        """One look: a SELECT, and no write."""
        async with self._database.reading("outbox") as connection:
            row = (await connection.execute(LOOK)).one()
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
        """As the database does: what is carried to it must not go to another history."""
        self._database.believe(timeline, None)

    def reconnect(self) -> None:
        """Has each look from here on go where the name leads now, and not where it led before."""
        self._database.reconnect()

    async def first(self, token: str, run: str, history: str) -> None:
        """Begins the first epoch, if nobody has."""
        async with self._database.writing("outbox") as connection:
            await connection.execute(FIRST, {"token": token, "run": run, "history": history})

    async def claim(self, epoch: Epoch, claim: str, run: str) -> bool:
        """Claims the next epoch for a run of Redis, in place of what `epoch` shows. Answers whether it did."""
        parameters = {"n": epoch.n, "claim": claim, "run": run, "stands": epoch.claim}
        async with self._database.writing("outbox") as connection:
            return (await connection.execute(CLAIM, parameters)).rowcount == 1

    async def refute(self, epoch: Epoch) -> bool:
        """Takes the claim away that `epoch` shows, if it still stands. Answers whether it did."""
        async with self._database.writing("outbox") as connection:
            return (await connection.execute(REFUTE, {"n": epoch.n, "claim": epoch.claim})).rowcount == 1

    async def begin(self, epoch: Epoch, claim: str, token: str, run: str, history: str) -> bool:
        """Begins the epoch after `epoch`, if `claim` still stands there. Answers whether it did."""
        parameters = {"n": epoch.n, "claim": claim, "token": token, "run": run, "history": history}
        async with self._database.writing("outbox") as connection:
            return (await connection.execute(BEGIN, parameters)).rowcount == 1


def goes_on(later: str, history: str) -> bool:
    """Whether a history of Postgres is of the same system, at a later timeline."""
    system, timeline, *_oids = history.split("/")
    told = re.fullmatch(r"(\d+)/(\d+)/.*", later)  # It comes from Redis, where somebody may have changed it.
    return told is not None and told[1] == system and int(told[2]) > int(timeline)
