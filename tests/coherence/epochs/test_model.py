"""The protocol of epochs in every order of its steps: what holds with all rules, and why each rule is needed.

The worlds are small (two instances, two Redises, a Postgres and a copy of it, one key), and TRUST is one tick. A world
is either exhausted, that is, seen completely, or explored up to a bound. Rules are left out together where each of them
alone is enough. Not modelled: an answer that never comes, a store that is away, the revocation of inventory, clocks
that run at different speeds.
"""

from dataclasses import dataclass

import pytest

from tests.coherence.epochs.calm import Calm
from tests.coherence.epochs.explorer import explore
from tests.coherence.epochs.played import played
from tests.coherence.epochs.swarm import swarm
from tests.coherence.epochs.world import World
from tests.coherence.epochs.worlds import world

NAMES = ("url", "move", "address", "promote", "dump", "save", "back", "lose", "restart", "flush")
MOVED = ("url 1 1", "B polls", "B polls", "tick", "tick", "B polls", "B polls")
SPLIT = ("promote 0", "address 1 1")
PROMOTED = (*SPLIT, "B polls", "B polls", "tick", "tick", "B polls", "B polls")
POLLED = ("A polls", "B polls")
LOST = ("A writes", "A reads", "promote 1", *PROMOTED[1:])


@dataclass(frozen=True, slots=True)
class Case:
    """A world that has been played to where the exploration begins. `then`: faults that may still happen. `calm`: where
    all names lead in the end, and which instances have to believe then."""

    then: tuple[str, ...] = ()
    moves: tuple[str, ...] = ()
    writes: tuple[int, ...] = ()
    reads: tuple[int, ...] = ()
    calm: tuple[int | None, int | None, tuple[int, ...]] | None = None

    instances: int = 2

    def start(self, without: frozenset[str] = frozenset()) -> World:
        faults = tuple(move for move in self.moves if move.split()[0] in NAMES)
        return played(
            world((*faults, *self.then), writes=self.writes, reads=self.reads, instances=self.instances),
            *self.moves,
            without=without,
        )

    def judge(self, without: frozenset[str]) -> Calm | None:
        return Calm(without, *self.calm) if self.calm else None


AS_THEY_ARE = (None, None, ())
HERE, THERE, COPY, DUMP = (0, 0, ()), (1, 0, ()), (0, 1, ()), (0, 2, ())

NEEDED = {
    ("a claim waits in Postgres",): Case(("url 1 1",)),
    ("a claim waits in Redis",): Case(SPLIT),
    ("a refuted claim does not promote",): Case(("url 1 1",)),
    ("a refutation that came late gives no trust",): Case(("url 1 1",)),
    ("trust counts from the beginning",): Case(("url 1 1",)),
    ("rows are told before trust",): Case(writes=(0,), reads=(1,)),
    ("a write settles",): Case(("url 0 1",), writes=(0,), reads=(1,)),
    ("a fill needs its lease",): Case(writes=(0, 0), reads=(1, 1)),
    ("trust before the invalidation", "trust after the invalidation"): Case(moves=MOVED, writes=(0,), reads=(1, 1)),
    ("old connections are dropped", "one run", "one poll, one run"): Case(("url 0 1",), writes=(0,), reads=(1,)),
    ("values carry the token",): Case(moves=LOST, writes=(0,), reads=(0, 1)),
    ("another history is another epoch",): Case(moves=SPLIT, writes=(1,), reads=(0,)),
    ("the history rides in the write",): Case(moves=SPLIT, writes=(1,), reads=(0,)),
    ("a look into Redis before a direct read",): Case(moves=PROMOTED, writes=(1,), reads=(0,)),
    ("the superseded are silent",): Case(moves=PROMOTED, writes=(1,), reads=(0,)),
    ("beats",): Case(("back 0",), ("A polls", "B polls", "save 0", "A writes"), writes=(0,), reads=(1,)),
    ("telling sets the beat",): Case(
        moves=("B polls", "A goes on", "save 0", "A writes", "A polls", "back 0", *POLLED, *POLLED),
        writes=(0,),
        reads=(1,),
    ),
    ("fresh connections in doubt",): Case(("dump 0", "address 1 2"), calm=HERE),
    ("claims are refuted in Postgres",): Case(("url 1 1",), calm=AS_THEY_ARE),
    ("claims are refuted in Redis",): Case(("dump 0", "address 1 2"), calm=AS_THEY_ARE),
    ("a dead claim is displaced",): Case(("restart 0", "restart 0"), calm=HERE),
    ("an older timeline yields",): Case(moves=SPLIT, calm=(None, None, (1,))),
}

HOLDS = {
    "a promotion, reached by one or both": Case(SPLIT, calm=COPY),
    "a promotion, with a write there and a read here": Case(moves=PROMOTED, writes=(1,), reads=(0,)),
    "a restart of Redis": Case(("restart 0",), calm=HERE),
    "a restored dump": Case(("dump 0", "address 1 2"), calm=DUMP),
}
HOLDS_AT_LENGTH = {
    "a restored dump that is left again": Case(("dump 0", "address 1 2"), calm=HERE),
    "the name of Redis moves": Case(("move 1",), calm=THERE),
    "a flush": Case(("flush 0",), calm=HERE),
    "a restart, and the death of an instance": Case(("restart 0", "die 0"), calm=HERE),
    "a promotion, and a name that leads back": Case(("address 1 0",), PROMOTED, writes=(1,), reads=(1,)),
}

FAR = {
    "a promoter that dies": Case(("restart 0", "die 0"), writes=(1,), reads=(2, 2), instances=3),
    "a move": Case(("url 1 1",), writes=(0,), reads=(1, 1)),
    "a promotion that loses a commit": Case(("promote 1", "address 1 1"), writes=(0, 1), reads=(0, 1)),
    "Redis goes back": Case(("save 0", "back 0"), writes=(0,), reads=(1, 1)),
    "Redis restarts, and has lost something": Case(("save 0", "lose 0"), writes=(0,), reads=(1, 1)),
}


@pytest.mark.parametrize("left_out", NEEDED, ids=" and ".join)
def test_without_this_rule_a_property_is_violated(left_out: tuple[str, ...]) -> None:
    case, without = NEEDED[left_out], frozenset(left_out)
    explored = explore(case.start(without), without, 60_000, case.judge(without))
    print(explored.violation)
    assert explored.violation is not None, f"{explored.states} states, and none is wrong"


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=name) for name, case in HOLDS.items()]
    + [pytest.param(case, id=name, marks=pytest.mark.prove) for name, case in HOLDS_AT_LENGTH.items()],
)
def test_with_all_rules_every_property_holds_in_the_whole_world(case: Case) -> None:
    explored = explore(case.start(), calm=case.judge(frozenset()))
    assert explored.violation is None, str(explored.violation)
    assert explored.exhausted


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("walks", [100, pytest.param(20_000, marks=pytest.mark.prove)])
@pytest.mark.parametrize("name", FAR)
def test_no_random_walk_finds_a_violation(name: str, walks: int) -> None:
    found = swarm(FAR[name].start(), range(walks))
    assert found is None, str(found)


def test_without_voiding_the_record_others_keep_believing_a_redis_that_went_back() -> None:
    """A detects it and stalls before it claims; B, whose beat is older than the loss, reads the old value."""
    rule = frozenset(["who sees Redis gone back voids the record"])
    assert swarm(FAR["Redis goes back"].start(), range(600, 800), rule) is not None
