"""One operation of a trace: a read or a write of one key."""

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What an operation does."""

    READ = "read"
    WRITE = "write"


@dataclass(frozen=True, slots=True)
class Operation:
    """A read or a write of `key`, `at` seconds after the trace began; None when the trace has no times."""

    kind: Kind
    key: str
    at: float | None = None
