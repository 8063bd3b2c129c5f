"""The strategies that can be advised."""

from enum import StrEnum

from app.caching import CacheAside, ReadThrough, WriteBehind, WriteThrough


class Choice(StrEnum):
    """A strategy, listed from the simplest on."""

    CACHE_ASIDE = CacheAside.NAME
    READ_THROUGH = ReadThrough.NAME
    TTL_ONLY = "cache-aside, TTL only"
    WRITE_THROUGH = WriteThrough.NAME
    WRITE_BEHIND = WriteBehind.NAME
