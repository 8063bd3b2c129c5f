"""The mix of a workload: how many operations, on how many keys, how popular these are, and how many operations read."""

from dataclasses import dataclass
from random import Random

from app.lab.traces.operation import Kind


@dataclass(frozen=True, slots=True)
class Mix:
    """The ingredients of a workload, with a source of randomness."""

    requests: int
    keys: int
    alpha: float
    reads: float
    """The share of reads in the operations, 0 to 1."""
    random: Random

    def read(self) -> bool:
        """Returns whether the next operation is a read."""
        return self.random.random() < self.reads


Step = tuple[Kind, int]
"""A read or a write of the key of this number."""
