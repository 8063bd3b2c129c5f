"""A SELECT that says by itself where it was carried out: on a primary, and at which timeline, or on a standby.

    SELECT one.timeline, q.* FROM (SELECT <timeline> AS timeline) AS one LEFT JOIN (<query>) AS q ON true

It is one statement, as before, and it has a row also where the query has none. To ask the connection would be another
round trip, and an old answer: behind a pooler, two statements may be carried out by two servers. It costs 7 µs of
Postgres' time, beside the 40 to 90 of the plainest query.

The timeline stands to the left, so it is told before any function of the query reads a row. Postgres takes the snapshot
of a plain query still earlier:

    a standby takes the snapshot
                                    it replays more, and is promoted
    it says that it is a primary: at the new timeline, which nobody believes who has not met it since

What can go wrong: some managed services refuse the functions of the log (42501).
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Select, Text, TextualSelect, literal_column, select, true

TIMELINE = literal_column(
    "CASE WHEN pg_is_in_recovery() THEN NULL ELSE substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) END",
    Text,
).label("ran_at_timeline")
"""Eight hexadecimal digits, NULL on a standby. The file of the log names the new timeline from the promotion on; the
last checkpoint, which others ask, may come later."""

ONE = select(TIMELINE).subquery("one")


class Look:
    """A query and where it ran, made once: to build it takes longer than Postgres takes to carry it out."""

    def __init__(self, query: Select[Any] | TextualSelect) -> None:
        """`query` names each of its columns."""
        found = query.subquery("found")
        self._names = list(found.c.keys())
        there = select(true().label("is_there"), found).subquery("q")
        self.statement = select(ONE.c[TIMELINE.name], there.c.is_there, *(there.c[name] for name in self._names))
        self.statement = self.statement.select_from(ONE.outerjoin(there, true()))

    def found(self, rows: Sequence[Sequence[Any]]) -> list[dict[str, Any]]:
        """The rows of the query, among those of `statement`: the timeline, whether there is a row, and the row."""
        return [dict(zip(self._names, row[2:], strict=True)) for row in rows if row[1]]
