"""A receipt: what one process has taken on as one batch, for as long as it looks after it (`receipts.py`)."""

from dataclasses import dataclass

from .intake import Offer

NOWHERE = "0-1"
"""The id of an entry that no stream of this age has."""


@dataclass(slots=True)
class Receipt:
    """A batch that was taken on as an `entry`. `offer` is None where it is not kept any more. One that is in doubt has
    no views that anybody was promised yet."""

    batch: str
    entry: str
    views: int
    offer: Offer | None
    taken_at: float
    gone_at: float | None = None
