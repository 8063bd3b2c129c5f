"""What the data needs, and which strategies satisfy that at all."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from app.advice.choice import Choice

SHORTEST = timedelta(seconds=1)
"""The shortest staleness for which a TTL alone is of use."""


class Loss(StrEnum):
    """The consequence of losing the data in the cache."""

    NOTHING = "nothing"
    DASHBOARD = "dashboard"
    REVENUE = "revenue"
    DATA = "data"


@dataclass(frozen=True, slots=True)
class Needs:
    """What the data needs."""

    stale: timedelta | None
    """How long an answer may be stale after a newer value was written. Zero: never; None: without limit."""
    loss: Loss
    counts: bool = False
    """Whether a write adds to a number. Writes that replace a value cannot be merged."""

    @property
    def decisive(self) -> bool:
        """Whether no two readers may ever disagree about the newest value, because money depends on it."""
        dear = self.loss is Loss.REVENUE or (self.loss is Loss.DATA and not self.counts)
        return self.stale == timedelta(0) and dear


def meets(needs: Needs) -> Sequence[Choice]:
    """Returns the strategies that satisfy the needs at all, the simplest first. Never empty.

    A TTL alone satisfies them only if it is no longer than `needs.stale`.
    """
    fits = {Choice.WRITE_THROUGH}
    if not needs.decisive:
        fits |= {Choice.CACHE_ASIDE, Choice.READ_THROUGH}
    if needs.stale is None or needs.stale >= SHORTEST:
        fits.add(Choice.TTL_ONLY)
    if needs.counts and needs.loss is not Loss.REVENUE:
        fits.add(Choice.WRITE_BEHIND)
    return [choice for choice in Choice if choice in fits]
