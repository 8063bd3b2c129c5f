"""Page views in Postgres: SQL only. A method is one transaction, committed when it returns.

A batch is recorded in the ledger (`ledger.py`) in the transaction that counts it. A batch below the ledger's floor is
not counted, because it is unknown whether it was before: it becomes dead letters, once.
"""

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy import BigInteger, Text, bindparam, column, delete, func, literal_column, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.availability import refusal
from app.database import Database
from app.errors import Conflict, DatabaseUnavailable, NotFound, TookTooLong, Uncountable
from app.look import Look
from app.page_views.ledger import IDS_FROM, Ledger
from app.page_views.models import EXACT, Counted, DeadLetter, dead_letters, hour_of
from app.page_views.salvage import (
    ADD,
    CHANGED,
    LONGEST,
    count_or_park,
    is_of_the_page,
    keep,
    letter,
    letters,
    salvage,
    tell,
)
from app.readable import FIRST, LAST

# The ledger comes first: only batches that are new to it are counted. Batches and pages are sorted, so that two
# flushers lock the same rows in the same order. Views added to a parked page do not block it (`false`): otherwise
# overlapping flushers would keep it parked forever.
APPLY = text("""
WITH fresh AS (
  INSERT INTO applied (hour, batch)
  SELECT hour, batch FROM unnest(CAST(:hours AS timestamptz[]), CAST(:batches AS text[])) AS new (hour, batch)
  ORDER BY hour, batch ON CONFLICT DO NOTHING RETURNING batch
), sums AS (
  SELECT page, sum(delta)::bigint AS views
  FROM unnest(CAST(:batch_of AS text[]), CAST(:pages AS text[]), CAST(:deltas AS bigint[])) AS each (batch, page, delta)
  JOIN fresh USING (batch) GROUP BY page
), parked AS (
  INSERT INTO parked_views (page, delta, blocked, reason, tries)
  SELECT page, views, false, 'Others are parked already.', 0 FROM sums
  WHERE page IN (SELECT page FROM parked_views WHERE blocked)
)
INSERT INTO page_views AS counted (page, views)
SELECT page, views FROM sums WHERE page NOT IN (SELECT page FROM parked_views WHERE blocked) ORDER BY page
ON CONFLICT (page) DO UPDATE SET views = counted.views + excluded.views
""")

# One statement, and so one snapshot.
STANDING = Look(
    text(f"""
SELECT array_agg(page) AS pages, array_agg(views) AS views,  -- A page that is parked stands there more than once.
       ARRAY(SELECT batch FROM applied WHERE hour = ANY(:hours) AND batch = ANY(:batches)
             UNION ALL SELECT batch FROM set_aside WHERE batch = ANY(:batches)) AS applied,
       (SELECT hour FROM ledger_floor) AS floor, {IDS_FROM} AS ids_from
FROM (SELECT page, views FROM page_views WHERE page = ANY(:pages)
      UNION ALL SELECT page, delta FROM parked_views WHERE page = ANY(:pages)) AS counted
""").columns(*map(column, ("pages", "views", "applied", "floor", "ids_from")))
)

# Parked views are added. Only pages with parked views can move up because of it, and all of those are candidates.
TOP = Look(
    text(f"""
WITH parked AS (SELECT page, least(sum(delta), {EXACT})::bigint AS views FROM parked_views GROUP BY page),
first AS (SELECT page, views FROM page_views ORDER BY views DESC, page LIMIT :limit)
SELECT page, coalesce(page_views.views, 0) + coalesce(parked.views, 0) AS views
FROM (SELECT page FROM first UNION SELECT page FROM parked) AS each
LEFT JOIN page_views USING (page) LEFT JOIN parked USING (page)
ORDER BY views DESC, page LIMIT :limit
""").columns(column("page", Text), column("views", BigInteger))
)
# A dead letter must be shown whatever its time is. A time outside Python's range is shown as the nearest inside it.
CREATED = func.greatest(func.least(dead_letters.c.created_at, literal_column(LAST)), literal_column(FIRST))
LETTER = (*(each for each in dead_letters.c if each.name != "created_at"), CREATED.label("created_at"))
DEAD = Look(
    select(*LETTER).where(dead_letters.c.id > bindparam("after")).order_by(dead_letters.c.id).limit(bindparam("limit"))
)
COUNT_DEAD = Look(select(func.count().label("count")).select_from(dead_letters))

COUNT_PARKED = Look(
    text("SELECT least(coalesce(sum(delta), 0), 9223372036854775807)::bigint AS views FROM parked_views").columns(
        column("views", BigInteger)
    )
)

CAREFUL = timedelta(seconds=10)
"""How long, after a flush that took too long, flushes do not wait for rows: more rows may be locked."""

SET_ASIDE = text("INSERT INTO set_aside (batch) VALUES (:batch) ON CONFLICT DO NOTHING")


