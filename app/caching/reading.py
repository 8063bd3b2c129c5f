"""The result of a get: the value's bytes as stored, and how they were obtained."""

from datetime import timedelta
from enum import StrEnum
from typing import Any, Generic, NamedTuple, Protocol, Self, TypeVar


class Versioned(Protocol):
    """What can be cached: a frozen pydantic model with the version that the database gave its row.

    It may also have an `epoch`: the token of the epoch in which its row was read, None if that is unknown."""

    @property
    def version(self) -> int: ...
    def model_dump_json(self) -> str: ...
    @classmethod
    def model_validate_json(cls, json_data: bytes, /) -> Self: ...
    @classmethod
    def model_json_schema(cls) -> dict[str, Any]: ...


V = TypeVar("V", bound=Versioned)


class Outcome(StrEnum):
    """How a reading was obtained."""

    HIT = "hit"  # From the cache.
    MISS = "miss"  # From this reader's own load.
    COLLAPSED = "collapsed"  # From another reader's load.
    STALE = "stale"  # From the cache although too old, because the load failed.
    LOCKED = "locked"  # From the database and not cached, because a writer was changing the row.
    BYPASSED = "bypassed"  # From the database and not cached, because Redis could not be asked.


class Reading(NamedTuple, Generic[V]):
    """The result of one read.

    `payload` is the JSON as stored, None if the row is known not to exist. `version` is the row's version, 0 without a
    row. `age_ms` is the entry's age, and `ttl_ms` its remaining freshness, negative when it is stale. `cost_ms` is how
    long its load took. `stored` says whether the result of a miss was cached. `verified` says whether the database has
    confirmed that Redis had every invalidation. `epoch` is the token of the epoch that gave the row this version, None
    if that is unknown. `value` is decoded only when it is accessed.

    It is a tuple with plain numbers for its times, because one is made for each hit: a frozen dataclass with three
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
        """The age of the entry."""
        return timedelta(milliseconds=self.age_ms)

    @property
    def ttl(self) -> timedelta:
        """The remaining freshness of the entry, negative when it is stale."""
        return timedelta(milliseconds=self.ttl_ms)

    @property
    def value(self) -> V | None:
        """The payload as a model, a new one at each access."""
        return None if self.payload is None else self.type_.model_validate_json(self.payload)
