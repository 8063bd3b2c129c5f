"""A batch: what one call adds to many keys. It keeps its id from acceptance to the ledger in the database.

accepted    with the additions under idempotency keys kept apart: Redis decides which of them are new
pending     as an entry of the stream, whose amounts include the additions that were new
flushed     into the ledger, by its id: no matter how often it is flushed, it counts once
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from .batch_id import made_at

Keyed = tuple[str, int, str, bool]
"""A key, an amount, the idempotency key, and whether it is one of many in its call, which share one record."""


@dataclass(frozen=True, slots=True)
class Batch:
    """How much to add to which keys. The `keyed` additions that Redis does not know yet come on top. Until that is
    decided, a key with nothing else is in the amounts with 0."""

    id: str
    amounts: Mapping[str, int]
    keyed: Sequence[Keyed] = ()

    @property
    def amount(self) -> int:
        """The amount for all keys together, without the keyed additions."""
        return sum(self.amounts.values())

    @property
    def made_at(self) -> datetime:
        """When its id was made. A ledger that is divided by the hour looks for it there."""
        return made_at(self.id)

    @property
    def bytes(self) -> int:
        """The approximate memory that it takes."""
        keyed = sum(len(key) + 2 * len(idempotency_key) + 160 for key, _, idempotency_key, _ in self.keyed)
        return sum(map(len, self.amounts)) + 200 * len(self.amounts) + keyed

    @property
    def only_keyed(self) -> "Batch":
        """The part with idempotency keys."""
        return replace(self, amounts={key: 0 for key, *_ in self.keyed})
