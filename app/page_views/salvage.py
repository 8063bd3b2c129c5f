"""Batches that cannot be counted at once, for some of their pages: the others are, all in one transaction.

    locked        found in one look, without a wait
    refused       one statement, in which each page stands in a block of its own
    too slow      undone alone: the pages are tried by halves, with little time for each try

What is refused becomes dead letters. What is locked or too slow is parked: it is counted, and waits for its row in a
table of its own (`parking.py`).

What can go wrong: so many pages are too slow that there is no time for all. What was not tried is parked, too.
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
"""How long all of it may last: it holds the rows that it has counted."""
ALL, EACH, LOCK = timedelta(seconds=2), timedelta(milliseconds=400), timedelta(milliseconds=30)
"""How long its tries may take together, each of them, and each for a lock."""

RECORD = text("""
INSERT INTO applied (hour, batch)
SELECT hour, batch FROM unnest(CAST(:hours AS timestamptz[]), CAST(:batches AS text[])) AS new (hour, batch)
ORDER BY hour, batch ON CONFLICT DO NOTHING RETURNING batch
""")

BLOCKED = text("SELECT DISTINCT page FROM parked_views WHERE blocked AND page = ANY(:pages)")
LOCK_TABLE = text("LOCK TABLE page_views IN ROW EXCLUSIVE MODE NOWAIT")
# What is locked is passed over, so nobody is waited for.
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

# The relay carries it, and the caches forget the total of this page, also when this process dies after COMMIT.
CHANGED = text("INSERT INTO outbox (resource, key, version) VALUES ('page_views', :page, 0)")


Parked = tuple[str, bool, str, int]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Which pages were refused, which are locked or too slow, and why; and for which there was no time."""

    refused: dict[str, str] = field(default_factory=dict)
    locked: dict[str, str] = field(default_factory=dict)
    slow: dict[str, str] = field(default_factory=dict)
    untried: set[str] = field(default_factory=set)

    @property
    def rows(self) -> list[Parked]:
        """What is to be parked: a page, whether it blocks, why, and how often it was tried. One that was not tried, or
        waits behind others, blocks nobody itself: see `parking.py`."""
        return [
            *((page, True, why, 0) for page, why in self.locked.items()),
            *((page, True, why, 1) for page, why in self.slow.items()),
            *((page, False, NO_TIME, 0) for page in self.untried),
        ]


async def record(batches: Iterable[Counted], connection: AsyncConnection) -> frozenset[str]:
    """Writes batches down as counted, and answers which of them were not yet."""
    some = list(batches)
    parameters = {"hours": [one.hour for one in some], "batches": [one.id for one in some]}
    return frozenset(await connection.scalars(RECORD, parameters))


async def salvage(batch: Counted, deliveries: int, connection: AsyncConnection) -> tuple[int, int]:
    """Counts what can be counted. Answers how many rows it wrote, and how many views became dead letters."""
    if not await record([batch], connection):
        return 0, 0  # Somebody has done so already, and died before it was forgotten.
    outcome, counted = await count(batch.deltas, connection)
    await keep(connection, letters(batch, outcome.refused), batch.id, deliveries)
    await tell(connection, outcome.refused)
    return counted, sum(batch.deltas[page] for page in outcome.refused)


async def count_or_park(batches: Sequence[Counted], connection: AsyncConnection) -> int:
    """Counts what can be counted in time, and parks the rest. Answers how many rows of page views it wrote.

    Raises Uncountable when something is refused: then it is to be undone.
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
    """Adds to each page, and parks what is not done in time. Answers what became of the others, and how many rows it
    wrote."""
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
        locked = set(free)  # The table as a whole is.
    outcome.locked.update(dict.fromkeys(locked, IS_LOCKED))
    await add_by_halves(connection, {page: deltas[page] for page in free if page not in locked}, outcome)
    parked = [*outcome.rows, *((page, False, BEHIND_OTHERS, 0) for page in blocked)]
    names = ("page", "blocked", "reason", "tries")
    rows = [dict(zip(names, one, strict=True)) | {"delta": deltas[one[0]]} for one in parked]
    if rows:
        await connection.execute(parked_views.insert(), rows)
    return outcome, len(pages) - len(rows) - sum(page in outcome.refused for page in pages)


async def limit_time(connection: AsyncConnection) -> None:
    """No statement of this transaction waits or works for long. What would come at COMMIT comes at once: what is too
    slow can be undone alone."""
    for name, time_ in (("statement_timeout", EACH), ("lock_timeout", LOCK)):
        await connection.exec_driver_sql(f"SET LOCAL {name} = {round(time_ / timedelta(milliseconds=1))}")
    await connection.exec_driver_sql("SET CONSTRAINTS ALL IMMEDIATE")


async def add_by_halves(connection: AsyncConnection, deltas: Mapping[str, int], outcome: Outcome) -> None:
    """Adds to all pages, and where that fails to half of them, and half of those, for as long as `ALL`.

    It comes down to something first: else each pass would end where the one before did.
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
    """Whether another page may fare better: it is refused or too slow, its row is damaged, or Postgres says what nobody
    knows."""
    state = sqlstate(error) or ""
    return unavailability(error) is None or state in TOO_LONG or state.startswith(("XX", "55000"))


def unfit_of(deltas: Mapping[str, int]) -> Outcome:
    """Which of these cannot even be sent to Postgres."""
    return Outcome({page: why for page, delta in deltas.items() if (why := unfit(page, delta)) is not None})


def unfit(page: str, delta: int) -> str | None:
    """Why some views cannot even be sent to Postgres."""
    if "\0" in page or any("\ud800" <= letter <= "\udfff" for letter in page):
        return "Its page is no text that Postgres can keep."
    return f"{delta:,} views are more than Postgres can count." if delta > LARGEST else None


def letter(
    *, reason: str, page: str | None = None, delta: int | None = None, entry: bytes | None = None
) -> dict[str, object]:
    """A dead letter, with nothing in the columns that are not given."""
    return {"page": page, "delta": delta, "entry": entry, "reason": reason}


def letters(batch: Counted, of_pages: Mapping[str, str]) -> list[dict[str, object]]:
    """What becomes of the pages of a batch that were refused."""
    return [refused(page, batch.deltas[page], why) for page, why in of_pages.items()]


def refused(page: str, delta: int, why: str) -> dict[str, object]:
    """The dead letter of some views of a page."""
    if unfit(page, delta):
        return letter(entry=json.dumps({page: delta}).encode(), reason=why)
    return letter(page=page, delta=delta, reason=why)


async def tell(connection: AsyncConnection, refused: Iterable[str]) -> None:
    """They are in no total from now on, so those that are cached are told, as after a replay."""
    if told := [{"page": page} for page in refused if unfit(page, 1) is None]:
        await connection.execute(CHANGED, told)


async def keep(
    connection: AsyncConnection, letters: Sequence[Mapping[str, object]], batch: str | None, deliveries: int
) -> None:
    """Keeps dead letters."""
    if letters:
        more = {"batch": batch, "deliveries": deliveries}
        await connection.execute(dead_letters.insert(), [{**letter, **more} for letter in letters])
