"""The strategies that can be advised."""

from enum import StrEnum


class Choice(StrEnum):
    """A strategy. The simplest is the first."""

    CACHE_ASIDE = "cache-aside"
    READ_THROUGH = "read-through"
    TTL_ONLY = "cache-aside, TTL only"
    WRITE_THROUGH = "write-through"
    WRITE_BEHIND = "write-behind"
