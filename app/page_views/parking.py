"""Page views that are counted and wait for their page's row, in a table of their own, so that they delay no other page.

    parked      when the row was locked or took too long to change; from then on, all new views of this page
    settled     added to the row and removed here, in one transaction, as soon as the row is available

A page's total is its row plus what is parked (`store.py`), so parking and settling do not change it.

    blocked     an attempt on the row has failed: flushes park new views of this page without a try
    not         a flush parked it without a try, mostly because the page was blocked; it does not block the page itself

        a flush checks: the page is blocked
                                             the row is free: everything is settled
        the flush parks its views, late      if that blocked the page, the next flush would park its views, and so on

What can go wrong: a row stays locked. Its parked views stay parked, and count in the total. Views that Postgres refuses
by now become a dead letter.
"""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Text, column, text

from app.caching.errors import TargetUnavailable
from app.caching.repeating import Repeating
from app.database import Database
from app.errors import DatabaseUnavailable, TookTooLong
from app.look import Look
from app.page_views.salvage import (
    LOCK_TABLE,
    LONGEST,
    add_by_halves,
    keep,
    limit_time,
    refused,
    tell,
    unfit_of,
)
from app.poller import Poller

EVERY = timedelta(seconds=1)
MOST = 1000
"""The largest number of pages settled in one pass."""
WORTH_MERGING = 100
"""Parked rows of a page above which they are merged, so that the table stays small while the page is locked."""
LONG = timedelta(seconds=10)
"""How long a page may be blocked before it is reported as trouble."""

ANY = text("SELECT EXISTS (SELECT FROM parked_views) AS any")
# Checking a page that is only locked costs nothing. A page that was free, and still too slow, is retried after 2 s,
# 4 s, … 32 s, and after the others.
FREE = text(f"""
WITH due AS MATERIALIZED (
  SELECT page, max(tries) AS tries, min(parked_at) AS since FROM parked_views GROUP BY page
  HAVING coalesce(max(tried_at + power(2, least(tries, 5)) * interval '1 s') FILTER (WHERE tries > 0), '-infinity')
    <= clock_timestamp()
  ORDER BY tries, random() LIMIT {50 * MOST}
), free AS MATERIALIZED (
  SELECT page FROM page_views WHERE page IN (SELECT page FROM due) FOR NO KEY UPDATE SKIP LOCKED
)
SELECT page FROM due
WHERE page IN (SELECT page FROM free) OR NOT EXISTS (SELECT FROM page_views WHERE page_views.page = due.page)
ORDER BY tries, since LIMIT {MOST}
""")
TAKE = text("""
DELETE FROM parked_views WHERE id IN (
  SELECT id FROM parked_views WHERE page = ANY(:pages) ORDER BY id LIMIT 20000 FOR UPDATE SKIP LOCKED
) RETURNING page, delta, tries, parked_at
""")
PUT_BACK = text("""
INSERT INTO parked_views (page, delta, blocked, reason, tries, parked_at, tried_at)
VALUES (:page, :delta, :blocked, :reason, :tries, :parked_at, clock_timestamp())
""")
MANY = text(f"SELECT page FROM parked_views WHERE NOT blocked GROUP BY page HAVING count(*) > {WORTH_MERGING} LIMIT 20")
MERGE = text("""
WITH taken AS (
  DELETE FROM parked_views WHERE id IN (
    SELECT id FROM parked_views WHERE page = :page AND NOT blocked AND delta < 1::bigint << 43
    ORDER BY id LIMIT 1000 FOR UPDATE SKIP LOCKED
  ) RETURNING delta, reason, parked_at
)
INSERT INTO parked_views (page, delta, blocked, reason, tries, parked_at)
SELECT :page, sum(delta)::bigint, false, min(reason), 0, min(parked_at) FROM taken HAVING count(*) > 0
""")
BLOCKED = Look(
    text(
        "SELECT page, reason FROM parked_views "
        "WHERE blocked AND parked_at < clock_timestamp() - CAST(:long AS interval) ORDER BY parked_at LIMIT 1"
    ).columns(column("page", Text), column("reason", Text))
)


