"""What the lab runs: a strategy that reads and writes one number under a key, over Redis and a table.

A strategy of values stores the number it is given. Each write of a run has a different number, so a value identifies
the write it came from. A strategy of counts adds one. For both, the oracle detects what is stale, lost or doubled.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Protocol

from redis.asyncio import Redis


class Holds(StrEnum):
    """What a strategy keeps under a key."""

    VALUES = "values"
    COUNTS = "counts"


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the lab's table. The database gives each change of any row a higher version."""

    value: int
    version: int


class Table(Protocol):
    """The lab's table in Postgres. Each call except `save_each` is one statement, and is committed when it returns."""

    async def load(self, key: str) -> Row | None:
        """Returns the row of `key`."""

    async def save(self, key: str, value: int) -> Row | None:
        """Sets its value and returns the new row; None when there is none."""

    async def add(self, key: str, count: int) -> Row | None:
        """Adds to its value and returns the new row; None when there is none."""

    async def save_many(self, values: dict[str, int]) -> None:
        """Sets many values in one transaction."""

    async def save_each(self, values: Sequence[tuple[str, int]]) -> None:
        """Does the same with one statement each, in order; a key may occur more than once."""


class Strategy(Protocol):
    """A way to cache the table."""

    holds: Holds

    async def read(self, key: str) -> int | None:
        """Returns the number under `key`; None when there is no such row."""

    async def write(self, key: str, value: int) -> None:
        """Sets the number, or adds one. The write is acknowledged when this returns."""

    def running(self) -> AbstractAsyncContextManager[None]:
        """Runs the background work while the block lasts. At its end, the table has all that was acknowledged."""


Make = Callable[[Redis, Table, str, timedelta], Strategy]
"""Makes a strategy from a Redis, a table, a key prefix and the TTL of an entry."""
