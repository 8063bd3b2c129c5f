"""Of a batch that is refused as a whole: what can be counted is, and the rest becomes dead letters, in one transaction.

    refused              one statement, in which each page stands in a block of its own
    in vain too often    one statement for each page, with little time for each: the last try

What can go wrong: so many pages are too slow that there is no time for all. What was not tried is a dead letter, too.
"""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.availability import TOO_LONG, refusal, said, sqlstate, unavailability
from app.page_views.models import Counted, dead_letters

LARGEST = 2**63 - 1

LONGEST = timedelta(seconds=10)
"""How long the last try may last: it holds the rows that it has counted."""
ALL, EACH, LOCK = timedelta(seconds=8), timedelta(seconds=1), timedelta(milliseconds=500)
"""How long its pages have together, each of them, and each for a lock."""

RECORD = text("INSERT INTO applied (hour, batch) VALUES (:hour, :batch) ON CONFLICT DO NOTHING")

SALVAGE = text("SELECT * FROM salvage_views(CAST(:pages AS text[]), CAST(:deltas AS bigint[]))")

ADD = text("""
INSERT INTO page_views AS counted (page, views) VALUES (:page, :delta)
ON CONFLICT (page) DO UPDATE SET views = counted.views + excluded.views
""")

# The relay carries it, and the caches forget the total of this page, also when this process dies after COMMIT.
CHANGED = text("INSERT INTO outbox (resource, key, version) VALUES ('page_views', :page, 0)")


async def salvage(batch: Counted, deliveries: int, last: bool, connection: AsyncConnection) -> tuple[int, int]:
    """Answers how many rows of page views it wrote, and how many views became dead letters."""
    recorded = await connection.execute(RECORD, {"hour": batch.hour, "batch": batch.id})
    if not recorded.rowcount:
        return 0, 0  # Somebody has done so already, and died before it was forgotten.
    refused = {page: why for page, delta in batch.deltas.items() if (why := unfit(page, delta)) is not None}
    fit = {page: batch.deltas[page] for page in sorted(batch.deltas.keys() - refused.keys())}
    refused |= await (_count_slowly if last else _count_each)(connection, fit)
    await keep(connection, letters(batch, refused), batch.id, deliveries)
    await tell(connection, refused)
    return len(batch.deltas) - len(refused), sum(batch.deltas[page] for page in refused)


async def _count_each(connection: AsyncConnection, deltas: Mapping[str, int]) -> dict[str, str]:
    """Counts each page by itself, and answers which were refused, and why."""
    rows = await connection.execute(SALVAGE, {"pages": list(deltas), "deltas": list(deltas.values())})
    return {row.refused_page: row.reason for row in rows}


async def _count_slowly(connection: AsyncConnection, deltas: Mapping[str, int]) -> dict[str, str]:
    """The same, in a statement of its own each: one that is too slow is undone alone."""
    for name, time_ in (("statement_timeout", EACH), ("lock_timeout", LOCK)):
        await connection.exec_driver_sql(f"SET LOCAL {name} = {round(time_ / timedelta(milliseconds=1))}")
    refused: dict[str, str] = {}
    deadline = time.monotonic() + ALL.total_seconds()
    for page, delta in deltas.items():
        if time.monotonic() >= deadline:
            refused[page] = "The others were too slow, and left no time to try it."
            continue
        try:
            async with connection.begin_nested():
                await connection.execute(ADD, {"page": page, "delta": delta})
        except DBAPIError as error:
            if unavailability(error) is not None and sqlstate(error) not in TOO_LONG:
                raise
            refused[page] = refusal(error) or said(error)
    return refused


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


def letters(batch: Counted, refused: Mapping[str, str]) -> list[dict[str, object]]:
    """What becomes of the pages of a batch that were refused."""
    return [
        letter(entry=json.dumps({page: batch.deltas[page]}).encode(), reason=why)
        if unfit(page, batch.deltas[page])
        else letter(page=page, delta=batch.deltas[page], reason=why)
        for page, why in refused.items()
    ]


async def tell(connection: AsyncConnection, refused: Iterable[str]) -> None:
    """They are in no total from now on, so those that are cached are told, as after a replay."""
    if told := [{"page": page} for page in refused if unfit(page, 1) is None]:
        await connection.execute(CHANGED, told)


async def keep(
    connection: AsyncConnection, letters: Sequence[Mapping[str, object]], batch: str, deliveries: int
) -> None:
    """Keeps dead letters."""
    if letters:
        more = {"batch": batch, "deliveries": deliveries}
        await connection.execute(dead_letters.insert(), [{**letter, **more} for letter in letters])
