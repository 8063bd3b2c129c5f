"""What a get answers: the bytes as they are stored, and how they came."""

from datetime import timedelta
from enum import StrEnum
from typing import Any, Generic, NamedTuple, Protocol, Self, TypeVar


class Versioned(Protocol):
    """What can be cached: a frozen pydantic model with the version that the database gave to its row.

    It may have an `epoch` besides: the token of the one in which its row was read, None where that is not known."""

    @property
    def version(self) -> int: ...
    def model_dump_json(self) -> str: ...
    @classmethod
    def model_validate_json(cls, json_data: bytes, /) -> Self: ...
    @classmethod
    def model_json_schema(cls) -> dict[str, Any]: ...


V = TypeVar("V", bound=Versioned)


class Outcome(StrEnum):
    """How a reading came about."""

    HIT = "hit"  # It stood in the cache.
    MISS = "miss"  # This reader's own load brought it.
    COLLAPSED = "collapsed"  # Another reader's load brought it.
    STALE = "stale"  # It stood in the cache, too old, and the load failed.
    LOCKED = "locked"  # A writer was at work on it: it comes from the database, and was not kept.
    BYPASSED = "bypassed"  # The cache could not be asked: it comes from the database, and was not kept.


class Reading(NamedTuple, Generic[V]):
    """One answer.

    `payload` is the JSON as it is stored, None when it is known that there is no such row. `version` is the row's, 0
    without a row. `age_ms` and `ttl_ms` are what the entry has behind and before it; the latter is negative when it is
    stale. `cost_ms` is what its load took. `stored` says whether the answer of a miss was kept; `verified`, whether the
    database has said that the cache was told of everything. `epoch` is the token of the one that gave the row this
    version, None where that is not known. The value is decoded only when `value` is asked for.

    It is a tuple, and its times are plain numbers, because one is made for each hit: a frozen dataclass with three
    timedeltas takes four times as long to make.
    """

    payload: bytes | None
    version: int
    outcome: Outcome
    type_: type[V]
    age_ms: float = 0
    ttl_ms: float = 0
    cost_ms: float = 0
    stored: bool = False
    verified: bool = True
    epoch: str | None = None

    @property
    def age(self) -> timedelta:
        """What the entry has behind it."""
        return timedelta(milliseconds=self.age_ms)

    @property
    def ttl(self) -> timedelta:
        """What it has before it; negative when it is stale."""
        return timedelta(milliseconds=self.ttl_ms)

    @property
    def value(self) -> V | None:
        """The payload as a model; a new one at each call."""
        return None if self.payload is None else self.type_.model_validate_json(self.payload)
