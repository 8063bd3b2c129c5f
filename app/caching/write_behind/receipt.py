"""A receipt: a batch that this process has accepted and still watches over (`receipts.py`)."""

from dataclasses import dataclass

from .batch import Batch

NOWHERE = "0-1"
"""An entry id that no present-day stream contains."""


@dataclass(slots=True)
class Receipt:
    """A batch that was accepted as `entry`. `batch` is None if it is no longer kept. A batch in doubt has amount 0:
    nothing of it was confirmed to a client."""

    id: str
    entry: str
    amount: int
    batch: Batch | None
    accepted_at: float
    gone_at: float | None = None
