"""Faults of the stores and of the names that lead to them. Each fault of a world happens at most once."""

from collections.abc import Callable

from tests.coherence.epochs.reach import put, with_instance, with_postgres, with_redis
from tests.coherence.epochs.world import NO_POLL, NO_REQUEST, World


def fault(world: World, name: str) -> World | None:
    """Returns the world after a fault, or None when it cannot happen now."""
    faults = list(world.faults)
    faults.remove(name)
    rest = world._replace(faults=tuple(faults))
    kind, *words = name.split()
    numbers = [int(word) for word in words]
    return FAULTS[kind](rest, *numbers)


def _url(world: World, i: int, r: int) -> World:
    return with_instance(world, i, url=r)


def _address(world: World, i: int, p: int) -> World | None:
    return with_instance(world, i, address=p) if world.postgreses[p].token else None


def _move(world: World, r: int) -> World:
    """The name of Redis leads elsewhere, for all instances at once."""
    for i in range(len(world.instances)):
        world = _url(world, i, r)
    return world


def _cut(world: World, r: int) -> World:
    for i, one in enumerate(world.instances):
        world = put(world, i, one._replace(pool=tuple(x for x in one.pool if x != r)))
    return world


def _restart(world: World, r: int) -> World:
    return _cut(with_redis(world, r, world.redises[r]._replace(run=10 + len(world.faults))), r)


def _save(world: World, r: int) -> World:
    return world._replace(saved=(world.redises[r],))


def _lose(world: World, r: int) -> World | None:
    """A restart that loses the last writes."""
    if not world.saved:
        return None
    lost = world.saved[0]._replace(run=10 + len(world.faults))
    return _cut(with_redis(world._replace(saved=()), r, lost), r)


def _back(world: World, r: int) -> World | None:
    """Redis goes back, and keeps its run."""
    if not world.saved:
        return None
    lost = world.saved[0]._replace(run=world.redises[r].run)
    return with_redis(world._replace(saved=(), excused=(1,) * len(world.instances)), r, lost)


def _flush(world: World, r: int) -> World:
    redis = world.redises[r]
    redis = redis._replace(token=0, history=-1, claim=0, claimant=-1, beats=(0,) * len(redis.beats), value=-1, filled=0)
    return with_redis(world, r, redis._replace(lease=0))


def _copy(world: World, p: int, lost: int) -> World | None:
    first = world.postgreses[0]
    if len(first.versions) <= lost:
        return None
    versions = first.versions[: len(first.versions) - lost]
    undone = tuple(version for version in first.undone if version in versions)
    copy = first._replace(versions=versions, undone=undone, needed=min(first.needed, versions[-1]))
    return with_postgres(world, p, copy)


def _promote(world: World, lost: int) -> World | None:
    """A standby that lacks the last commits is promoted."""
    return _copy(world, 1, lost)


def _dump(world: World, lost: int) -> World | None:
    return _copy(world, 2, lost)


def _die(world: World, i: int) -> World:
    return with_instance(world, i, alive=False, trust=0, poll=NO_POLL, write=NO_REQUEST, read=NO_REQUEST)


FAULTS: dict[str, Callable[..., World | None]] = {
    "url": _url,
    "address": _address,
    "move": _move,
    "restart": _restart,
    "save": _save,
    "lose": _lose,
    "back": _back,
    "flush": _flush,
    "promote": _promote,
    "dump": _dump,
    "die": _die,
}
