"""Plays moves up to where an exploration begins, so that it need not find them."""

from tests.coherence.holders.explorer import tick
from tests.coherence.holders.faults import fault
from tests.coherence.holders.polls import Rules, polls
from tests.coherence.holders.requests import reads, writes
from tests.coherence.holders.world import World

KINDS = {"polls": (polls, "poll"), "writes": (writes, "write"), "reads": (reads, "read")}


def played(world: World, *moves: str, without: Rules = frozenset()) -> World:
    """Plays a fault by its name, a "tick", or all of a poll, a write or a read, as in "A polls"; "A goes on" is
    one step of its poll."""
    for move in moves:
        who, _, what = move.partition(" ")
        if move == "tick":
            world = tick(world)
        elif who in ("A", "B"):
            i, begun = "AB".index(who), False
            if what == "goes on":
                _, world = next(polls(world, i, without))
                continue
            kind, name = KINDS[what]
            while getattr(world.instances[i], name).step or not begun:
                begun = True
                _, world = next(iter(kind(world, i, without)))
        else:
            after = fault(world._replace(faults=(*world.faults, move)), move)
            assert after is not None, f"{move} cannot happen now."
            world = after
    return world
