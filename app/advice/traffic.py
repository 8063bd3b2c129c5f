"""How often the data is read and written."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Traffic:
    """What was seen."""

    reads: int
    writes: int
    keys: int | None = None
    """How many different ones; None where nobody counted."""
