"""What the data must have, and which strategies satisfy that at all."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from app.advice.choice import Choice

SHORTEST = timedelta(seconds=1)
"""Data that may not be stale for so long has no use for a TTL alone."""


class Loss(StrEnum):
    """What it means to lose the data that is in the cache."""

    NOTHING = "nothing"
    DASHBOARD = "dashboard"
    REVENUE = "revenue"
    DATA = "data"


@dataclass(frozen=True, slots=True)
class Needs:
    """What the data must have."""

    stale: timedelta | None
    """How old an answer may be after a newer value was written; zero: never stale, None: any age."""
    loss: Loss
    counts: bool = False
    """Whether a write adds to a number. A write that replaces a value cannot be merged with the one before."""

    @property
    def decisive(self) -> bool:
        """Whether no two readers may ever disagree about the newest value, as money depends on it."""
        dear = self.loss is Loss.REVENUE or (self.loss is Loss.DATA and not self.counts)
        return self.stale == timedelta(0) and dear


def meets(needs: Needs) -> Sequence[Choice]:
    """The strategies that satisfy the needs at all, the simplest first. Never empty.

    A TTL alone does so only if it is no longer than `needs.stale`.
    """
    fits = {Choice.WRITE_THROUGH}
    if not needs.decisive:
        fits |= {Choice.CACHE_ASIDE, Choice.READ_THROUGH}
    if needs.stale is None or needs.stale >= SHORTEST:
        fits.add(Choice.TTL_ONLY)
    if needs.counts and needs.loss is not Loss.REVENUE:
        fits.add(Choice.WRITE_BEHIND)
    return [choice for choice in Choice if choice in fits]
