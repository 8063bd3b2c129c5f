"""Counts batches of which some pages cannot be counted at once: all other pages are, in one transaction.

    locked        found by one query, without a wait
    refused       found by one statement that adds each page in a block of its own
    too slow      rolled back alone: the pages are tried by halves, with little time for each try

Refused views become dead letters. Views of a locked or slow row are parked: they are counted, and wait for the row in a
separate table (`parking.py`).

What can go wrong: so many pages are too slow that time runs out. Pages that were not tried are parked, too.
"""

import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.availability import TOO_LONG, refusal, said, sqlstate, unavailability
from app.errors import Uncountable
from app.page_views.models import Counted, dead_letters, parked_views

LARGEST = 2**63 - 1

LONGEST = timedelta(seconds=10)
"""The time limit of the whole transaction, which locks the rows that it has counted."""
ALL, EACH, LOCK = timedelta(seconds=2), timedelta(milliseconds=400), timedelta(milliseconds=30)
"""The time limits of all tries together, of each try, and of each wait for a lock."""

RECORD = text("""
INSERT INTO applied (hour, batch)
SELECT hour, batch FROM unnest(CAST(:hours AS timestamptz[]), CAST(:batches AS text[])) AS new (hour, batch)
ORDER BY hour, batch ON CONFLICT DO NOTHING RETURNING batch
""")

BLOCKED = text("SELECT DISTINCT page FROM parked_views WHERE blocked AND page = ANY(:pages)")
LOCK_TABLE = text("LOCK TABLE page_views IN ROW EXCLUSIVE MODE NOWAIT")
# SKIP LOCKED: the statement waits for no other transaction.
LOCKED = text("""
WITH free AS MATERIALIZED (
  SELECT page FROM page_views WHERE page = ANY(:pages) ORDER BY page FOR NO KEY UPDATE SKIP LOCKED
)
SELECT page FROM page_views WHERE page = ANY(:pages) AND page NOT IN (SELECT page FROM free)
""")
IS_LOCKED = "Its row is locked, or was a moment ago."
NO_TIME = "Others were too slow, and left no time to try it."
BEHIND_OTHERS = "Others are parked already."

SALVAGE = text("SELECT * FROM salvage_views(CAST(:pages AS text[]), CAST(:deltas AS bigint[]))")

ADD = text("""
INSERT INTO page_views AS counted (page, views) VALUES (:page, :delta)
ON CONFLICT (page) DO UPDATE SET views = counted.views + excluded.views
""")

# The relay delivers this row, so the caches drop the page's total even if this process dies after COMMIT.
CHANGED = text("INSERT INTO outbox (resource, key, version) VALUES ('page_views', :page, 0)")


