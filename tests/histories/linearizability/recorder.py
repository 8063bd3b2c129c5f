"""Calls a target, and records what it answered and when."""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable

from tests.histories.linearizability.operation import Answer, Kind, Operation
from tests.histories.linearizability.target import Broken, Refused, Target, Unknown

PATIENCE = 10.0
"""Seconds after which a waiting client goes on, without knowing what became of its call."""


class Recorder:
    """The history of each SKU."""

    def __init__(self) -> None:
        self.histories: defaultdict[str, list[Operation]] = defaultdict(list)
        self.refused: list[Operation] = []
        """Calls that were not done. They are no part of a history."""
        self.broken: list[str] = []
        """Answers that must never be given."""
        self.outcomes: Counter[str] = Counter()

    async def record(self, target: Target, client: str, sku: str, kind: Kind, argument: int = 0) -> Answer | None:
        """Makes one call; returns None when it was not answered."""
        start = time.monotonic()
        try:
            async with asyncio.timeout(PATIENCE):
                answer = await _called(target, sku, kind, argument)
        except Refused:
            self.outcomes["refused"] += 1
            self.refused.append(Operation(kind, argument, start, time.monotonic(), client=client))
            return None
        except (Unknown, TimeoutError) as error:
            if isinstance(error, Broken):
                self.broken.append(str(error))
            self.outcomes["unknown"] += 1
            self.histories[sku].append(Operation(kind, argument, start, client=client))
            return None
        self.outcomes["answered"] += 1
        self.histories[sku].append(Operation(kind, argument, start, time.monotonic(), answer, client))
        return answer


def _called(target: Target, sku: str, kind: Kind, argument: int) -> Awaitable[Answer]:
    match kind:
        case Kind.READ:
            return target.read(sku)
        case Kind.PUT:
            return target.put(sku, argument)
        case Kind.ADJUST:
            return target.adjust(sku, argument)
        case Kind.DELETE:
            return target.delete(sku)
