"""What a node answered to a call."""

from typing import Any, NamedTuple

from .node import Node


class Answer(NamedTuple):
    """An answer, and who gave it: only that node's clock, run and trust say what it is worth."""

    reply: Any
    node: Node
