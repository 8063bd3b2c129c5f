"""An entry: a row of the lab's table, as our strategies keep it in Redis."""

from pydantic import BaseModel

from app.caching import Region
from app.lab.strategy import Row


class Entry(BaseModel, frozen=True):
    """A number, and the version that the database gave it."""

    value: int
    version: int


EntryRegion = Region[str, Entry]


def entry(row: Row | None) -> Entry | None:
    """Returns the entry of a row."""
    return None if row is None else Entry(value=row.value, version=row.version)


def number(found: Entry | None) -> int | None:
    """Returns the number in an entry."""
    return None if found is None else found.value


def versions(key: str, row: Row | None) -> dict[str, int]:
    """Returns what a write changed: the version of its row, if there is one."""
    return {} if row is None else {key: row.version}
