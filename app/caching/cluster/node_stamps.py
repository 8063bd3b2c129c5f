"""The stamps of values of one type, one for each node: each node has a life of its own.

What can go wrong: it is not known which node a value is for. Nobody believes what is stamped then.
"""

from typing import Generic
from weakref import WeakKeyDictionary

from ..identity import Identity
from ..reading import V
from ..stamp import Stamp
from ..trust import Trust
from .node import Node


class NodeStamps(Generic[V]):
    """The stamps of values of one type."""

    def __init__(self, type_: type[V]) -> None:
        self._type = type_
        self._nowhere = Stamp(type_, Identity(Trust()))
        self._stamps: WeakKeyDictionary[Node, Stamp[V]] = WeakKeyDictionary()

    def of(self, node: Node | None) -> Stamp[V]:
        """Returns the stamp of a node, or one that nobody believes."""
        if node is None:
            return self._nowhere
        stamp = self._stamps.get(node)
        if stamp is None:
            stamp = self._stamps[node] = Stamp(self._type, node.cache.identity)
        return stamp
