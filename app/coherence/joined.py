"""What this instance is a member of, as the last poll has found."""

from collections.abc import Sequence
from dataclasses import dataclass

from app.caching import Cache
from app.coherence.epochs import Epoch, Look


@dataclass(frozen=True, slots=True)
class Joined:
    """The epoch that this instance is a member of, the poll of Postgres that shows it, and the caches to trust."""

    epoch: Epoch
    look: Look
    caches: Sequence[Cache]
