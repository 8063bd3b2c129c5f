"""Page views in Postgres: SQL only. A method is one transaction, committed when it returns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import desc, func, select, text
from sqlalchemy.exc import IntegrityError

from app.database import Database
from app.page_views.models import dead_letters, page_views

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
STANDING = text("""
SELECT array_agg(page), array_agg(views),
       ARRAY(SELECT batch FROM applied WHERE hour = ANY(:hours) AND batch = ANY(:batches))
FROM page_views WHERE page = ANY(:pages)
""")

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


@dataclass(frozen=True, slots=True)
class Counted:
    """A batch of views: its id, when that was made, and how many views of which pages."""

    id: str
    made_at: datetime
    deltas: Mapping[str, int]


class PageViewStore:
    """Reads and counts page views. Every method raises DatabaseUnavailable when Postgres does not answer in time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._partitions: set[datetime] = set()

    async def standing(
        self, pages: Sequence[str], batches: Sequence[tuple[str, datetime]]
    ) -> tuple[dict[str, int], frozenset[str]]:
        """The views of those of `pages` that have any, and which of `batches` are in the ledger: from one snapshot."""
        parameters = {
            "pages": list(pages),
            "hours": sorted({_hour(made_at) for _id, made_at in batches}),
            "batches": [id_ for id_, _made_at in batches],
        }
        async with self._database.reading("page_views") as connection:
            found, views, applied = (await connection.execute(STANDING, parameters)).one()
        return dict(zip(found or (), views or (), strict=True)), frozenset(applied)

    async def top(self, limit: int) -> list[tuple[str, int]]:
        """The pages with the most views, and how many."""
        query = select(page_views.c.page, page_views.c.views).order_by(desc(page_views.c.views), page_views.c.page)
        async with self._database.reading("page_views") as connection:
            return [(row.page, row.views) for row in await connection.execute(query.limit(limit))]

    async def apply(self, batches: Sequence[Counted], undecodable: Sequence[tuple[str, bytes]]) -> int:
        """Counts those batches that the ledger does not have, and keeps what is none as dead letters.

        Answers how many rows of page views it wrote.
        """
        await self._partition({_hour(batch.made_at) for batch in batches})
        try:
            return await self._apply(batches, undecodable)
        except IntegrityError:
            # Somebody has dropped a partition that was there: the next try looks again.
            self._partitions.clear()
            raise

    async def _apply(self, batches: Sequence[Counted], undecodable: Sequence[tuple[str, bytes]]) -> int:
        each = [(batch.id, page, delta) for batch in batches for page, delta in batch.deltas.items()]
        async with self._database.writing("page_views") as connection:
            letters = [
                {"entry": raw, "reason": f"The entry {place} is no batch of views.", "deliveries": 1}
                for place, raw in undecodable
            ]
            if letters:
                await connection.execute(dead_letters.insert(), letters)
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
            return int(counted.rowcount)

    async def dead_letters(self) -> int:
        """How many dead letters there are."""
        async with self._database.reading("page_views") as connection:
            return int(await connection.scalar(select(func.count()).select_from(dead_letters)) or 0)

    async def _partition(self, hours: set[datetime]) -> None:
        for hour in sorted(hours - self._partitions):
            end = hour + timedelta(hours=1)
            create = PARTITION.format(name=f"applied_{hour:%Y%m%d%H}", begin=hour.isoformat(), end=end.isoformat())
            async with self._database.writing("page_views") as connection:
                await connection.exec_driver_sql(create)
            self._partitions.add(hour)


def _hour(time: datetime) -> datetime:
    return time.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
