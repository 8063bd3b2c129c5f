"""The journal: the values that the database had under each key, in order, and since when."""

from collections.abc import Mapping
from dataclasses import dataclass

from app.availability import available
from app.lab.comparison.pool import Pool


@dataclass(frozen=True, slots=True)
class Noted:
    """A value that the database had, and the earliest time from which it had it, in seconds of its own clock."""

    value: int
    at: float


async def read_journal(pool: Pool, prefix: str) -> Mapping[str, list[Noted]]:
    """Returns the journal of the keys under `prefix`, in the database's order."""
    noted: dict[str, list[Noted]] = {}
    async with available():
        rows = await pool.fetch(
            "SELECT key, value, extract(epoch FROM at)::float8 AS at FROM journal "
            "WHERE starts_with(key, $1) ORDER BY id",
            prefix,
        )
    for row in rows:
        noted.setdefault(row["key"][len(prefix) :], []).append(Noted(row["value"], row["at"]))
    return noted