Parked = tuple[str, bool, str, int]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The pages that were refused, locked or too slow, with the reason, and those that there was no time to try."""

    refused: dict[str, str] = field(default_factory=dict)
    locked: dict[str, str] = field(default_factory=dict)
    slow: dict[str, str] = field(default_factory=dict)
    untried: set[str] = field(default_factory=set)

    @property
    def rows(self) -> list[Parked]:
        """The rows to park: page, whether it blocks the page, reason, number of tries. A page that was not tried, or
        that waits behind parked views, does not block: see `parking.py`."""
        return [
            *((page, True, why, 0) for page, why in self.locked.items()),
            *((page, True, why, 1) for page, why in self.slow.items()),
            *((page, False, NO_TIME, 0) for page in self.untried),
        ]


async def record(batches: Iterable[Counted], connection: AsyncConnection) -> frozenset[str]:
    """Records batches as counted. Returns the ids of those that were not yet."""
    some = list(batches)
    parameters = {"hours": [one.hour for one in some], "batches": [one.id for one in some]}
    return frozenset(await connection.scalars(RECORD, parameters))


async def salvage(batch: Counted, deliveries: int, connection: AsyncConnection) -> tuple[int, int]:
    """Counts what can be counted. Returns the number of rows written, and of views that became dead letters."""
    if not await record([batch], connection):
        return 0, 0  # Another process counted it, and died before it removed the entry.
    outcome, counted = await count(batch.deltas, connection)
    await keep(connection, letters(batch, outcome.refused), batch.id, deliveries)
    await tell(connection, outcome.refused)
    return counted, sum(batch.deltas[page] for page in outcome.refused)


async def count_or_park(batches: Sequence[Counted], connection: AsyncConnection) -> int:
    """Counts what can be counted in time, and parks the rest. Returns the number of rows of page views written.

    Raises Uncountable when something is refused: then the transaction must be rolled back.
    """
    fresh = await record(batches, connection)
    deltas: Counter[str] = Counter()
    for batch in {one.id: one for one in batches if one.id in fresh}.values():
        deltas.update(batch.deltas)
    outcome, counted = await count(deltas, connection)
    for reason in outcome.refused.values():
        raise Uncountable(reason)
    return counted


async def count(deltas: Mapping[str, int], connection: AsyncConnection) -> tuple[Outcome, int]:
    """Adds to each page, and parks what cannot be added in time. Returns the outcome of the pages that were not
    counted, and the number of rows written."""
    outcome = unfit_of(deltas)
    await limit_time(connection)
    pages = sorted(deltas.keys() - outcome.refused.keys())
    blocked = set(await connection.scalars(BLOCKED, {"pages": pages}))
    free = [page for page in pages if page not in blocked]
    try:
        async with connection.begin_nested():
            await connection.execute(LOCK_TABLE)
            locked = set(await connection.scalars(LOCKED, {"pages": free}))
    except DBAPIError as error:
        if sqlstate(error) not in TOO_LONG:
            raise
        locked = set(free)  # The whole table is locked.
    outcome.locked.update(dict.fromkeys(locked, IS_LOCKED))
    await add_by_halves(connection, {page: deltas[page] for page in free if page not in locked}, outcome)
    parked = [*outcome.rows, *((page, False, BEHIND_OTHERS, 0) for page in blocked)]
    names = ("page", "blocked", "reason", "tries")
    rows = [dict(zip(names, one, strict=True)) | {"delta": deltas[one[0]]} for one in parked]
    if rows:
        await connection.execute(parked_views.insert(), rows)
    return outcome, len(pages) - len(rows) - sum(page in outcome.refused for page in pages)


async def limit_time(connection: AsyncConnection) -> None:
    """Limits how long each statement of this transaction waits and runs. Deferred constraints are checked at once, not
    at COMMIT, so that a slow page can be rolled back alone."""
    for name, time_ in (("statement_timeout", EACH), ("lock_timeout", LOCK)):
        await connection.exec_driver_sql(f"SET LOCAL {name} = {round(time_ / timedelta(milliseconds=1))}")
    await connection.exec_driver_sql("SET CONSTRAINTS ALL IMMEDIATE")


async def add_by_halves(connection: AsyncConnection, deltas: Mapping[str, int], outcome: Outcome) -> None:
    """Adds to all pages. Where that fails it tries the halves, and their halves, for at most `ALL`.

    The limit applies only once a try was conclusive. Otherwise each pass would end where the one before did.
    """
    deadline = time.monotonic() + ALL.total_seconds()
    waiting, came_down = [list(deltas)] if deltas else [], False
    while waiting:
        pages = waiting.pop()
        if came_down and time.monotonic() >= deadline:
            outcome.untried.update(pages)
            continue
        try:
            async with connection.begin_nested():
                parameters = {"pages": pages, "deltas": [deltas[page] for page in pages]}
                rows = (await connection.execute(SALVAGE, parameters)).all()
        except DBAPIError as error:
            if not is_of_the_page(error):
                raise
            if len(pages) > 1:
                waiting += [pages[len(pages) // 2 :], pages[: len(pages) // 2]]
                continue
            if (why := refusal(error)) is not None:
                outcome.refused[pages[0]] = why
            else:
                outcome.slow[pages[0]] = said(error)
        else:
            outcome.refused.update((row.refused_page, row.reason) for row in rows)
        came_down = True


def is_of_the_page(error: DBAPIError) -> bool:
    """Whether the error may concern this page alone: it is refused or too slow, its row is damaged, or the error is
    unknown."""
    state = sqlstate(error) or ""
    return unavailability(error) is None or state in TOO_LONG or state.startswith(("XX", "55000"))


def unfit_of(deltas: Mapping[str, int]) -> Outcome:
    """Returns an outcome that refuses the pages that cannot even be sent to Postgres."""
    return Outcome({page: why for page, delta in deltas.items() if (why := unfit(page, delta)) is not None})


def unfit(page: str, delta: int) -> str | None:
    """Returns why these views cannot even be sent to Postgres, or None if they can."""
    if "\0" in page or any("\ud800" <= letter <= "\udfff" for letter in page):
        return "Its page is no text that Postgres can keep."
    return f"{delta:,} views are more than Postgres can count." if delta > LARGEST else None


def letter(
    *, reason: str, page: str | None = None, delta: int | None = None, entry: bytes | None = None
) -> dict[str, object]:
    """Returns a dead letter, with None in the columns that are not given."""
    return {"page": page, "delta": delta, "entry": entry, "reason": reason}


def letters(batch: Counted, of_pages: Mapping[str, str]) -> list[dict[str, object]]:
    """Returns the dead letters of the refused pages of a batch."""
    return [refused(page, batch.deltas[page], why) for page, why in of_pages.items()]


def refused(page: str, delta: int, why: str) -> dict[str, object]:
    """Returns the dead letter for the refused views of a page."""
    if unfit(page, delta):
        return letter(entry=json.dumps({page: delta}).encode(), reason=why)
    return letter(page=page, delta=delta, reason=why)


async def tell(connection: AsyncConnection, refused: Iterable[str]) -> None:
    """Invalidates the cached totals of these pages, as after a replay: refused views are in no total any more."""
    if told := [{"page": page} for page in refused if unfit(page, 1) is None]:
        await connection.execute(CHANGED, told)


async def keep(
    connection: AsyncConnection, letters: Sequence[Mapping[str, object]], batch: str | None, deliveries: int
) -> None:
    """Inserts dead letters."""
    if letters:
        more = {"batch": batch, "deliveries": deliveries}
        await connection.execute(dead_letters.insert(), [{**letter, **more} for letter in letters])
