"""The poll of an instance: it asks each node about itself, then Postgres, and believes what both say.

the recorded holder says that it owns the slot      members tell it of the changes, and trust it
it says that it does not own it, and another does   the slot is handed over at once: the old holder answers MOVED
it is silent or a replica, and another owns it      a claim, which members refute that reach the holder; after
                                                    SETTLED the claimant holds the slot, under a new term
"""

from collections.abc import Iterator

from tests.coherence.holders.world import (
    NO_POLL,
    NONE,
    OTHER,
    OWNS,
    REPLICA,
    SETTLED,
    SILENT,
    TRUST,
    Instance,
    Poll,
    Postgres,
    World,
    distrusting,
    put,
    reached,
    unused_claim,
    with_node,
    with_poll,
)

Step = tuple[str, World]
Rules = frozenset[str]


def polls(world: World, i: int, without: Rules) -> Iterator[Step]:
    step = world.instances[i].poll.step
    if step == "":
        yield _ask(world, i, without)
    elif step == "select":
        yield _select(world, i, without)
    else:
        yield STEPS[step](world, i, without)


def _ask(world: World, i: int, without: Rules) -> Step:
    one = world.instances[i]
    words = tuple(node.word(i) for node in world.nodes)
    if "each poll asks for the run" not in without:
        pairs = zip(world.nodes, one.runs, strict=True)
        runs = tuple(node.run if node.reachable[i] else run for node, run in pairs)
        if runs != one.runs:
            one = distrusting(one)._replace(runs=(runs[0], runs[1]))
    return f"asks: R1 {words[0]}, R2 {words[1]}", put(world, i, one._replace(poll=Poll("select", words=words)))


def _select(world: World, i: int, without: Rules) -> Step:
    row, one = world.postgres, world.instances[i]
    if row.n != one.n:
        one = distrusting(one)._replace(n=row.n, terms=row.terms)
        # The poll itself is about the record that it has just read.
        one = one._replace(poll=one.poll._replace(spoilt=False))
    return f"SELECTs holder R{row.holder + 1}, claim {row.claim}", _decided(put(world, i, one), i, row, without)


def _decided(world: World, i: int, row: Postgres, without: Rules) -> World:
    one = world.instances[i]
    poll = one.poll._replace(row=Postgres(row.holder, row.n, (0, 0), row.claim, row.claimed, 0, row.undone))
    holder, other = poll.words[row.holder], poll.words[1 - row.holder]
    if "Postgres names the holder" in without and holder != OWNS == other:
        poll = poll._replace(row=poll.row._replace(holder=1 - row.holder))
        holder = OWNS
    if "members have heard the holder" in without and holder == SILENT:
        holder = OWNS
    gives = holder == OTHER or (holder == REPLICA and "a replica hands nothing over" in without)
    gives = gives or (holder == SILENT and "only the holder itself hands over" in without)
    if row.claim != one.claim:
        one = one._replace(claim=row.claim, age=0)
    step = ""
    if holder == OWNS:
        step = "refute" if row.claim and "members refute" not in without else "take" if row.undone else "trust"
    elif other != OWNS:
        pass
    elif row.claim:
        step = "promote" if one.age >= SETTLED or "a claim waits" in without else ""
    else:
        step = "hand over" if gives else "claim"
    return put(world, i, one._replace(poll=poll._replace(step=step, words=()) if step else NO_POLL))


def _same(world: World, i: int) -> bool:
    """Whether the record is still as this poll has read it, its claim included."""
    row, now = world.instances[i].poll.row, world.postgres
    return now.n == row.n and now.claim == row.claim


def _end(world: World, i: int) -> World:
    return put(world, i, world.instances[i]._replace(poll=NO_POLL))


def _refute(world: World, i: int, without: Rules) -> Step:
    if not _same(world, i):
        return "refutes too late", _end(world, i)
    world = world._replace(postgres=world.postgres._replace(claim=0, claimed=NONE))
    return "refutes", with_poll(world, i, step="take" if world.instances[i].poll.row.undone else "trust")


def _claim(world: World, i: int, without: Rules) -> Step:
    if not _same(world, i):
        return "claims too late", _end(world, i)
    claim, row = unused_claim(world), world.postgres
    world = world._replace(postgres=row._replace(claim=claim, claimed=1 - row.holder))
    return f"claims for R{2 - row.holder}", _end(put(world, i, world.instances[i]._replace(claim=claim, age=0)), i)


def _promote(world: World, i: int, without: Rules) -> Step:
    refuted = world.postgres.claim != world.instances[i].claim and "a refuted claim promotes nothing" not in without
    row = world.postgres
    if row.n != world.instances[i].poll.row.n or refuted:
        return "promotes too late", _end(world, i)
    holder = world.instances[i].poll.row.claimed
    terms = [*row.terms]
    if "a claim begins a new term" not in without:
        terms[holder] = max(terms) + 1
    row = row._replace(holder=holder, n=row.n + 1, terms=(terms[0], terms[1]), claim=0, claimed=NONE)
    return f"promotes R{holder + 1}", _end(world._replace(postgres=row), i)


def _hand_over(world: World, i: int, without: Rules) -> Step:
    if not _same(world, i):
        return "hands over too late", _end(world, i)
    row = world.postgres
    row = row._replace(holder=1 - row.holder, n=row.n + 1)
    return f"hands over to R{row.holder + 1}", _end(world._replace(postgres=row), i)


def _take(world: World, i: int, without: Rules) -> Step:
    holder = world.instances[i].poll.row.holder
    if "rows are told before trust" in without:
        return "tells nothing", with_poll(world, i, step="trust")
    place = reached(world, i, holder)
    if place is None:
        return "cannot tell", _end(world, i)
    return f"tells R{place + 1}", with_poll(invalidated(world, place), i, step="mark")


def _mark(world: World, i: int, without: Rules) -> Step:
    row, poll = world.postgres, world.instances[i].poll
    if row.n != poll.row.n:
        return "marks nothing", _end(world, i)
    undone = tuple(version for version in row.undone if version not in poll.row.undone)
    world = world._replace(postgres=row._replace(undone=undone))
    return "marks them done", with_poll(world, i, step="trust")


def _trust(world: World, i: int, without: Rules) -> Step:
    one = world.instances[i]
    poll, trust = one.poll, [*one.trust]
    if poll.spoilt:
        return "gains no trust", _end(world, i)
    left = TRUST if "trust counts from the beginning" in without else max(TRUST - poll.elapsed, 0)
    trust[poll.row.holder] = max(trust[poll.row.holder], left)
    return f"trusts R{poll.row.holder + 1}", _end(put(world, i, one._replace(trust=(trust[0], trust[1]))), i)


def invalidated(world: World, place: int) -> World:
    """Drops the value and voids the lease."""
    return with_node(world, place, world.nodes[place]._replace(value=NONE, life=(0, 0), lease=0))


def life(one: Instance, place: int, without: Rules) -> tuple[int, int]:
    """Returns the life of a node, as this instance knows it."""
    run = 1 if "a run is an identity" in without else one.runs[place]
    return run, one.terms[place]


STEPS = {
    "refute": _refute,
    "claim": _claim,
    "promote": _promote,
    "hand over": _hand_over,
    "take": _take,
    "mark": _mark,
    "trust": _trust,
}
