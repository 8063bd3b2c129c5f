"""Readings of many keys, none of which is unreadable."""

from collections.abc import Sequence

from app.caching import Reading, Unreadable
from app.caching.reading import V


def readings(found: Sequence[Reading[V] | Unreadable]) -> list[Reading[V]]:
    """Returns all of them. Raises the first Unreadable."""
    for one in found:
        if isinstance(one, Unreadable):
            raise one
    return [one for one in found if not isinstance(one, Unreadable)]
