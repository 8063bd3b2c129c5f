"""Page views that are counted, and wait for the row of their page, in a table of their own: they hold up no other page.

    parked      when the row was locked, or took too long to change; from then on, all that comes for this page
    settled     added to the row, and removed here, in one transaction: as soon as the row can be had

A total is what the row has, and what is parked (`store.py`): so parking and settling change none.

    blocked     somebody has tried, and it was in vain: flushes park what comes for this page, and do not try
    not         a flush has parked it, for another one is blocked; it blocks nobody itself

        a flush looks: the page is blocked
                                             the row is free: all is settled
        the flush parks its views, late      if that blocked the page, the next flush would park for it, and so on

What can go wrong: a row stays locked. What is parked stays, and is in the total. A page that Postgres refuses by now
becomes a dead letter.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Text, column, text
from sqlalchemy.exc import DBAPIError

from app.availability import refusal, said
from app.caching.errors import TargetUnavailable
from app.caching.repeating import Repeating
from app.database import Database
from app.errors import DatabaseUnavailable, TookTooLong
from app.look import Look
from app.page_views.salvage import ADD, LOCK_TABLE, keep, letter, limit_time, tell

EVERY = timedelta(seconds=1)
MOST = 200
"""So many pages are settled in one pass at most."""
MOST_IN_VAIN = 3
WORTH_MERGING = 100
"""Rows of one page: so the table stays small while a page is locked for long."""
LONG = timedelta(seconds=10)
"""What has been blocked for longer is told as trouble."""

# One that is only locked costs nothing to look at. One that was free, and too slow all the same, is tried after 2 s,
# 4 s, … 32 s, and after the others.
FREE = text(f"""
WITH due AS MATERIALIZED (
  SELECT page, max(tries) AS tries, min(parked_at) AS since FROM parked_views GROUP BY page
  HAVING coalesce(max(tried_at + power(2, least(tries, 5)) * interval '1 s') FILTER (WHERE tries > 0), '-infinity')
    <= clock_timestamp()
  ORDER BY tries, random() LIMIT {50 * MOST}
), free AS MATERIALIZED (
  SELECT page FROM page_views WHERE page IN (SELECT page FROM due) FOR UPDATE SKIP LOCKED
)
SELECT page FROM due
WHERE page IN (SELECT page FROM free) OR NOT EXISTS (SELECT FROM page_views WHERE page_views.page = due.page)
ORDER BY tries, since LIMIT {MOST}
""")
# Each row is one flush's, of 2^53 views at most: so many of them are no more than a bigint.
SETTLE = text("""
DELETE FROM parked_views WHERE id IN (
  SELECT id FROM parked_views WHERE page = :page ORDER BY id LIMIT 1000 FOR UPDATE SKIP LOCKED
) RETURNING delta, tries
""")
FAILED = text("""
UPDATE parked_views SET blocked = true, reason = :reason, tries = tries + 1, tried_at = clock_timestamp()
WHERE id = (SELECT id FROM parked_views WHERE page = :page ORDER BY blocked DESC, id LIMIT 1 FOR UPDATE SKIP LOCKED)
""")
MANY = text(f"SELECT page FROM parked_views WHERE NOT blocked GROUP BY page HAVING count(*) > {WORTH_MERGING}")
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
    """A page whose row cannot be changed, for so long that somebody should look."""

    page: str
    reason: str

    def __str__(self) -> str:
        return f"views of the page {self.page[:100]!r} wait for its row: {self.reason}"


class Parking:
    """Settles what is parked in `database`, again and again. `dead` is told of views that became dead letters."""

    def __init__(self, database: Database, dead: Callable[[int], None]) -> None:
        self._database, self._dead = database, dead
        self._repeating = Repeating("parking", self._repeat, lambda: None)
        self._blocked: Blocked | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Settles while the block lasts."""
        async with self._repeating.running():
            yield

    @property
    def alive(self) -> bool:
        """Whether its passes end."""
        return self._repeating.alive

    @property
    def trouble(self) -> Exception | None:
        """Why its passes fail, or for what page views wait for long; None, when neither is so."""
        return self._repeating.trouble or self._blocked

    async def _repeat(self) -> timedelta:
        try:
            due = await self.settle()
        except DatabaseUnavailable as error:
            raise TargetUnavailable(str(error)) from error
        return timedelta(0) if due == MOST and self._blocked is None else EVERY

    async def settle(self) -> int:
        """One pass: settles what can be. Answers for how many pages it was due. Raises DatabaseUnavailable."""
        async with self._database.reading("page_views") as connection:
            pages = list(await connection.scalars(FREE))
        in_vain = 0
        for page in pages if pages and await self._may_write() else ():
            in_vain += not await self._settle(page)
            if in_vain == MOST_IN_VAIN:
                break
        async with self._database.reading("page_views") as connection:
            for page in list(await connection.scalars(MANY)):
                await connection.execute(MERGE, {"page": page})
        blocked = await self._database.look("page_views", BLOCKED, {"long": LONG})
        self._blocked = Blocked(**blocked[0]) if blocked else None
        return len(pages)

    async def _may_write(self) -> bool:
        """Whether nobody has locked the table as a whole."""
        try:
            async with self._database.writing("page_views") as connection:
                await connection.execute(LOCK_TABLE)
        except TookTooLong:
            return False
        return True

    async def _settle(self, page: str) -> bool:
        """Settles one page, and answers whether it could."""
        try:
            dead = await self._settled(page)
        except (TookTooLong, DBAPIError) as error:
            async with self._database.writing("page_views") as connection:
                await connection.execute(FAILED, {"page": page, "reason": said(error.__cause__ or error)})
            return False
        self._dead(dead)
        return True

    async def _settled(self, page: str) -> int:
        """Adds what is parked to the row of a page, and answers how many views became dead letters."""
        async with self._database.writing("page_views") as connection:
            await limit_time(connection)
            rows = (await connection.execute(SETTLE, {"page": page})).all()
            if not rows:
                return 0  # Somebody else is at it.
            views = sum(int(row.delta) for row in rows)
            try:
                async with connection.begin_nested():
                    await connection.execute(ADD, {"page": page, "delta": views})
            except DBAPIError as error:
                if (why := refusal(error)) is None:
                    raise
                tries = 1 + max(row.tries for row in rows)
                await keep(connection, [letter(page=page, delta=views, reason=why)], None, tries)
                await tell(connection, [page])
                return views
        return 0
