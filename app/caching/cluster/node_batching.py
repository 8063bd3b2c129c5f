"""Combines the calls made in one tick of the event loop into one call per node.

Each node has its batches: one that is silent delays only the calls for its own slots.

What can go wrong: a slot moves between the question and the call. Then the call is redirected.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from ..batching import Batching, Start
from ..errors import Unreadable
from .address import Address
from .call import Call
from .topology import Topology

R = TypeVar("R")


class NodeBatching(Generic[R]):
    """`batching.py` for a cluster. `send` receives the calls of a tick that belong to one node. Equal calls are sent
    once: it is for reads, and for scripts that know by their arguments what they have done."""

    def __init__(
        self,
        topology: Topology,
        send: Callable[[Sequence[Call]], Awaitable[Sequence[R | Unreadable]]],
        start: Start,
    ) -> None:
        self._topology, self._send, self._start = topology, send, start
        self._batches: dict[Address | None, Batching[Call, R]] = {}

    def ask(self, call: Call) -> Awaitable[R]:
        """Returns a future of the result."""
        owner = self._topology.map.owner(call.slot)
        batch = self._batches.get(owner)
        if batch is None:
            batch = self._batches[owner] = Batching(self._send, self._start)
        return batch.ask(call)
