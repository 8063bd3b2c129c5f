"""A cache of exactly N entries that evicts the least recently used: which keys a Redis of that size would still have.

Redis' own `maxmemory-policy allkeys-lru` samples five keys and counts bytes, allocator included: two runs evict
different keys, and "a cache of 10 % of the keys" cannot be configured. So the lab keeps the order itself, and deletes
evicted keys in Redis. An independent simulation of the same trace must then have the same hit ratio.
"""

from collections import OrderedDict


class Lru:
    """The keys that are in a cache of `size` entries."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._keys: OrderedDict[str, None] = OrderedDict()

    def __contains__(self, key: str) -> bool:
        return key in self._keys

    def touch(self, key: str) -> str | None:
        """Marks `key` as used now and returns the evicted key, if there is one."""
        self._keys[key] = None
        self._keys.move_to_end(key)
        return self._keys.popitem(last=False)[0] if len(self._keys) > self._size else None

    def discard(self, key: str) -> None:
        """Removes `key` from the cache."""
        self._keys.pop(key, None)
