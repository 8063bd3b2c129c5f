"""Explores every interleaving, and reports the first one that violates a property."""

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from tests.coherence.holders.faults import fault
from tests.coherence.holders.polls import Rules, polls
from tests.coherence.holders.requests import Stale, reads, writes
from tests.coherence.holders.world import SETTLED, TRUST, Instance, World

PATIENCE = 12
"""After so many polls of each instance, the slot's owner is trusted again."""


class Explored(NamedTuple):
    """The number of states, whether those were all, and the first violation: what, and the steps that lead there."""

    states: int
    exhausted: bool
    violation: str = ""
    trace: tuple[str, ...] = ()


def _aged(one: Instance) -> Instance:
    poll, write = one.poll, one.write
    return one._replace(
        trust=(max(one.trust[0] - 1, 0), max(one.trust[1] - 1, 0)),
        age=min(one.age + 1, SETTLED) if one.claim else 0,
        poll=poll._replace(elapsed=min(poll.elapsed + 1, TRUST)) if poll.step else poll,
        write=write._replace(age=min(write.age + 1, SETTLED)) if write.step else write,
    )


def tick(world: World) -> World:
    return world._replace(instances=tuple(map(_aged, world.instances)))


def steps(world: World, without: Rules) -> Iterator[tuple[str, World]]:
    """Yields each possible next step. Raises Stale for one that is wrong."""
    for i, name in enumerate("AB"):
        for kind in (polls, writes, reads):
            for label, after in kind(world, i, without):
                yield f"{name} {label}", after
    for named in sorted(set(world.faults)):
        if (faulty := fault(world, named)) is not None:
            yield named, faulty
    if (later := tick(world)) != world:
        yield "tick", later


def unbelieved(world: World, without: Rules) -> str:
    """Returns what is wrong if the faults end here and the instances poll in turns, or nothing."""
    owners = [place for place, node in enumerate(world.nodes) if node.owns and any(node.reachable)]
    for _ in range(PATIENCE):
        for i in (0, 1):
            begun = False
            while world.instances[i].poll.step or not begun:
                begun = True
                _, world = next(polls(world, i, without))
        trusted = [
            [one.trust[place] > 0 for i, one in enumerate(world.instances) if world.nodes[place].reachable[i]]
            for place in owners
        ]
        if not owners or (all(trusted[0]) if len(owners) == 1 else any(map(any, trusted))):
            return ""
        world = tick(world)
    return "Nobody will ever trust the owner."


def explore(start: World, without: Rules = frozenset(), limit: int = 3_000_000) -> Explored:
    """Explores breadth first."""
    parents: dict[World, tuple[World, str] | None] = {start: None}
    queue = deque([start])

    def trace(world: World) -> tuple[str, ...]:
        told = []
        while (parent := parents[world]) is not None:
            world, label = parent
            told.append(label)
        return tuple(reversed(told))

    while queue:
        world = queue.popleft()
        if not world.faults and (wrong := unbelieved(world, without)):
            return Explored(len(parents), False, wrong, trace(world))
        try:
            for label, after in steps(world, without):
                if after not in parents:
                    parents[after] = world, label
                    queue.append(after)
        except Stale as stale:
            return Explored(len(parents), False, str(stale), trace(world))
        if len(parents) > limit:
            return Explored(len(parents), False)
    return Explored(len(parents), True)
