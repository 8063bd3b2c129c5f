"""Page views in Postgres: SQL only. A method is one transaction, committed when it returns.

The ledger has the batches of the last `LEDGER`, in a partition for each hour; older partitions are dropped. Whether an
older batch was counted cannot be told any more, so it is not counted, and becomes dead letters.
"""

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import bindparam, column, delete, desc, func, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.availability import refusal
from app.database import Database
from app.errors import Conflict, DatabaseUnavailable, NotFound, Uncountable
from app.look import Look
from app.page_views.models import dead_letters, page_views

logger = logging.getLogger(__name__)

LEDGER = timedelta(hours=24)
LONGER = timedelta(hours=1)
"""A partition is kept for so much longer: the clocks of two processes are not one."""
AHEAD = timedelta(hours=1)
"""A batch that claims to come from later than this was not made here."""
PRUNING = timedelta(minutes=1)
LARGEST = 2**63 - 1
TOO_OLD = "It is older than the ledger, {hours} hours: whether it was counted cannot be told."
TO_COME = "It is of a time to come: {made_at}."

# The ledger first: only batches that are new to it are counted. Batches and pages are sorted, so that two flushers lock
# the same rows in the same order.
APPLY = text("""
WITH fresh AS (
  INSERT INTO applied (hour, batch)
  SELECT hour, batch FROM unnest(CAST(:hours AS timestamptz[]), CAST(:batches AS text[])) AS new (hour, batch)
  ORDER BY hour, batch ON CONFLICT DO NOTHING RETURNING batch
), sums AS (
  SELECT page, sum(delta)::bigint AS views
  FROM unnest(CAST(:batch_of AS text[]), CAST(:pages AS text[]), CAST(:deltas AS bigint[])) AS each (batch, page, delta)
  JOIN fresh USING (batch) GROUP BY page
)
INSERT INTO page_views AS counted (page, views) SELECT page, views FROM sums ORDER BY page
ON CONFLICT (page) DO UPDATE SET views = counted.views + excluded.views
""")

# One statement, and so one snapshot.
STANDING = Look(
    text("""
SELECT array_agg(page) AS pages, array_agg(views) AS views,
       ARRAY(SELECT batch FROM applied WHERE hour = ANY(:hours) AND batch = ANY(:batches)) AS applied
FROM page_views WHERE page = ANY(:pages)
""").columns(column("pages"), column("views"), column("applied"))
)

TOP = Look(
    select(page_views.c.page, page_views.c.views)
    .order_by(desc(page_views.c.views), page_views.c.page)
    .limit(bindparam("limit"))
)
DEAD = Look(
    select(dead_letters)
    .where(dead_letters.c.id > bindparam("after"))
    .order_by(dead_letters.c.id)
    .limit(bindparam("limit"))
)
COUNT_DEAD = Look(select(func.count().label("count")).select_from(dead_letters))

# Each hour has a partition of the ledger. It is made first, and then attached: to create it as a partition would lock
# the whole ledger, and wait for everybody who reads it, a dump for example.
PARTITION = """
DO $$ BEGIN
  PERFORM pg_advisory_xact_lock(hashtext('applied'));
  IF to_regclass('{name}') IS NULL THEN
    CREATE TABLE "{name}" (LIKE applied INCLUDING ALL);
    ALTER TABLE applied ATTACH PARTITION "{name}" FOR VALUES FROM ('{begin}') TO ('{end}');
  END IF;
END $$
"""

# A batch of another hour than its own, for its own is not in the ledger any more; a repetition comes soon after.
RECORD = text("""
INSERT INTO applied (hour, batch) SELECT :hour, :batch
WHERE NOT EXISTS (SELECT FROM applied WHERE hour = ANY(:hours) AND batch = :batch)
ON CONFLICT DO NOTHING
""")

SALVAGE = text("SELECT * FROM salvage_views(CAST(:pages AS text[]), CAST(:deltas AS bigint[]))")

ADD = text("""
INSERT INTO page_views AS counted (page, views) VALUES (:page, :delta)
ON CONFLICT (page) DO UPDATE SET views = counted.views + excluded.views
""")

# The relay carries it, and the caches forget the total of this page, also when this process dies after COMMIT.
CHANGED = text("INSERT INTO outbox (resource, key, version) VALUES ('page_views', :page, 0)")

PARTITIONS = text("""
SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
WHERE inhparent = 'applied'::regclass AND relname < :oldest ORDER BY relname
""")


