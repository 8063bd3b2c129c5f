"""A lease: the right to fill one key. And the result of the load under it.

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
"""How long a load may take. If the holder dies, the next reader loads after this time at the latest."""
WRITER = "writer-"
"""Prefix of the token of a lease that a writer has taken over."""


@dataclass(frozen=True, slots=True)
class Lease(Generic[V]):
    """The lease of a key that has no fresh value: the holder of `token` loads and fills it. `granted` says that this
    process holds it. `old` is the stale value, which is an answer only if the load fails."""

    token: str
    granted: bool
    old: Reading[V] | None

    @property
    def writers(self) -> bool:
        """Whether a writer holds it: then there is no load to wait for."""
        return self.token.startswith(WRITER)


@dataclass(frozen=True, slots=True)
class Locked(Generic[V]):
    """A row that was read while a writer may be changing it: an answer, but neither cached nor shared."""

    value: V | None


@dataclass(frozen=True, slots=True)
class Loaded(Generic[K]):
    """A loaded row on its way into the cache: version 0 and no payload if there is no row."""

    key: K
    token: str
    version: int
    payload: bytes
    cost: timedelta


class Fill(StrEnum):
    """The result of a fill. With STORED and BELOW (the floor is higher: the row is not cached), the lease held to the
    end. With LOST, it did not. With UNKNOWN, Redis did not answer."""

    STORED = "stored"
    BELOW = "below"
    LOST = "lost"
    UNKNOWN = "unknown"


def whole(version: int) -> int:
    """Returns the version of a row. Raises TypeError for anything but an int: it would fail a whole batch of keys."""
    if type(version) is not int:
        raise TypeError(f"{version!r} is not a row version: it must be a whole number from the database.")
    return version
