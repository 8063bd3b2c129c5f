"""A receipt: what one process has accepted as one batch, for as long as it looks after it (`receipts.py`)."""

from dataclasses import dataclass

from .batch import Batch

NOWHERE = "0-1"
"""The id of an entry that no stream of this age has."""


@dataclass(slots=True)
class Receipt:
    """A batch that was accepted as an `entry`. `batch` is None where it is not kept any more. One that is in doubt has
    no amount that anybody was promised yet."""

    id: str
    entry: str
    amount: int
    batch: Batch | None
    accepted_at: float
    gone_at: float | None = None
