"""A table with what ours need beside single rows: many rows in one query, and the locks of rows."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from app.caching import Revoke
from app.lab.strategy import Row, Table


class LockingTable(Table, Protocol):
    """The lab's table, for a strategy of ours."""

    async def load_many(self, keys: Sequence[str]) -> Mapping[str, Row]:
        """The rows of those of `keys` that exist."""

    async def load_shared(self, key: str) -> tuple[bool, Row | None]:
        """Whether the row's lock could be shared with its writers, and the row."""

    async def save_locked(self, key: str, value: int, revoke: Revoke) -> Row | None:
        """Sets its value under the row's lock, and answers the new row. `revoke` goes out with the change, and both
        are back before COMMIT."""
