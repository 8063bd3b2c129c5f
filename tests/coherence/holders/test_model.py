"""The protocol that says which node of a cluster holds a slot, in every order of its steps: what holds with all rules,
and why each rule is needed.

It extends the protocol of epochs to a cluster, in which one node fails over, or gives up a slot, while the others keep
what they have. Each rule is about one slot, so the world has one: two nodes, two instances, one key, and TRUST is one
tick. A world is either exhausted, that is, seen completely, or explored up to a bound. Not modelled: a call for several
keys of a slot that is half moved (it gets TRYAGAIN), an answer that never comes, a Postgres that is away or goes back
(`tests/coherence/epochs`), a node that is promoted, demoted and promoted again within TRUST.
"""

from dataclasses import dataclass

import pytest

from tests.coherence.holders.explorer import explore
from tests.coherence.holders.played import played
from tests.coherence.holders.world import World, start

SPLIT = ("replicate", "promote", "cut 1 0")
"""The first node is cut off from the cluster and from B, but not from A; its replica was promoted."""
CLAIMED = (*SPLIT, "B polls", "tick", "tick")
LOST = ("replicate", "A writes", "A polls")
"""A write that the replica does not have, and that every relay takes for delivered."""
BACK = ("promote", "demote", "tick", "tick", "failback")
LATE = ("A goes on", "A goes on")
MOVING = ("move 0", "key 0", "own 1")
MOVED = (*MOVING, "end 0", "A polls", "A polls", "B polls", "B polls")
AGAIN = (*SPLIT, "cut 0 0", "A polls", "tick", "tick", "A polls", "A polls", "A writes", "A polls", "kill 1", "heal 0")
"""Nobody reaches the first node: the second one holds the slot, gets a write, and dies."""
FORCED = ("replicate", *BACK[:4], *LATE, "takeover", "B polls")


@dataclass(frozen=True, slots=True)
class Case:
    """A world that has been played to where the exploration begins. `then`: faults that may still happen."""

    moves: tuple[str, ...] = ()
    then: tuple[str, ...] = ()
    writes: tuple[int, ...] = (0,)
    reads: tuple[int, ...] = (1,)

    def start(self, without: frozenset[str] = frozenset()) -> World:
        world = played(start((), self.writes, self.reads), *self.moves, without=without)
        return world._replace(faults=self.then)


NEEDED = {
    ("Postgres names the holder",): Case((*SPLIT, "B polls"), reads=(1, 1)),
    ("a claim waits",): Case((*SPLIT, "B polls", "B polls", "B polls"), reads=(1, 1)),
    ("members refute",): Case((*CLAIMED, "A polls", "B polls", "B polls"), reads=(1, 1)),
    ("a refuted claim promotes nothing",): Case(
        (*CLAIMED, "B goes on", "B goes on", "A polls", "B goes on", "B polls"), reads=(1, 1)
    ),
    ("trust counts from the beginning",): Case(
        (*SPLIT, *LATE, "B polls", "tick", "tick", "A goes on", "B polls", "B polls"), reads=(1, 1)
    ),
    ("trust before the invalidation", "trust after the invalidation"): Case(
        (*CLAIMED, "B polls", "B polls"), reads=(1, 1)
    ),
    ("a fill needs its lease",): Case(("A writes",), writes=(0, 0), reads=(1, 1)),
    ("rows are told before trust",): Case(),
    ("a write settles",): Case(then=("cut 0 0",)),
    ("a run is an identity",): Case(LOST, ("restart",), writes=(0, 0)),
    ("a run is an identity", "a claim begins a new term"): Case((*LOST, "kill 0", "promote"), writes=(0, 0)),
    ("each poll asks for the run",): Case((*LOST, *BACK), writes=(0, 0)),
    ("a claim begins a new term",): Case(AGAIN, writes=(0, 0)),
    ("only the holder itself hands over",): Case((*SPLIT, "B polls", "B polls"), reads=(1, 1)),
    ("a replica hands nothing over",): Case((*FORCED, "A goes on", "A polls"), writes=(1,), reads=(0, 0)),
    ("members have heard the holder",): Case(("replicate", "kill 0", "promote"), writes=(), reads=()),
}

HOLDS = {
    "a node restarts, and has lost something": Case(LOST, ("restart",), writes=(0,)),
    "a node dies, and its replica lacks a write": Case((*LOST, "kill 0", "promote"), writes=(0,)),
}
HOLDS_AT_LENGTH = {
    "a node restarts, and there is another write": Case(LOST, ("restart",), writes=(0, 0)),
    "a node dies, and there is another write": Case((*LOST, "kill 0", "promote"), writes=(0, 0)),
    "a node is cut off, and one instance still reaches it": Case(SPLIT),
    "the same, with two reads": Case(SPLIT, reads=(1, 1)),
    "a failover by hand, and back": Case((*LOST, *BACK), writes=(0, 0), reads=(1, 1)),
    "a failover by force, back, while others hear of it": Case(FORCED, writes=(1,), reads=(0, 0)),
    "a node that was cut off is the only one again": Case(AGAIN, writes=(0, 0)),
    "the key moves": Case(("move 0",), ("key 0",)),
    "a slot ends to move": Case(MOVING, ("end 0",)),
    "a slot begins to move back": Case(MOVED, ("move 1", "key 1")),
}


@pytest.mark.parametrize("left_out", NEEDED, ids=" and ".join)
def test_without_this_rule_a_property_is_violated(left_out: tuple[str, ...]) -> None:
    case, without = NEEDED[left_out], frozenset(left_out)
    explored = explore(case.start(without), without, 60_000)
    print("\n".join((*explored.trace, explored.violation)))
    assert explored.violation, f"{explored.states} states, and none is wrong"


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=name) for name, case in HOLDS.items()]
    + [pytest.param(case, id=name, marks=pytest.mark.prove) for name, case in HOLDS_AT_LENGTH.items()],
)
def test_with_all_rules_every_property_holds_in_the_whole_world(case: Case) -> None:
    explored = explore(case.start())
    assert not explored.violation, "\n".join((*explored.trace, explored.violation))
    assert explored.exhausted
