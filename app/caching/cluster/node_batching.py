"""Combines the calls made in one tick of the event loop into one call per node.

Each node has its batches: one that is silent delays only the calls for its own slots.

What can go wrong: a slot moves between the question and the call. Then the call is redirected.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from ..batching import Batching, Start
from ..errors import CacheError
from .address import Address
from .topology import Topology

K = TypeVar("K")
R = TypeVar("R")


class NodeBatching(Generic[K, R]):
    """`batching.py` for a cluster. `send` receives the questions of a tick that belong to one node, each once. `slot`
    returns the slot of a question."""

    def __init__(
        self,
        topology: Topology,
        slot: Callable[[K], int],
        send: Callable[[Sequence[K]], Awaitable[Sequence[R | CacheError]]],
        start: Start,
        told: Callable[[Sequence[R], Sequence[int]], None] = lambda results, callers: None,
    ) -> None:
        self._topology, self._slot, self._send, self._start, self._told = topology, slot, send, start, told
        self._batches: dict[Address | None, Batching[K, R]] = {}

    def ask(self, question: K) -> Awaitable[R]:
        """Returns a future of the result."""
        owner = self._topology.map.owner(self._slot(question))
        batch = self._batches.get(owner)
        if batch is None:
            batch = self._batches[owner] = Batching(self._send, self._start, self._told)
        return batch.ask(question)

    ask_here = ask
