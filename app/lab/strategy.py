"""What the lab runs: a way to read and to write one number under a key, with Redis and a table behind it.

A strategy of values sets the number it is given; each write of a run brings another one, so a value says which write
it is from. A strategy of counts adds one. Of both, the oracle sees what is stale, lost or doubled.
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
    """The lab's table in Postgres. Each call is one statement, but for `save_each`, and committed when it returns."""

    async def load(self, key: str) -> Row | None:
        """The row of `key`."""

    async def save(self, key: str, value: int) -> Row | None:
        """Sets its value, and answers the new row; None when there is none."""

    async def add(self, key: str, count: int) -> Row | None:
        """Adds to its value, and answers the new row; None when there is none."""

    async def save_many(self, values: dict[str, int]) -> None:
        """Sets many values in one transaction."""

    async def save_each(self, values: Sequence[tuple[str, int]]) -> None:
        """The same with a statement for each, one after the other; a key may come more than once."""


class Strategy(Protocol):
    """A way to cache the table."""

    holds: Holds

    async def read(self, key: str) -> int | None:
        """The number under `key`; None when there is no such row."""

    async def write(self, key: str, value: int) -> None:
        """Sets it, or adds one. When this returns, the write is acknowledged."""

    def running(self) -> AbstractAsyncContextManager[None]:
        """What works behind the calls, while the block lasts. At its end, the table has what was acknowledged."""


Make = Callable[[Redis, Table, str, timedelta], Strategy]
"""Makes a strategy over a Redis, a table, a prefix for its keys, and the time that an entry lives."""
