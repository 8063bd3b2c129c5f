"""A world after a sequence of moves: the start of an exploration that would otherwise be too long."""

from tests.coherence.epochs.explorer import tick
from tests.coherence.epochs.faults import fault
from tests.coherence.epochs.poll import polls
from tests.coherence.epochs.requests import reads, writes
from tests.coherence.epochs.world import World

KINDS = {"polls": polls, "writes": writes, "reads": reads}


def played(world: World, *moves: str, without: frozenset[str] = frozenset()) -> World:
    """Plays moves, one after the other. `A polls`, `B writes`, `A reads`: from beginning to end. `A goes on`: one step
    of its poll. `tick`, or the name of a fault: just that. Raises ValueError when a move cannot be made."""
    for move in moves:
        who, _, what = move.partition(" ")
        if what in KINDS and who in "ABC":
            world = _ended(world, "ABC".index(who), what, without)
        elif what == "goes on":
            _, world = list(polls(world, "ABC".index(who), without))[-1]
        elif move == "tick":
            world = tick(world)
        else:
            after = fault(world, move)
            if after is None:
                raise ValueError(f"{move} cannot happen now.")
            world = after
    return world


def _ended(world: World, i: int, what: str, without: frozenset[str]) -> World:
    """Plays a poll, a write or a read to its end. It takes a new connection where one can be made."""
    while True:
        steps = list(KINDS[what](world, i, without))
        if not steps:
            raise ValueError(f"{'ABC'[i]} {what}: it may not.")
        _, world = steps[-1]
        if not getattr(world.instances[i], what[:-1]).step:
            return world
