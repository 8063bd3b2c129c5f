"""Which node owns which slot.

A key belongs to one of 16,384 slots, by its hash tag if it has one, and a slot belongs to one primary. Any node answers
`CLUSTER SLOTS` with what it knows. Replicas are in that answer, too, and are not read here: during a move of a slot
they answer that a key does not exist.

What can go wrong: what the node knows is old. Then the old owner redirects the call (`sending.py`).
"""

from binascii import crc_hqx
from collections.abc import Sequence
from typing import Any

from redis.crc import REDIS_CLUSTER_HASH_SLOTS
from redis.utils import str_if_bytes

from .address import Address

SLOTS = REDIS_CLUSTER_HASH_SLOTS
LAST = SLOTS - 1


def slot_of(name: str | bytes) -> int:
    """Returns the slot of a name in Redis: of what is between its first brace and the next closing one, or of all."""
    tag = name.encode() if isinstance(name, str) else name
    if (start := tag.find(b"{") + 1) and (end := tag.find(b"}", start)) > start:
        tag = tag[start:end]
    return crc_hqx(tag, 0) & LAST  # CRC-16/XMODEM, as in Redis.


class SlotMap:
    """The owner of each slot, None where it is not known."""

    def __init__(self) -> None:
        self._owners: list[Address | None] = [None] * SLOTS

    @classmethod
    def read(cls, answer: Sequence[Any], asked: Address) -> "SlotMap":
        """Reads what the node at `asked` has answered to `CLUSTER SLOTS`: for each range of slots its first, its last,
        and its nodes, of which the primary comes first."""
        slots = cls()
        for first, last, (host, port, *_others), *_replicas in answer:
            owner = Address(str_if_bytes(host or b""), int(port)).resolved(asked)
            slots._owners[first : last + 1] = [owner] * (last + 1 - first)
        return slots

    def owner(self, slot: int) -> Address | None:
        """Returns the owner of a slot."""
        return self._owners[slot]

    def move(self, slot: int, owner: Address) -> None:
        """Records that a slot has moved."""
        self._owners[slot] = owner

    @property
    def owners(self) -> set[Address]:
        """All owners."""
        return {owner for owner in self._owners if owner is not None}
