"""Explores every interleaving, and reports the first one that violates a property."""

from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from tests.coherence.epochs.faults import fault
from tests.coherence.epochs.poll import polls
from tests.coherence.epochs.reach import SETTLED, TRUST
from tests.coherence.epochs.requests import Stale, reads, writes
from tests.coherence.epochs.world import Instance, Request, World

Rules = frozenset[str]
NOBODY = -1
Labelled = tuple[int, str, World]


class Violation(NamedTuple):
    """What went wrong, and the steps that lead there: the actor and the label of each."""

    what: str
    trace: list[tuple[int, str]]

    def __str__(self) -> str:
        return "\n".join((*_columns(self.trace), f"→ {self.what}"))


class Explored(NamedTuple):
    """The number of states, whether those were all, and the first violation."""

    states: int
    exhausted: bool
    violation: Violation | None


def _columns(trace: list[tuple[int, str]]) -> Iterator[str]:
    width = 44
    for who, what in trace:
        if who == NOBODY:
            yield f"-- {what}"
        else:
            yield " " * (width * who) + f"{'ABC'[who]} {what}"


def _requests_aged(request: Request) -> Request:
    return request._replace(age=min(request.age + 1, SETTLED)) if request.step else request


def _aged(one: Instance) -> Instance:
    return one._replace(
        trust=max(one.trust - 1, 0),
        looked=max(one.looked - 1, 0),
        row_age=min(one.row_age + 1, SETTLED) if one.row_claim else 0,
        redis_age=min(one.redis_age + 1, SETTLED) if one.redis_claim else 0,
        poll=one.poll._replace(elapsed=min(one.poll.elapsed + 1, TRUST)) if one.poll.step else one.poll,
        write=_requests_aged(one.write),
    )


def tick(world: World) -> World:
    return world._replace(instances=tuple(map(_aged, world.instances)))


def steps(world: World, without: Rules) -> Iterator[Labelled]:
    """Yields each possible next step. Raises Stale for a step that is wrong."""
    for i, one in enumerate(world.instances):
        if one.alive:
            for kind in (polls, writes, reads):
                for label, after in kind(world, i, without):
                    yield i, label, after
    for name in sorted(set(world.faults)):
        faulty = fault(world, name)
        if faulty is not None:
            yield NOBODY, name, faulty
    later = tick(world)
    if later != world:
        yield NOBODY, "tick", later


def two_epochs(world: World) -> str | None:
    believing = [one for one in world.instances if one.trust and one.alive]
    for a in believing:
        for b in believing:
            if a.token < b.token and (a.run == b.run or a.history == b.history):
                return f"two epochs are believed, {a.token} and {b.token}"
    return None


def _trace(parents: dict[int, int], start: World, end: int, without: Rules) -> list[tuple[int, str]]:
    path = [end]
    while path[-1] in parents and parents[path[-1]] != path[-1]:
        path.append(parents[path[-1]])
    world, told = start, []
    for wanted in path[-2::-1]:
        for who, label, after in steps(world, without):
            if hash(after) == wanted:
                told.append((who, label))
                world = after
                break
    return told


def explore(
    start: World,
    without: Rules = frozenset(),
    limit: int = 1_000_000,
    calm: Callable[[World], str | None] | None = None,
) -> Explored:
    """Explores breadth first. `calm` judges each state, too."""
    parents = {hash(start): hash(start)}
    queue = deque([start])
    while queue:
        world = queue.popleft()
        mark = hash(world)
        wrong = two_epochs(world) or (calm(world) if calm else None)
        if wrong:
            return Explored(len(parents), False, Violation(wrong, _trace(parents, start, mark, without)))
        try:
            for _, _, after in steps(world, without):
                key = hash(after)
                if key not in parents:
                    parents[key] = mark
                    queue.append(after)
        except Stale as stale:
            trace = _trace(parents, start, mark, without)
            return Explored(len(parents), False, Violation(f"A read answers {stale}", trace))
        if len(parents) > limit:
            return Explored(len(parents), False, None)
    return Explored(len(parents), True, None)
