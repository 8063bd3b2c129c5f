"""Random walks through a world that is too large to be explored completely: deep ones, in which one instance often
makes many steps in a row. They prove nothing, but whatever they find is a real violation."""

import random

from tests.coherence.epochs.explorer import NOBODY, Rules, Violation, tick, two_epochs
from tests.coherence.epochs.faults import fault
from tests.coherence.epochs.poll import polls
from tests.coherence.epochs.requests import Stale, reads, writes
from tests.coherence.epochs.world import World


def walk(world: World, seed: int, without: Rules = frozenset(), length: int = 150) -> Violation | None:
    """Makes one walk, the same one for each seed."""
    chance = random.Random(seed)
    sticky, haste = chance.choice((0.3, 0.7, 0.9)), chance.choice((0.08, 0.2))
    alive = [i for i, one in enumerate(world.instances) if one.alive]
    who, trace = alive[0], []
    for _ in range(length):
        draw = chance.random()
        if draw < haste:
            world = tick(world)
            trace.append((NOBODY, "tick"))
            continue
        if world.faults and draw < haste + 0.05:
            name = chance.choice(world.faults)
            if (after := fault(world, name)) is not None:
                world = after
                trace.append((NOBODY, name))
            continue
        alive = [i for i, one in enumerate(world.instances) if one.alive]
        if who not in alive or chance.random() > sticky:
            who = chance.choice(alive)
        kind = chance.choice((polls, polls, writes, reads))
        try:
            following = list(kind(world, who, without))
        except Stale as stale:
            trace.append((who, "reads"))
            return Violation(str(stale), trace)
        if following:
            label, world = chance.choice(following)
            trace.append((who, label))
            if wrong := two_epochs(world):
                return Violation(wrong, trace)
    return None


def swarm(world: World, seeds: range, without: Rules = frozenset(), length: int = 150) -> Violation | None:
    """Returns the violation of the first walk that finds one."""
    for seed in seeds:
        if found := walk(world, seed, without, length):
            return found
    return None
