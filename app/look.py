"""A SELECT that itself returns where it ran: on a primary, with its timeline, or on a standby.

    SELECT one.timeline, q.* FROM (SELECT <timeline> AS timeline) AS one LEFT JOIN (<query>) AS q ON true

It is still one statement, and returns a row even where the query has none. A separate question would cost another round
trip, and its answer could be about another server: behind a pooler, two statements may run on two servers. The timeline
costs 7 µs of Postgres' time, besides the 40 to 90 of the simplest query.

The timeline is on the left of the join, so it is evaluated before any function of the query reads a row. But Postgres
takes the snapshot of a plain query even earlier:

    a standby takes the snapshot
                                    it replays more, and is promoted
    it reports a primary at the new timeline, which no instance trusts that has not polled it since

What can go wrong: some managed services refuse the functions of the log (42501).
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Select, Text, TextualSelect, literal_column, select, true

TIMELINE = literal_column(
    "CASE WHEN pg_is_in_recovery() THEN NULL ELSE substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) END",
    Text,
).label("ran_at_timeline")
"""The timeline as eight hexadecimal digits, NULL on a standby. The log's file name has the new timeline from the
promotion on; the last checkpoint, which other functions read, may lag behind."""

ONE = select(TIMELINE).subquery("one")


class Look:
    """A query that returns where it ran. Build it once: building takes longer than Postgres takes to run it."""

    def __init__(self, query: Select[Any] | TextualSelect) -> None:
        """`query` names each of its columns."""
        found = query.subquery("found")
        self._names = list(found.c.keys())
        there = select(true().label("is_there"), found).subquery("q")
        self.statement = select(ONE.c[TIMELINE.name], there.c.is_there, *(there.c[name] for name in self._names))
        self.statement = self.statement.select_from(ONE.outerjoin(there, true()))

    def found(self, rows: Sequence[Sequence[Any]]) -> list[dict[str, Any]]:
        """Returns the query's rows from those of `statement`, which are: timeline, whether there is a row, the row."""
        return [dict(zip(self._names, row[2:], strict=True)) for row in rows if row[1]]
