"""Checks that all instances believe in the end, once faults stop and all names lead to one Redis and one Postgres.

From a given state on, the instances take turns in a fixed order: each finishes what it has begun and makes a whole
poll, then time advances by a tick. If that returns to an earlier state in which not all believe, nobody would ever
believe again.
"""

from tests.coherence.epochs.explorer import tick
from tests.coherence.epochs.poll import polls
from tests.coherence.epochs.reach import with_instance
from tests.coherence.epochs.requests import reads, writes
from tests.coherence.epochs.world import World

Rules = frozenset[str]


class Calm:
    """Judges states. `url` and `address`: where all names lead from then on; without them, names stay as they are.
    `wanted`: the instances that have to believe, if not all have to."""

    def __init__(self, without: Rules, url: int | None, address: int | None, wanted: tuple[int, ...] = ()) -> None:
        self._without, self._url, self._address = without, url, address
        self._wanted = wanted
        self._good: set[int] = set()

    def __call__(self, world: World) -> str | None:
        if self._address is not None and not world.postgreses[self._address].token:
            return None
        world = world._replace(faults=(), writes=(), reads=())
        for i in range(len(world.instances)):
            if self._url is not None:
                world = with_instance(world, i, url=self._url)
            if self._address is not None:
                world = with_instance(world, i, address=self._address)
        path: list[int] = []
        passed: set[int] = set()
        believed = 0
        while (key := hash(world)) not in self._good:
            if key in passed:
                return "nobody will ever believe"
            if believed > 3:
                break
            path.append(key)
            if not believed:
                passed.add(key)
            world = self._round(world)
            believed = believed + 1 if self._well(world) else 0
            world = tick(world)
        self._good.update(path)
        return None

    def _well(self, world: World) -> bool:
        """Whether all believe or, if names keep leading to different stores, whether any instance does."""
        if self._wanted:
            return all(world.instances[i].trust for i in self._wanted)
        beliefs = [one.trust > 0 for one in world.instances if one.alive]
        return any(beliefs) if self._url is None or self._address is None else all(beliefs)

    def _round(self, world: World) -> World:
        """Lets each instance make a poll, or finish the one it has begun."""
        for i, one in enumerate(world.instances):
            if not one.alive:
                continue
            for kind, name in ((writes, "write"), (reads, "read")):
                for _ in range(6):
                    if getattr(world.instances[i], name).step:
                        world = next((after for _, after in kind(world, i, self._without)), world)
            begun = False
            while world.instances[i].poll.step or not begun:
                begun = True
                # The last choice is the new connection, if one can be made.
                *_, (_, world) = polls(world, i, self._without)
        return world
