"""A read and a write of an instance, step by step."""

from collections.abc import Iterator

from tests.coherence.holders.polls import Rules, Step, invalidated, life
from tests.coherence.holders.world import NO_REQUEST, NONE, SETTLED, Request, World, put, reached, with_node


class Stale(Exception):
    """A read answers a value that is older than an answered write."""


def trusted(world: World, i: int, request: Request, without: Rules) -> bool:
    """Whether the instance still trusts the node that it has asked, in the same life."""
    one = world.instances[i]
    same = request.life == life(one, request.node, without)
    return bool(one.trust[request.node]) and not request.spoilt and same


def writes(world: World, i: int, without: Rules) -> Iterator[Step]:
    one = world.instances[i]
    write = one.write
    if write.step == "" and i in world.writes:
        left = list(world.writes)
        left.remove(i)
        row = world.postgres
        row = row._replace(version=row.version + 1, undone=(*row.undone, row.version + 1))
        after = world._replace(postgres=row, writes=tuple(left))
        yield f"COMMITs {row.version}", put(after, i, one._replace(write=Request("invalidate", value=row.version)))
    elif write.step == "invalidate":
        known = [node for node in (0, 1) if one.trust[node] or "trust before the invalidation" in without]
        for node in known:
            place = reached(world, i, node)
            if place is None:
                continue
            told = write._replace(step="invalidated", node=node, life=life(one, node, without))
            yield f"invalidates on R{place + 1}", put(invalidated(world, place), i, one._replace(write=told))
        if not any(reached(world, i, node) is not None for node in known):
            yield "tells nobody, and waits", put(world, i, one._replace(write=write._replace(step="wait")))
    elif write.step == "invalidated":
        if trusted(world, i, write, without) or "trust after the invalidation" in without:
            yield "answers the write", _answered(world, i)
        else:
            yield "waits", put(world, i, one._replace(write=write._replace(step="wait")))
    elif write.step == "wait":
        if write.value not in world.postgres.undone:
            yield "answers the write, which was carried", _answered(world, i)
        elif write.age >= SETTLED or "a write settles" in without:
            yield "answers the write, which has settled", _answered(world, i)


def _answered(world: World, i: int) -> World:
    row = world.postgres
    world = world._replace(postgres=row._replace(needed=max(row.needed, world.instances[i].write.value)))
    return put(world, i, world.instances[i]._replace(write=NO_REQUEST))


def reads(world: World, i: int, without: Rules) -> Iterator[Step]:
    one = world.instances[i]
    read = one.read
    if read.step == "" and i in world.reads:
        left = list(world.reads)
        left.remove(i)
        begun = world._replace(reads=tuple(left))
        places = [(node, reached(world, i, node)) for node in (0, 1) if one.trust[node]]
        for node, place in places:
            if place is not None:
                yield _got(begun, i, node, place, without)
        if not any(place is not None for _, place in places):  # It trusts nobody, or is answered MOVED.
            yield "reads Postgres", _read(begun, i, world.postgres.version, world.postgres.needed)
    elif read.step == "got":
        if read.value >= 0 and (trusted(world, i, read, without) or "trust after the hit" in without):
            yield f"answers {read.value}", _read(world, i, read.value, read.needed)
        else:
            yield "loads", put(world, i, one._replace(read=read._replace(step="load", value=NONE)))
    elif read.step == "load":
        version = world.postgres.version
        if read.lease:
            loaded = read._replace(step="loaded", value=version)
            yield f"loads {version}", put(world, i, one._replace(read=loaded))
        else:
            yield f"loads {version} and answers", _read(world, i, version, read.needed)
    elif read.step == "loaded":
        yield "fills, or not, and answers", _read(_filled(world, i, without), i, read.value, read.needed)


def _got(world: World, i: int, node: int, place: int, without: Rules) -> Step:
    one, there = world.instances[i], world.nodes[place]
    known = life(one, node, without)
    read = Request("got", node, known, value=there.value, needed=world.postgres.needed)
    if there.value < 0 or there.life != known:
        read = read._replace(value=NONE)
        if not there.lease:
            read = read._replace(lease=i + 1 + 2 * len(world.reads))
            world = with_node(world, place, there._replace(lease=read.lease))
    return f"GETs {read.value} on R{place + 1}", put(world, i, one._replace(read=read))


def _filled(world: World, i: int, without: Rules) -> World:
    read = world.instances[i].read
    place = reached(world, i, read.node)
    if place is None or not trusted(world, i, read, without):
        return world
    there = world.nodes[place]
    if there.lease != read.lease and "a fill needs its lease" not in without:
        return world
    return with_node(world, place, there._replace(value=read.value, life=read.life, lease=0))


def _read(world: World, i: int, version: int, needed: int) -> World:
    if version < needed:
        raise Stale(f"A read answers {version} after {needed} was answered.")
    return put(world, i, world.instances[i]._replace(read=NO_REQUEST))