@dataclass(frozen=True, slots=True)
class Counted:
    """A batch of views: its id, when that was made, and how many views of which pages."""

    id: str
    made_at: datetime
    deltas: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Bytes that are no batch, under a name that tells them from others."""

    name: str
    raw: bytes


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Views that could not be counted, and why. Without a `page` they cannot be counted at all, and `entry` has them as
    they came. `deliveries` is how often they were tried."""

    id: int
    page: str | None
    delta: int | None
    batch: str | None
    entry: bytes | None
    reason: str
    deliveries: int
    created_at: datetime


def _utc() -> datetime:
    return datetime.now(UTC)


class PageViewStore:
    """Reads and counts page views. `now` is the clock by which batches are named; which of them the ledger can tell of
    is judged by no other. Every method raises DatabaseUnavailable when Postgres does not answer in time."""

    def __init__(self, database: Database, now: Callable[[], datetime] = _utc) -> None:
        self._database, self._now = database, now
        self._partitions: set[datetime] = set()
        self._prune_at = 0.0

    async def standing(
        self, pages: Sequence[str], batches: Sequence[tuple[str, datetime]]
    ) -> tuple[dict[str, int], frozenset[str]]:
        """The views of those of `pages` that have any, and which of `batches` are in the ledger: from one snapshot."""
        parameters = {
            "pages": list(pages),
            "hours": sorted({_hour(made_at) for _id, made_at in batches}),
            "batches": [id_ for id_, _made_at in batches],
        }
        (row,) = await self._database.look("page_views", STANDING, parameters)
        return dict(zip(row["pages"] or (), row["views"] or (), strict=True)), frozenset(row["applied"])

    async def top(self, limit: int) -> list[tuple[str, int]]:
        """The pages with the most views, and how many."""
        return [(row["page"], row["views"]) for row in await self._database.look("page_views", TOP, {"limit": limit})]

    async def apply(self, batches: Sequence[Counted]) -> int:
        """Counts those batches that the ledger does not have. Answers how many rows of page views it wrote.

        Raises Uncountable when Postgres refuses something of them, or a batch is not of the ledger's time; then it has
        counted nothing.
        """
        for batch in batches:
            if (why := self._untimely(batch)) is not None:
                raise Uncountable(why)
        await self._partition({_hour(batch.made_at) for batch in batches})
        each = [(batch.id, page, delta) for batch in batches for page, delta in batch.deltas.items()]
        try:
            async with self._database.writing("page_views") as connection:
                counted = await connection.execute(
                    APPLY,
                    {
                        "hours": [_hour(batch.made_at) for batch in batches],
                        "batches": [batch.id for batch in batches],
                        "batch_of": [id_ for id_, _page, _delta in each],
                        "pages": [page for _id, page, _delta in each],
                        "deltas": [delta for _id, _page, delta in each],
                    },
                )
        except DBAPIError as error:
            # It may be that somebody has dropped a partition: the next try looks again.
            self._partitions.clear()
            if (why := refusal(error)) is None:
                raise
            raise Uncountable(why) from error
        await self._prune()
        return int(counted.rowcount)

    async def salvage(self, batch: Counted | Unreadable, reason: str, deliveries: int) -> tuple[int, int]:
        """Counts what can be counted of a batch that the ledger does not have, and keeps the rest as dead letters.

        Answers how many rows of page views it wrote, and how many views became dead letters. `reason` is why bytes are
        no batch; of a batch, Postgres says why it refuses a page.
        """
        untimely = self._untimely(batch) if isinstance(batch, Counted) else None
        timely = isinstance(batch, Counted) and untimely is None
        hour = _hour(batch.made_at if isinstance(batch, Counted) and timely else self._now())
        name = batch.id if isinstance(batch, Counted) else batch.name
        await self._partition({hour})
        try:
            async with self._database.writing("page_views") as connection:
                hours = [hour - timedelta(hours=back) for back in range(LEDGER // timedelta(hours=1) + 1)]
                recorded = await connection.execute(RECORD, {"hour": hour, "hours": hours, "batch": name})
                if not recorded.rowcount:
                    return 0, 0  # Somebody has done so already, and died before it was forgotten.
                if isinstance(batch, Unreadable):
                    await _keep(connection, [_letter(entry=batch.raw, reason=reason)], name, deliveries)
                    return 0, 0
                refused = (
                    dict.fromkeys(batch.deltas, untimely) if untimely else await _count_each(connection, batch.deltas)
                )
                letters = [
                    _letter(entry=json.dumps({page: batch.deltas[page]}).encode(), reason=why)
                    if _unfit(page, batch.deltas[page])
                    else _letter(page=page, delta=batch.deltas[page], reason=why)
                    for page, why in refused.items()
                ]
                await _keep(connection, letters, name, deliveries)
                # They are in no total from now on, so those that are cached are told, as after a replay.
                if told := [{"page": page} for page in refused if _unfit(page, 1) is None]:
                    await connection.execute(CHANGED, told)
                return len(batch.deltas) - len(refused), sum(batch.deltas[page] for page in refused)
        except DBAPIError:
            self._partitions.clear()  # It may be that somebody has dropped one.
            raise

    async def dead_letters(self, limit: int, after: int) -> list[DeadLetter]:
        """The dead letters behind the id `after`, oldest first."""
        rows = await self._database.look("dead_letters", DEAD, {"after": after, "limit": limit})
        return [DeadLetter(**row) for row in rows]

    async def count_dead_letters(self) -> int:
        """How many dead letters there are."""
        (row,) = await self._database.look("dead_letters", COUNT_DEAD)
        return int(row["count"])

    async def replay(self, letter: int) -> tuple[str, int]:
        """Counts the views of a dead letter, and removes it. Answers the page, and how many views that were.

        Raises NotFound, and Conflict when it still cannot be counted.
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

    async def _partition(self, hours: set[datetime]) -> None:
        for hour in sorted(hours - self._partitions):
            end = hour + timedelta(hours=1)
            create = PARTITION.format(name=_name(hour), begin=hour.isoformat(), end=end.isoformat())
            async with self._database.writing("page_views") as connection:
                await connection.exec_driver_sql(create)
            self._partitions.add(hour)

    def _untimely(self, batch: Counted) -> str | None:
        """Why the ledger cannot tell whether a batch was counted; None when it can."""
        now = self._now()
        if batch.made_at < now - LEDGER:
            return TOO_OLD.format(hours=LEDGER // timedelta(hours=1))
        return TO_COME.format(made_at=batch.made_at) if batch.made_at > now + AHEAD else None

    async def _prune(self) -> None:
        """Drops the partitions that are too old to tell anything, now and then."""
        if time.monotonic() < self._prune_at:
            return
        self._prune_at = time.monotonic() + PRUNING.total_seconds()
        oldest = _hour(self._now() - LEDGER - LONGER)
        try:
            async with self._database.reading("page_views") as connection:
                names = list(await connection.scalars(PARTITIONS, {"oldest": _name(oldest)}))
            for name in names:
                async with self._database.writing("page_views") as connection:
                    # It needs the ledger for itself for a moment. Whoever waits for that makes all others wait behind
                    # him, and a dump may read it for an hour: so it does not wait long, and comes again.
                    await connection.exec_driver_sql("SET LOCAL lock_timeout = '100ms'")
                    await connection.exec_driver_sql(f'DROP TABLE IF EXISTS "{name}"')
                self._partitions.clear()
        except DatabaseUnavailable as error:
            logger.warning("Old partitions of the ledger could not be dropped now: %s", error)


async def _count_each(connection: AsyncConnection, deltas: Mapping[str, int]) -> dict[str, str]:
    """Counts each page by itself, and answers which were refused, and why."""
    unfit = {page: why for page, delta in deltas.items() if (why := _unfit(page, delta)) is not None}
    fit = {page: delta for page, delta in deltas.items() if page not in unfit}
    rows = await connection.execute(SALVAGE, {"pages": list(fit), "deltas": list(fit.values())})
    return unfit | {row.refused_page: row.reason for row in rows}


def _unfit(page: str, delta: int) -> str | None:
    """Why some views cannot even be sent to Postgres."""
    if "\0" in page or any("\ud800" <= letter <= "\udfff" for letter in page):
        return "Its page is no text that Postgres can keep."
    return f"{delta:,} views are more than Postgres can count." if delta > LARGEST else None


def _letter(
    *, reason: str, page: str | None = None, delta: int | None = None, entry: bytes | None = None
) -> dict[str, object]:
    return {"page": page, "delta": delta, "entry": entry, "reason": reason}


async def _keep(
    connection: AsyncConnection, letters: Sequence[Mapping[str, object]], batch: str, deliveries: int
) -> None:
    if letters:
        more = {"batch": batch, "deliveries": deliveries}
        await connection.execute(dead_letters.insert(), [{**letter, **more} for letter in letters])


async def _remove(connection: AsyncConnection, letter: int) -> DeadLetter:
    found = await connection.execute(delete(dead_letters).where(dead_letters.c.id == letter).returning(dead_letters))
    row = found.one_or_none()
    if row is None:
        raise NotFound(f"There is no dead letter {letter}.")
    return DeadLetter(**row._mapping)


def _hour(time: datetime) -> datetime:
    return time.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def _name(hour: datetime) -> str:
    return f"applied_{hour:%Y%m%d%H}"
