"""Makes calls, and judges each answer when its node has given it, not when all nodes have.

What can go wrong: an answer calls for more calls. Then `NotYet` is raised, and its caller is told later.
"""

from collections.abc import Callable, MutableSequence, Sequence
from typing import Any, TypeVar

from .call import Call
from .node import Node
from .node_batching import Tell
from .sending import Sending

R = TypeVar("R")


class NotYet(Exception):
    """More calls are needed to say what an answer means."""


async def judged(
    sending: Sending,
    calls: MutableSequence[Call],
    judge: Callable[[int, Node | None, Any], R],
    tell: Tell,
    *,
    believed: bool = True,
) -> tuple[dict[int, R], list[int]]:
    """Returns the results by the places of their calls, and the places of those that are not yet known.

    `judge` receives a place, the node that has answered, and its reply or a CacheUnavailable. It returns the result,
    which is told at once, or raises NotYet. `believed` is as in `sending.py`.
    """
    results: dict[int, R] = {}
    later: list[int] = []

    def told(places: Sequence[int], node: Node | None, replies: Sequence[Any]) -> None:
        done = []
        for place, reply in zip(places, replies, strict=True):
            try:
                results[place] = judge(place, node, reply)
            except NotYet:
                later.append(place)
            else:
                done.append(place)
        if done:
            tell(done, [results[place] for place in done])

    await sending.tell(calls, told, believed=believed)
    return results, later
