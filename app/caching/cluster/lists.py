"""Reads lists of keys in a cluster: each list is answered when the nodes of its own keys have answered.

    list 1, of nodes A and B       list 2, of nodes A and C       C is silent
    A and B have answered: list 1 is told, while list 2 waits for C

What can go wrong: a node does not answer. Its keys count as missing, and a list that has only such keys gets the error.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence

from ..errors import CacheError
from ..lease import K
from ..reading import Reading, V
from .node_batching import Tell

Found = Reading[V] | CacheError | None
GetAll = Callable[[Sequence[K], Tell], Awaitable[Sequence[Found[V]]]]


async def lists(
    get_all: GetAll[K, V], lists: Sequence[Sequence[K]], tell: Tell
) -> list[list[Reading[V] | None] | CacheError]:
    """Returns the fresh values under each list of keys. `get_all` reads keys, and tells what it has."""
    keys = list(dict.fromkeys(key for some in lists for key in some))
    waiting = {place: set(some) for place, some in enumerate(lists)}
    found: dict[K, Found[V]] = {}

    def told(places: Sequence[int], readings: Sequence[Found[V]]) -> None:
        found.update(zip((keys[place] for place in places), readings, strict=True))
        done = [place for place, needed in waiting.items() if needed <= found.keys()]
        for place in done:
            del waiting[place]
        tell(done, [_listed(lists[place], found) for place in done])

    await get_all(keys, told)
    answers = [_listed(some, found) for some in lists]
    if not keys:
        tell(range(len(lists)), answers)
    return answers


def _listed(keys: Sequence[K], found: Mapping[K, Found[V]]) -> list[Reading[V] | None] | CacheError:
    errors: list[CacheError] = []
    readings: list[Reading[V] | None] = []
    for one in map(found.__getitem__, keys):
        if isinstance(one, CacheError):
            errors.append(one)
        readings.append(None if isinstance(one, CacheError) else one)
    return errors[0] if errors and len(errors) == len(keys) else readings
