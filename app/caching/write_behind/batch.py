"""A batch: what one call adds to many keys. It is one and the same from its acceptance to the ledger in the database.

accepted    with the additions that have an idempotency key apart: Redis decides which of them are new
pending     as an entry of the stream, where what was new is in its amounts
flushed     into the ledger, by its id: however often it comes, it counts once
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from .batch_id import made_at

Keyed = tuple[str, int, str, bool]
"""A key, an amount, the idempotency key, and whether it is one of many of its call, which have one record together."""


@dataclass(frozen=True, slots=True)
class Batch:
    """How much is to be added to which keys. What is `keyed` comes on top, as far as Redis does not know it: until that
    is decided, a key that has nothing else is in the amounts with 0."""

    id: str
    amounts: Mapping[str, int]
    keyed: Sequence[Keyed] = ()

    @property
    def amount(self) -> int:
        """How much it adds to all keys together, beside what is keyed."""
        return sum(self.amounts.values())

    @property
    def made_at(self) -> datetime:
        """When its id was made: a ledger by the hour looks for it there."""
        return made_at(self.id)

    @property
    def bytes(self) -> int:
        """How much memory it takes, more or less."""
        keyed = sum(len(key) + 2 * len(idempotency_key) + 160 for key, _, idempotency_key, _ in self.keyed)
        return sum(map(len, self.amounts)) + 200 * len(self.amounts) + keyed

    @property
    def only_keyed(self) -> "Batch":
        """The part of it that has idempotency keys."""
        return replace(self, amounts={key: 0 for key, *_ in self.keyed})
