"""Calls on their way to the nodes of a cluster: where they go, and who hears of their answers (`sending.py`)."""

from collections.abc import Callable, MutableSequence, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from .address import Address
from .call import Call
from .node import Node


class Route(NamedTuple):
    """Where calls go. With `asked`, they may use a slot that is moving there: that node has said so."""

    address: Address
    asked: Node | None = None


Told = Callable[[Sequence[int], Node | None, Sequence[Any]], None]
"""Hears the places of some calls, the node that has answered them, and its answers. In place of an answer stands a
CacheUnavailable, if there is none. Each place is told once."""


@dataclass(frozen=True, slots=True)
class Sent:
    """The calls of one `tell`, who hears of the answers, and how often each call was redirected."""

    calls: MutableSequence[Call]
    told: Told
    redirections: list[int]
    believed: bool
    until: float
    """Until when calls are repeated, by the clock of the event loop."""
