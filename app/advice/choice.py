"""The strategies that can be advised."""

from enum import StrEnum


class Choice(StrEnum):
    """A strategy, listed from the simplest on."""

    CACHE_ASIDE = "cache-aside"
    READ_THROUGH = "read-through"
    TTL_ONLY = "cache-aside, TTL only"
    WRITE_THROUGH = "write-through"
    WRITE_BEHIND = "write-behind"
