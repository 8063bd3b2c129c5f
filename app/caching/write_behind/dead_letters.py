"""Dead letters: what the database refuses for good is kept there, with the reason, until a person decides about it.

    refused      an entry that the database refused when it was alone, or that is not a batch
    salvaged     in one transaction: what can be written of it is written, and the rest becomes dead letters, once

What can go wrong: the database is down, or has not done it. Then the entry stays in the stream, and is retried.
"""

import logging

from ..observing import Flow, ObserveFlow
from .gathering import Gathering
from .pending import Pending
from .target import Salvage

logger = logging.getLogger(__name__)


class DeadLetters:
    """Salvages the entries of one flusher."""

    def __init__(self, salvage: Salvage, gathering: Gathering, observe: ObserveFlow) -> None:
        self._salvage, self._gathering, self._observe = salvage, gathering, observe

    async def keep(self, entry: Pending, reason: str) -> tuple[int, int]:
        """Writes what can be written of an entry. Returns how many rows that took, and how much of its amount became
        dead letters. Raises what `salvage` raises."""
        rows, dead = await self._salvage(entry, reason, await self._gathering.deliveries(entry))
        self._observe(Flow.DEAD, dead)
        logger.error("Entry %s was refused, and %d of its amount became dead letters: %s", entry.place, dead, reason)
        return rows, dead
