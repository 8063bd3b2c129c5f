"""Names in Redis that belong to a given slot."""

from collections.abc import Iterable
from functools import cache
from itertools import count

from redis.crc import REDIS_CLUSTER_HASH_SLOTS as SLOTS
from redis.crc import key_slot


@cache
def _tags() -> list[str]:
    """A hash tag for each slot."""
    tags: dict[int, str] = {}
    numbers = count()
    while len(tags) < SLOTS:
        tag = str(next(numbers))
        tags.setdefault(key_slot(tag.encode()), tag)
    return [tags[slot] for slot in range(SLOTS)]


def named(slot: int, name: object = "value") -> str:
    """Returns a name in this slot."""
    return f"{name}:{{{_tags()[slot]}}}"


def spread(slots: Iterable[int]) -> list[str]:
    """Returns a name in each of these slots."""
    return [named(slot) for slot in slots]
