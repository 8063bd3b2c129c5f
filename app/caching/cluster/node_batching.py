"""Combines the calls made in one tick of the event loop into one call per node.

Each node has its batches: one that is silent delays only the calls for its own slots.

What can go wrong: the slot map changes between the question and the call. Then the call is redirected.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from ..batching import Batching, Start
from ..errors import Unreadable
from .address import Address
from .slot_map import slot_of
from .topology import Topology

K = TypeVar("K")
R = TypeVar("R")


class NodeBatching(Generic[K, R]):
    """`batching.py` for a cluster: `call` receives the distinct keys of a tick that belong to one node. `name` returns
    the name in Redis of a key."""

    def __init__(
        self,
        topology: Topology,
        name: Callable[[K], str],
        call: Callable[[Sequence[K]], Awaitable[Sequence[R | Unreadable]]],
        start: Start,
    ) -> None:
        self._topology, self._name, self._call, self._start = topology, name, call, start
        self._batches: dict[Address | None, Batching[K, R]] = {}

    def ask(self, key: K) -> Awaitable[R]:
        """Returns a future of the result for `key`."""
        owner = self._topology.map.owner(slot_of(self._name(key)))
        batch = self._batches.get(owner)
        if batch is None:
            batch = self._batches[owner] = Batching(self._call, self._start)
        return batch.ask(key)