class PageViewStore:
    """Reads and counts page views. Every method raises DatabaseUnavailable when Postgres does not answer in time."""

    def __init__(self, database: Database) -> None:
        self._database, self._ledger = database, Ledger(database)
        self._careful_until = 0.0

    async def standing(
        self, pages: Sequence[str], batches: Sequence[tuple[str, datetime]]
    ) -> tuple[dict[str, int], frozenset[str], datetime, datetime]:
        """Returns, from one snapshot: the views of those `pages` that have any, those `batches` that were counted or
        became dead letters, the ledger's floor, and the earliest time for new ids."""
        parameters = {
            "pages": list(pages),
            "hours": sorted({hour_of(made_at) for _id, made_at in batches}),
            "batches": [id_ for id_, _made_at in batches],
        }
        (row,) = await self._database.look("page_views", STANDING, parameters)
        views: Counter[str] = Counter()
        for page, some in zip(row["pages"] or (), row["views"] or (), strict=True):
            views[page] += some
        return views, frozenset(row["applied"]), row["floor"], row["ids_from"]

    async def top(self, limit: int) -> list[tuple[str, int]]:
        """Returns the pages with the most views, and their views."""
        return [(row["page"], row["views"]) for row in await self._database.look("page_views", TOP, {"limit": limit})]

    async def apply(self, batches: Sequence[Counted]) -> int:
        """Counts the batches that the ledger does not have. Returns the number of rows of page views written.

        Views that cannot be added to their row in time are parked (`parking.py`). Raises Uncountable, having counted
        nothing, when Postgres refuses part of them, or when a batch is below the ledger's floor.
        """
        if time.monotonic() >= self._careful_until:
            try:
                return await self._apply_at_once(batches)
            except DatabaseUnavailable as error:
                # A COMMIT may take too long, too. The ledger shows whether it counted.
                cause = error.__cause__
                of_a_page = isinstance(cause, DBAPIError) and is_of_the_page(cause)
                if not (of_a_page or isinstance(error, TookTooLong) or isinstance(cause, TookTooLong)):
                    raise
            except DBAPIError as error:
                if not is_of_the_page(error):
                    raise
            self._careful_until = time.monotonic() + CAREFUL.total_seconds()
        return await self._ledger.record((batch.hour for batch in batches), partial(count_or_park, batches), LONGEST)

    async def _apply_at_once(self, batches: Sequence[Counted]) -> int:
        each = [(batch.id, page, delta) for batch in batches for page, delta in batch.deltas.items()]
        parameters = {
            "hours": [batch.hour for batch in batches],
            "batches": [batch.id for batch in batches],
            "batch_of": [id_ for id_, _page, _delta in each],
            "pages": [page for _id, page, _delta in each],
            "deltas": [delta for _id, _page, delta in each],
        }
        try:
            counted = await self._ledger.record(
                (batch.hour for batch in batches), lambda connection: connection.execute(APPLY, parameters)
            )
        except DBAPIError as error:
            if (why := refusal(error)) is None:
                raise
            raise Uncountable(why) from error
        await self._ledger.prune()
        return int(counted.rowcount)

    async def keep_unreadable(self, name: str, raw: bytes, reason: str, deliveries: int) -> None:
        """Keeps bytes that are no batch as a dead letter, once per `name`."""
        await self._set_aside(name, [letter(entry=raw, reason=reason)], [], deliveries)

    async def salvage(self, batch: Counted, deliveries: int) -> tuple[int, int]:
        """Counts what can be counted of a batch that the ledger does not have. Refused pages become dead letters, with
        what Postgres says of each. Views that only take too long are parked.

        Returns the number of rows of page views written, and of views that became dead letters.
        """
        try:
            return await self._ledger.record([batch.hour], partial(salvage, batch, deliveries), LONGEST)
        except Uncountable as gone:
            refused = dict.fromkeys(batch.deltas, str(gone))
            new = await self._set_aside(batch.id, letters(batch, refused), refused, deliveries)
            return 0, sum(batch.deltas.values()) if new else 0

    async def dead_letters(self, limit: int, after: int) -> list[DeadLetter]:
        """Returns the dead letters after the id `after`, oldest first."""
        rows = await self._database.look("dead_letters", DEAD, {"after": after, "limit": limit})
        return [DeadLetter(**row) for row in rows]

    async def count_dead_letters(self) -> int:
        """Returns the number of dead letters."""
        (row,) = await self._database.look("dead_letters", COUNT_DEAD)
        return int(row["count"])

    async def count_parked(self) -> int:
        """Returns the number of views that wait for the rows of their pages."""
        (row,) = await self._database.look("page_views", COUNT_PARKED)
        return int(row["views"])

    async def replay(self, letter: int) -> tuple[str, int]:
        """Counts the views of a dead letter, and removes it. Returns the page and the number of views.

        Raises NotFound, and Conflict when they still cannot be counted.
        """
        try:
            async with self._database.writing("dead_letters") as connection:
                found = await _remove(connection, letter)
                if found.page is None or found.delta is None:
                    raise Conflict(
                        f"Dead letter {letter} holds no views that can be counted; it can only be discarded."
                    )
                await connection.execute(ADD, {"page": found.page, "delta": found.delta})
                await connection.execute(CHANGED, {"page": found.page})
        except DBAPIError as error:
            if (why := refusal(error)) is None:
                raise
            raise Conflict(f"Dead letter {letter} is still refused: {why}") from error
        return found.page, found.delta

    async def discard(self, letter: int) -> None:
        """Removes a dead letter; its views are never counted. Raises NotFound."""
        async with self._database.writing("dead_letters") as connection:
            await _remove(connection, letter)

    async def _set_aside(
        self, name: str, letters: Sequence[Mapping[str, object]], refused: Iterable[str], deliveries: int
    ) -> bool:
        """Keeps an entry as dead letters, unless `name` already is in the table `set_aside`: the entries that became
        dead letters without a row in the ledger. (What a flusher sets aside, it retries.) Returns whether it was
        new."""
        async with self._database.writing("page_views") as connection:
            recorded = await connection.execute(SET_ASIDE, {"batch": name})
            if recorded.rowcount:
                await keep(connection, letters, name, deliveries)
                await tell(connection, refused)
            return bool(recorded.rowcount)


async def _remove(connection: AsyncConnection, letter: int) -> DeadLetter:
    found = await connection.execute(delete(dead_letters).where(dead_letters.c.id == letter).returning(*LETTER))
    row = found.one_or_none()
    if row is None:
        raise NotFound(f"There is no dead letter {letter}.")
    return DeadLetter(**row._mapping)
