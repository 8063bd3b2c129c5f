"""The model's state: two nodes of a cluster, one slot with one key, what Postgres has recorded, and two instances.

Time is counted in ticks, as in the model of epochs, and only remaining or elapsed time is kept.
"""

from typing import NamedTuple

from tests.coherence.fast_records import replace_fast

TRUST, SETTLED = 1, 2
"""In ticks."""
NONE = -1
OWNS, OTHER, REPLICA, SILENT = "owns the slot", "another owns it", "is a replica", "silent"
"""What a node says of itself."""
Life = tuple[int, int]
"""A node's run, and the term that Postgres gave it as the slot's holder."""


class Node(NamedTuple):
    """A primary, or a replica that may become one."""

    run: int
    reachable: tuple[bool, bool] = (True, True)
    """By which instance."""
    owns: bool = False
    """Whether it says of itself that it owns the slot."""
    replica: bool = False
    """Whether it says of itself that it is a replica."""
    value: int = NONE
    """The version under the key, NONE for none."""
    life: Life = (0, 0)
    """The life under which the value was filled."""
    lease: int = 0

    def word(self, i: int) -> str:
        """Returns what the node answers to instance `i`."""
        if not self.reachable[i]:
            return SILENT
        return OWNS if self.owns else REPLICA if self.replica else OTHER

    @property
    def has_key(self) -> bool:
        return self.value >= 0 or self.lease > 0


class Postgres(NamedTuple):
    """What is recorded: the `holder` of the slot, the number `n` of the record, a term for each node, and a claim.
    `needed` is the newest version whose write was answered."""

    holder: int = 0
    n: int = 1
    terms: tuple[int, int] = (0, 0)
    claim: int = 0
    claimed: int = NONE
    version: int = 0
    undone: tuple[int, ...] = ()
    needed: int = 0


class Poll(NamedTuple):
    """A poll in flight. `words`: what each node says of itself."""

    step: str = ""
    elapsed: int = 0
    spoilt: bool = False
    words: tuple[str, ...] = ()
    row: Postgres = Postgres()


class Request(NamedTuple):
    """A read or a write in flight, by `node` as this instance knows it in `life`."""

    step: str = ""
    node: int = NONE
    life: Life = (0, 0)
    spoilt: bool = False
    value: int = NONE
    lease: int = 0
    age: int = 0
    needed: int = 0


NO_POLL, NO_REQUEST = Poll(), Request()


class Instance(NamedTuple):
    """A process, and for how long it trusts each node with the slot."""

    trust: tuple[int, int] = (TRUST, 0)
    runs: tuple[int, int] = (1, 2)
    """The run of each node, as it said itself when this instance last asked."""
    n: int = 1
    terms: tuple[int, int] = (0, 0)
    claim: int = 0
    age: int = 0
    poll: Poll = NO_POLL
    write: Request = NO_REQUEST
    read: Request = NO_REQUEST


class World(NamedTuple):
    """The whole state. `faults`, `writes`, `reads`: what may still happen. `moving`: from which node the key moves."""

    nodes: tuple[Node, Node]
    postgres: Postgres
    instances: tuple[Instance, ...]
    faults: tuple[str, ...]
    writes: tuple[int, ...]
    reads: tuple[int, ...]
    moving: int = NONE
    replica: tuple[Node, ...] = ()
    """What the replica has of the first node."""


replace_fast(Node, Postgres, Poll, Request, Instance, World)


def start(faults: tuple[str, ...], writes: tuple[int, ...], reads: tuple[int, ...]) -> World:
    """All instances trust the first node, which has the value."""
    nodes = Node(1, owns=True, value=0, life=(1, 0)), Node(2)
    return World(nodes, Postgres(), (Instance(), Instance()), faults, writes, reads)


def put(world: World, i: int, one: Instance) -> World:
    return world._replace(instances=(*world.instances[:i], one, *world.instances[i + 1 :]))


def with_node(world: World, place: int, node: Node) -> World:
    nodes = [*world.nodes]
    nodes[place] = node
    return world._replace(nodes=(nodes[0], nodes[1]))


def with_poll(world: World, i: int, **changes: object) -> World:
    one = world.instances[i]
    return put(world, i, one._replace(poll=one.poll._replace(**changes)))  # type: ignore[arg-type]


def distrusting(one: Instance) -> Instance:
    """Returns the instance after it has noticed a loss of trust."""
    return one._replace(
        trust=(0, 0),
        poll=one.poll._replace(spoilt=True) if one.poll.step else one.poll,
        read=one.read._replace(spoilt=True) if one.read.step else one.read,
        write=one.write._replace(spoilt=True) if one.write.step else one.write,
    )


def reached(world: World, i: int, place: int) -> int | None:
    """Returns the node that executes a call of instance `i` to `place`, None if that answers MOVED or nothing. While
    the slot moves, the old owner answers ASK for a key that it does not have."""
    node = world.nodes[place]
    if not (node.reachable[i] and node.owns):
        return None
    if world.moving != place or node.has_key:
        return place
    return 1 - place if world.nodes[1 - place].reachable[i] else None


def unused_claim(world: World) -> int:
    used = {world.postgres.claim, 0}
    for one in world.instances:
        used |= {one.claim, one.poll.row.claim}
    return next(claim for claim in range(1, 9) if claim not in used)
