"""Readings of many keys of which none is unreadable."""

from collections.abc import Sequence

from app.caching import Reading, Unreadable
from app.caching.reading import V


def readings(found: Sequence[Reading[V] | Unreadable]) -> list[Reading[V]]:
    """All of them. Raises what cannot be read."""
    for one in found:
        if isinstance(one, Unreadable):
            raise one
    return [one for one in found if not isinstance(one, Unreadable)]
