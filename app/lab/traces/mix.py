"""The mix of a workload: how many operations, on how many keys, how popular, and how many of them read."""

from dataclasses import dataclass
from random import Random

from app.lab.traces.operation import Kind


@dataclass(frozen=True, slots=True)
class Mix:
    """What a workload is made of, with chance."""

    requests: int
    keys: int
    alpha: float
    reads: float
    """Their share of the operations, 0 to 1."""
    random: Random

    def read(self) -> bool:
        """Whether the next one is a read."""
        return self.random.random() < self.reads


Step = tuple[Kind, int]
"""A read or a write of the key of this number."""
