"""A lease on a missing key, and what becomes of the load under it.

lookup: Lease → (the database) → Loaded → fill: Fill
"""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Generic, TypeVar

from .reading import Reading, V

K = TypeVar("K", bound=int | str)
"""The type of a region's keys."""

LEASE = timedelta(seconds=3)
"""A load may take so long. When its holder dies, the next reader loads after this time at the latest."""
WRITER = "writer-"
"""Begins the token of a lease that a writer has taken over."""


@dataclass(frozen=True, slots=True)
class Lease(Generic[V]):
    """Who loads a missing key: the holder of `token`. `granted` says that this is us. `old` is what stood there, too
    old to be an answer unless the load fails."""

    token: str
    granted: bool
    old: Reading[V] | None

    @property
    def writers(self) -> bool:
        """Whether a writer has it: then there is no load to wait for."""
        return self.token.startswith(WRITER)


@dataclass(frozen=True, slots=True)
class Locked(Generic[V]):
    """A row that was read while a writer may be changing it: an answer, but not to be kept, and not to be shared."""

    value: V | None


@dataclass(frozen=True, slots=True)
class Loaded(Generic[K]):
    """A loaded row on its way into the cache: version 0 and no payload where there is no row."""

    key: K
    token: str
    version: int
    payload: bytes
    cost: timedelta


class Fill(StrEnum):
    """What became of a fill. Below the floor and stored, the lease stood to the end; lost, it did not; unknown, Redis
    did not answer."""

    STORED = "stored"
    BELOW = "below"
    LOST = "lost"
    UNKNOWN = "unknown"


def whole(version: int) -> int:
    """The version of a row. Raises TypeError for what is none: it would fail those that are told with it."""
    if type(version) is not int:
        raise TypeError(f"{version!r} is no version of a row: it must be a whole number, from the database.")
    return version
