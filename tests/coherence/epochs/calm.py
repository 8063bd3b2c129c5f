"""Whether all believe in the end, once no more faults happen and all names lead to one Redis and one Postgres.

From a state on, the instances take turns, in a fixed order: each ends what it does and makes a whole poll, then the
time goes on by a tick. Where that comes to a state that it was in before, without belief of all, nobody would ever
believe again.
"""

from tests.coherence.epochs.explorer import tick
from tests.coherence.epochs.poll import polls
from tests.coherence.epochs.reach import with_instance
from tests.coherence.epochs.requests import reads, writes
from tests.coherence.epochs.world import World

Rules = frozenset[str]


class Calm:
    """Judges states. `url` and `address`: where all names lead from then on; without them they lead where they do.
    `wanted`: who has to believe, if that is not all."""

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
        """Whether all believe, or, where names go on to lead to different stores, whether anybody does."""
        if self._wanted:
            return all(world.instances[i].trust for i in self._wanted)
        beliefs = [one.trust > 0 for one in world.instances if one.alive]
        return any(beliefs) if self._url is None or self._address is None else all(beliefs)

    def _round(self, world: World) -> World:
        """Each makes a poll, or ends what it has begun."""
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
                # The last choice is the new connection, where there is one to make.
                *_, (_, world) = polls(world, i, self._without)
        return world
