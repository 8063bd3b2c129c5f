"""How often the data is read and written."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Traffic:
    """The observed traffic."""

    reads: int
    writes: int
    keys: int | None = None
    """The number of different keys; None if they were not counted."""
