"""What happens to the nodes: a failover, a partition, a death, and a slot that moves. Each fault happens once."""

from collections.abc import Callable

from tests.coherence.holders.world import NONE, Node, World, distrusting, with_node


def fault(world: World, name: str) -> World | None:
    """Returns the world after a fault, None if it cannot happen now."""
    faults = list(world.faults)
    faults.remove(name)
    kind, *words = name.split()
    return FAULTS[kind](world._replace(faults=tuple(faults)), *map(int, words))


def _replicate(world: World) -> World:
    """The replica has all that the first node has now, and gets nothing more."""
    return world._replace(replica=(world.nodes[0],))


def _promote(world: World) -> World | None:
    """The replica becomes a primary. The first node may be cut off from it, and still own the slot by its own word."""
    if not world.replica:
        return None
    had = world.replica[0]
    node = Node(3, owns=True, value=had.value, life=had.life, lease=had.lease)
    return with_node(world._replace(replica=()), 1, node)


def _demote(world: World) -> World | None:
    """The first node hears of the other, and becomes its replica."""
    if not world.nodes[1].owns:
        return None
    return with_node(world, 0, world.nodes[1]._replace(run=4, owns=False, replica=True))


def _failback(world: World) -> World | None:
    """The first node, which is a replica, becomes the primary again, without a loss and without a restart."""
    if world.nodes[0].owns or not world.nodes[1].owns:
        return None
    world = with_node(world, 0, world.nodes[1]._replace(run=5))
    return with_node(world, 1, world.nodes[1]._replace(run=6, owns=False, replica=True))


def _takeover(world: World) -> World | None:
    """The same, by force: the other node has not heard of it, and still owns the slot by its own word."""
    if not world.nodes[0].replica:
        return None
    return with_node(world, 0, world.nodes[0]._replace(run=5, owns=True, replica=False))


def _restart(world: World) -> World | None:
    """The first node restarts, and has what the replica has: all connections to it break, and new ones meet its run."""
    if not world.replica:
        return None
    node = world.replica[0]._replace(run=7)
    instances = (distrusting(one)._replace(runs=(7, one.runs[1])) for one in world.instances)
    return with_node(world._replace(instances=tuple(instances), replica=()), 0, node)


def _kill(world: World, place: int) -> World:
    return with_node(world, place, world.nodes[place]._replace(reachable=(False, False), owns=False))


def _cut(world: World, i: int, place: int) -> World:
    """An instance no longer reaches a node."""
    reachable = [*world.nodes[place].reachable]
    reachable[i] = False
    return with_node(world, place, world.nodes[place]._replace(reachable=(reachable[0], reachable[1])))


def _heal(world: World, place: int) -> World:
    return with_node(world, place, world.nodes[place]._replace(reachable=(True, True)))


def _move(world: World, source: int) -> World | None:
    """The slot begins to move: the key moves later."""
    if not world.nodes[source].owns or world.moving != NONE:
        return None
    return world._replace(moving=source)


def _key(world: World, source: int) -> World | None:
    """The key moves, as the last one of its slot."""
    if world.moving != source:
        return None
    had, there = world.nodes[source], world.nodes[1 - source]
    if had.has_key:
        there = there._replace(value=had.value, life=had.life, lease=had.lease)
    world = with_node(world, source, had._replace(value=NONE, life=(0, 0), lease=0))
    return with_node(world, 1 - source, there)


def _own(world: World, place: int) -> World | None:
    """The slot's new owner is told."""
    if world.moving != 1 - place or world.nodes[1 - place].has_key:
        return None
    return with_node(world, place, world.nodes[place]._replace(owns=True))


def _end(world: World, source: int) -> World | None:
    """The slot's old owner is told."""
    if world.moving != source or not world.nodes[1 - source].owns:
        return None
    world = world._replace(moving=NONE)
    return with_node(world, source, world.nodes[source]._replace(owns=False))


FAULTS: dict[str, Callable[..., World | None]] = {
    "replicate": _replicate,
    "promote": _promote,
    "demote": _demote,
    "failback": _failback,
    "takeover": _takeover,
    "restart": _restart,
    "kill": _kill,
    "cut": _cut,
    "heal": _heal,
    "move": _move,
    "key": _key,
    "own": _own,
    "end": _end,
}
