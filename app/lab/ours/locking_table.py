"""A table with what our strategies need beyond single rows: many rows in one query, and row locks."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from app.caching import Revoke
from app.lab.strategy import Row, Table


class LockingTable(Table, Protocol):
    """The lab's table, for our strategies."""

    async def load_many(self, keys: Sequence[str]) -> Mapping[str, Row]:
        """Returns the rows of those `keys` that exist."""

    async def load_shared(self, key: str) -> tuple[bool, Row | None]:
        """Returns the row, and whether its lock could be shared (no writer held it)."""

    async def save_locked(self, key: str, value: int, revoke: Revoke) -> Row | None:
        """Sets its value under the row's lock and returns the new row. `revoke` is sent together with the change, and
        both have answered before COMMIT."""
