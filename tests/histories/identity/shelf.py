"""The stock of some SKUs: within each history of the database, its history is that of one counter."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf

from tests.histories.identity.state import State
from tests.histories.linearizability.checker import Stock, Verdict, check, explain
from tests.histories.linearizability.operation import Kind, Operation
from tests.histories.linearizability.recorder import Recorder

SECONDS = 5.0
"""Time limit in seconds for the check of one SKU in one history."""


@dataclass(frozen=True, slots=True)
class Beginning:
    """A history of the database: when all clients know it, and the stock it began with. The query that found it began a
    little earlier, and the previous history ended when the database began to lose something."""

    before_ended: float
    looked: float
    known: float
    stock: Mapping[str, Stock]


@dataclass(slots=True)
class Shelf:
    """What was answered about stock, and each new beginning of the database."""

    recorder: Recorder = field(default_factory=Recorder)
    beginnings: list[Beginning] = field(default_factory=list)

    def settled(self, lossy_since: float, looked: float, state: State) -> None:
        """Records that another history of the database has begun, which had this `state` after `looked`."""
        self.beginnings.append(Beginning(lossy_since, looked, time.monotonic(), state.stock))

    def check(self, exempt: Sequence[tuple[float, float]]) -> tuple[list[str], list[Verdict]]:
        """Returns what is wrong, and the verdict for each SKU in each history. Reads that were `exempt` say nothing."""
        wrong, verdicts = [], []
        for sku, operations in self.recorder.histories.items():
            told = [
                one
                for one in operations
                if one.kind is not Kind.READ
                or not any(one.start < until and one.end > since for since, until in exempt)
            ]
            for number, (history, initial) in enumerate(self._histories(sku, told)):
                verdicts.append(check(history, seconds=SECONDS, initial=initial))
                if verdicts[-1] is Verdict.NOT_LINEARIZABLE:
                    why = explain(history, seconds=SECONDS, initial=initial)
                    wrong.append(f"{sku} in history {number}, which began with {initial}: {why}")
        return wrong, verdicts

    def _histories(self, sku: str, operations: Sequence[Operation]) -> list[tuple[list[Operation], Stock | None]]:
        histories = []
        begun: Beginning | None = None
        for beginning in (*self.beginnings, None):
            end = inf if beginning is None else beginning.before_ended
            history = []
            for one in operations:
                if one.start > end or (begun is not None and one.end <= begun.looked):
                    continue
                # For a call that spans a border, nobody knows on which side it was done.
                doubtful = one.end > end or (begun is not None and one.start < begun.known)
                history.append(replace(one, end=inf, answer=None) if doubtful else one)
            histories.append((history, None if begun is None else begun.stock.get(sku)))
            begun = beginning
        return histories
