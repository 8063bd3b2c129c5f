"""Combines the calls made in one tick of the event loop into one call, whose parts are answered one by one.

    tick      a, b, c are asked for: a and c belong to one node, b belongs to another one, which is silent
    node 1    has answered: the callers of a and c get their results at once
    node 2    does not answer: the callers of b get an error after its timeout

A tick is a little longer here. Nodes answer one after another, and those who were answered by the first ask the next
question at once: alone, with a few keys for each node. So before a call is sent, the other answers are let in.

What can go wrong: a call fails. Then it fails for the callers who have not been answered.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from ..batching import Batching, Start, Waiting
from ..errors import CacheError

K = TypeVar("K")
R = TypeVar("R")

Tell = Callable[[Sequence[int], Sequence[Any]], None]
"""Hears the places of some questions, and their results."""
LET_IN = 3
"""How often the event loop looks for answers before a call is sent: once more than an answer takes to reach its
callers, and they to ask again. At 64 tasks and three nodes, a write has 20 keys. Without it, it has 8 to 14."""


def unheard(places: Sequence[int], results: Sequence[Any]) -> None:
    """Waits for all results."""


class NodeBatching(Batching[K, R]):
    """`batching.py` for a cluster. `call` receives the distinct questions of a tick, tells the result of each as soon
    as it has it, and returns all of them, in their order."""

    def __init__(
        self,
        call: Callable[[Sequence[K], Tell], Awaitable[Sequence[R | CacheError]]],
        start: Start,
        told: Callable[[Sequence[R], Sequence[int]], None] = lambda results, callers: None,
    ) -> None:
        super().__init__(lambda questions: call(questions, unheard), start, told)
        self._call_in_parts = call

    async def _send(self) -> None:
        for _ in range(LET_IN):
            await asyncio.sleep(0)
        await super()._send()

    async def _ask(self, questions: Sequence[K], waiting: Waiting[K, R]) -> Sequence[R | CacheError]:
        answered = 0

        def tell(places: Sequence[int], results: Sequence[Any]) -> None:
            nonlocal answered
            answered += len(places)
            super(NodeBatching, self)._finish([questions[place] for place in places], waiting, results)

        results = await self._call_in_parts(questions, tell)
        if answered != len(questions):  # No ValueError, which would repeat the call.
            raise RuntimeError(f"{len(questions)} questions got {answered} answers.")
        return results

    def _finish(self, questions: Sequence[K], waiting: Waiting[K, R], answers: Sequence[R | CacheError]) -> None:
        """Everything has been told."""
