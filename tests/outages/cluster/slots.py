"""The slots of a cluster that a call of the service needs."""

import re
from collections.abc import Iterable, Mapping
from itertools import count

from app.caching.cluster.slot_map import slot_of
from app.caching.write_behind.shard import COUNT, number

ROW = re.compile(r"/(?:users|products|inventory)/([^/]+)")
PAGE = re.compile(r"/page-views/(.+)")
SHARDS: Mapping[int, int] = {shard: slot_of(f"{{{shard}}}") for shard in range(COUNT)}
"""The slot of each shard of the page views."""


def of_key(key: str) -> int:
    """Returns the slot of a user's id, or of a SKU."""
    return slot_of(f"{{{key}}}")


def of_page(page: str) -> int:
    """Returns the slot of a page."""
    return SHARDS[number(page)]


def of_call(path: str, body: object = None) -> frozenset[int]:
    """Returns the slots of all that a request reads or changes."""
    if row := ROW.match(path):
        return frozenset({of_key(row[1])})
    if page := PAGE.match(path):
        return frozenset({of_page(page[1])})
    assert isinstance(body, Mapping), path
    return frozenset(of_page(view["page"]) for view in body["views"])


def keys_in(slots: Iterable[int], name: str) -> dict[int, str]:
    """Returns a key that begins with `name` for each of these slots."""
    found, missing, numbers = {}, set(slots), count()
    while missing:
        key = f"{name}{next(numbers)}"
        if (slot := of_key(key)) in missing:
            missing.remove(slot)
            found[slot] = key
    return found
