"""Combines the calls made in one tick of the event loop into one call, whose parts are answered one by one.

    tick      a, b, c are asked for: a and c belong to one node, b belongs to another one, which is silent
    node 1    has answered: the callers of a and c get their results at once
    node 2    does not answer: the callers of b get an error after its timeout

What can go wrong: `told` of `batching.py` is called when the last part is there: a silent node delays what is counted.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from ..batching import Batching, Start, settle
from ..errors import CacheError

K = TypeVar("K")
R = TypeVar("R")

Tell = Callable[[Sequence[int], Sequence[Any]], None]
"""Hears the places of some questions, and their results."""


def unheard(places: Sequence[int], results: Sequence[Any]) -> None:
    """Waits for all results."""


class NodeBatching(Batching[K, R]):
    """`batching.py` for a cluster. `call` receives the distinct questions of a tick, and tells their results as soon as
    it has them. It returns all of them, in their order."""

    def __init__(
        self,
        call: Callable[[Sequence[K], Tell], Awaitable[Sequence[R | CacheError]]],
        start: Start,
        told: Callable[[Sequence[R], Sequence[int]], None] = lambda results, callers: None,
    ) -> None:
        super().__init__(lambda questions: call(questions, unheard), start, told)
        self._call_in_parts = call

    async def _ask(self, questions: Sequence[K], waiting: dict[K, list[asyncio.Future[R]]]) -> Sequence[R | CacheError]:
        def tell(places: Sequence[int], results: Sequence[Any]) -> None:
            if len(places) < len(questions):  # Otherwise they are returned next.
                settle([waiting[questions[place]] for place in places], results)

        return await self._call_in_parts(questions, tell)
