"""The model's state: instances, Redises, Postgreses, and what is known of each.

All records are tuples, so that a state can be hashed. Time is counted in ticks, and only remaining or elapsed time is
kept: two states that differ only in absolute time are one. Random tokens are small numbers: a new one is the smallest
unused number, so that a state that recurs is recognized.
"""

from typing import NamedTuple

from tests.coherence.fast_records import replace_fast

TIMELINES = ((1, 1), (1, 2), (2, 1))
"""System and timeline of each history: the first Postgres, a promoted standby of it, a restored dump."""


def above(one: int, other: int) -> bool:
    """Whether `one` is a later timeline of the same system as `other`."""
    return one >= 0 <= other and TIMELINES[one][0] == TIMELINES[other][0] and TIMELINES[one][1] > TIMELINES[other][1]


class Redis(NamedTuple):
    """A server, and what it holds. `token` 0: no record; `claim` 0: no claim."""

    run: int
    token: int
    history: int
    claim: int
    claimant: int
    """The history of the claiming instance."""
    beats: tuple[int, ...]
    value: int
    """The version of the only key; -1 for none."""
    filled: int
    """The token under which the value was filled."""
    lease: int


class Postgres(NamedTuple):
    """One history, and its newest epoch."""

    token: int
    run: int
    history: int
    claim: int
    claimed: int
    """The claimed run."""
    versions: tuple[int, ...]
    undone: tuple[int, ...]
    needed: int
    """The newest version whose write was answered."""


class Poll(NamedTuple):
    """A poll in flight."""

    step: str = ""
    elapsed: int = 0
    spoilt: bool = False
    """Whether trust was lost since the poll began."""
    redis: int = 0
    run: int = 0
    seen: tuple[int, int, int, int, str] = (0, -1, 0, -1, "")
    """Token and history of the record, claim and claimant, verdict."""
    postgres: int = -1
    row: tuple[int, int, int, int, int] = (0, 0, -1, 0, 0)
    """Token, run, history, claim, claimed run of the newest epoch."""
    undone: tuple[int, ...] = ()
    fresh: bool = False
    """Whether the poll uses its own new connections."""


class Request(NamedTuple):
    """A read or a write in flight."""

    step: str = ""
    token: int = 0
    spoilt: bool = False
    value: int = -1
    history: int = -1
    age: int = 0
    lease: int = 0
    needed: tuple[int, ...] = ()


NO_POLL, NO_REQUEST = Poll(), Request()


class Instance(NamedTuple):
    """A process. `url` and `address` are where its names lead; `pool` and `sessions` are its connections."""

    url: int
    pool: tuple[int, ...]
    met: int
    """The run that a new connection met last."""
    address: int
    sessions: tuple[int, ...]
    token: int
    run: int
    history: int
    trust: int
    beat: int
    back: int = 0
    """The token of the epoch in which this instance saw Redis go back."""
    strange: bool = False
    """Whether it saw another token in this Redis."""
    superseded: int = -1
    """The highest history that Redis showed to be above its own."""
    shown: int = -1
    """The history that the last poll showed, if it is that of the newest epoch."""
    looked: int = 0
    """For how many more ticks its last query of Redis counts."""
    row_claim: int = 0
    row_age: int = 0
    redis_claim: int = 0
    redis_age: int = 0
    doubt: bool = False
    """Whether the next poll makes its own connections."""
    poll: Poll = NO_POLL
    write: Request = NO_REQUEST
    read: Request = NO_REQUEST
    alive: bool = True


class World(NamedTuple):
    """The whole state. `faults`, `writes`, `reads`: what may still happen."""

    redises: tuple[Redis, ...]
    postgreses: tuple[Postgres, ...]
    instances: tuple[Instance, ...]
    faults: tuple[str, ...]
    writes: tuple[int, ...]
    """The instances that may still write."""
    reads: tuple[int, ...]
    version: int = 0
    saved: tuple[Redis, ...] = ()
    excused: tuple[int, ...] = ()
    """For each instance since Redis silently went back: 1 has not polled, 2 has, 3 all have, 0 has polled again."""


replace_fast(Redis, Postgres, Poll, Request, Instance, World)


def unused(world: World, kind: str) -> int:
    """Returns a token of an epoch or of a claim that is not in use."""
    used: set[int] = {0}
    redises = world.redises + world.saved
    if kind == "epoch":
        for redis in redises:
            used.update((redis.token, redis.filled))
        used.update(postgres.token for postgres in world.postgreses)
        for one in world.instances:
            used.update((one.token, one.back, one.poll.seen[0], one.poll.row[0], one.read.token, one.write.token))
    else:
        used.update(redis.claim for redis in redises)
        used.update(postgres.claim for postgres in world.postgreses)
        for one in world.instances:
            used.update((one.row_claim, one.redis_claim, one.poll.seen[2], one.poll.row[3]))
    token = 1
    while token in used:
        token += 1
    return token


def new_beat(world: World, i: int) -> int:
    """Returns a beat of instance `i` that is not in use."""
    used = {redis.beats[i] for redis in world.redises + world.saved} | {world.instances[i].beat, 0}
    beat = 1
    while beat in used:
        beat += 1
    return beat