@dataclass(frozen=True, slots=True)
class Blocked(Exception):
    """A page whose row has been unavailable for so long that an operator should check."""

    page: str
    reason: str

    def __str__(self) -> str:
        return f"views of the page {self.page[:100]!r} wait for its row: {self.reason}"


class Parking:
    """Settles the parked views in `database`, repeatedly. `poller` asks whether there are any. `dead` is called with
    the number of views that became dead letters."""

    def __init__(self, database: Database, poller: Poller, dead: Callable[[int], None]) -> None:
        self._database, self._poller, self._dead = database, poller, dead
        self._repeating = Repeating("parking", self._repeat, lambda: None)
        self._blocked: Blocked | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Settles while the block lasts."""
        async with self._repeating.running():
            yield

    @property
    def alive(self) -> bool:
        """Whether the task runs and its passes end."""
        return self._repeating.alive

    @property
    def trouble(self) -> Exception | None:
        """Why its passes fail, or the page that has been blocked for long; None if neither is the case."""
        return self._repeating.trouble or self._blocked

    async def _repeat(self) -> timedelta:
        try:
            (row,) = await self._poller.ask("page_views", ANY)
            # Nearly always there are none: then this one question is all that an idle instance asks.
            settled = await self.settle() if row.any else self._nothing()
        except DatabaseUnavailable as error:
            raise TargetUnavailable(str(error)) from error
        return timedelta(0) if settled == MOST else EVERY

    def _nothing(self) -> int:
        self._blocked = None
        return 0

    async def settle(self) -> int:
        """Settles, in one pass, the pages that it can. Returns their number. Raises DatabaseUnavailable."""
        async with self._database.reading("page_views") as connection:
            pages = list(await connection.scalars(FREE))
        settled, dead = await self._settle(pages) if pages and await self._may_write() else (0, 0)
        self._dead(dead)
        async with self._database.reading("page_views") as connection:
            for page in list(await connection.scalars(MANY)):
                await connection.execute(MERGE, {"page": page})
        blocked = await self._database.look("page_views", BLOCKED, {"long": LONG})
        self._blocked = Blocked(**blocked[0]) if blocked else None
        return settled

    async def _may_write(self) -> bool:
        """Returns whether the table as a whole is not locked."""
        try:
            async with self._database.writing("page_views") as connection:
                await connection.execute(LOCK_TABLE)
        except TookTooLong:
            return False
        return True

    async def _settle(self, pages: Sequence[str]) -> tuple[int, int]:
        """Adds the parked views to the rows of their pages, and puts back those that cannot be added in time. Returns
        the number of pages settled, and of views that became dead letters."""
        async with self._database.writing("page_views", LONGEST) as connection:
            await limit_time(connection)
            rows = (await connection.execute(TAKE, {"pages": pages})).all()  # Other instances may have taken some.
            deltas: Counter[str] = Counter()
            for row in rows:
                deltas[row.page] += row.delta
            outcome = unfit_of(deltas)
            await add_by_halves(connection, {page: deltas[page] for page in sorted(deltas)}, outcome)
            tries, since = {row.page: row.tries for row in rows}, {row.page: row.parked_at for row in rows}
            for row in rows:
                tries[row.page] = max(tries[row.page], row.tries)
                since[row.page] = min(since[row.page], row.parked_at)
            back = [
                {"page": page, "delta": deltas[page], "blocked": blocked, "reason": why, "tries": tries[page] + tried}
                | {"parked_at": since[page]}
                for page, blocked, why, tried in outcome.rows
            ]
            if back:
                await connection.execute(PUT_BACK, back)
            for page, why in outcome.refused.items():
                await keep(connection, [refused(page, deltas[page], why)], None, tries[page] + 1)
            await tell(connection, outcome.refused)
        return len(deltas) - len(back) - len(outcome.refused), sum(deltas[page] for page in outcome.refused)
