"""One call on the stock of one SKU, as its client saw it."""

from dataclasses import dataclass
from enum import StrEnum
from math import inf


class Kind(StrEnum):
    """The kinds of calls."""

    READ = "read"
    PUT = "put"
    ADJUST = "adjust"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer: the HTTP status, and what the body said. `version` is None where rows have no versions."""

    status: int
    quantity: int | None = None
    version: int | None = None
    available: int | None = None

    def __str__(self) -> str:
        said = {"": self.quantity, "version ": self.version, "available ": self.available}
        return " ".join([str(self.status), *(f"{name}{value}" for name, value in said.items() if value is not None)])


@dataclass(frozen=True, slots=True)
class Operation:
    """A call, from the moment it was sent to the moment its answer was read.

    Without an answer its end is infinite: it may have happened at any time after its start, or never.
    """

    kind: Kind
    argument: int
    start: float
    end: float = inf
    answer: Answer | None = None
    client: str = ""

    def __str__(self) -> str:
        argument = {Kind.PUT: f" {self.argument}", Kind.ADJUST: f" {self.argument:+}"}.get(self.kind, "")
        return f"{self.client} {self.kind}{argument} → {'?' if self.answer is None else self.answer}".lstrip()
