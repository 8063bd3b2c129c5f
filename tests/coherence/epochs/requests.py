"""A read and a write of an instance, step by step."""

from collections.abc import Iterator

from tests.coherence.epochs.reach import (
    SETTLED,
    invalidated,
    to_postgres,
    to_redis,
    with_instance,
    with_postgres,
    with_redis,
)
from tests.coherence.epochs.world import NO_REQUEST, Request, World, above

Step = tuple[str, World]
Rules = frozenset[str]


class Stale(Exception):
    """A read answers a value that it must not answer."""


def writes(world: World, i: int, without: Rules) -> Iterator[Step]:
    me = world.instances[i]
    step = me.write.step
    if step == "":
        if i in world.writes:
            yield from _commit(world, i, without)
    elif step == "invalidate":
        if not me.trust and "trust before the invalidation" not in without:
            yield "has no trust, and waits", with_instance(world, i, write=me.write._replace(step="wait"))
            return
        for reached, r in to_redis(world, i, without):
            one = reached.instances[i]
            if reached.redises[r].run != one.run and "one run" not in without:
                yield "meets another run, and waits", with_instance(reached, i, write=one.write._replace(step="wait"))
                continue
            write = me.write._replace(step="invalidated", token=me.token, spoilt=one.write.spoilt)
            yield f"invalidates on R{r + 1}", with_instance(invalidated(reached, i, r, without), i, write=write)
    elif step == "invalidated":
        trusted = me.trust and not me.write.spoilt and me.write.token == me.token
        if trusted or "trust after the invalidation" in without:
            yield "answers the write", _answered(world, i)
        else:
            yield "waits", with_instance(world, i, write=me.write._replace(step="wait"))
    elif step == "wait":
        if me.write.value not in world.postgreses[me.write.history].undone:
            yield "answers the write, which was carried", _answered(world, i)
        elif me.write.age >= SETTLED or "a write settles" in without:
            yield "answers the write, which has settled", _answered(world, i)


def _commit(world: World, i: int, without: Rules) -> Iterator[Step]:
    for reached, p in to_postgres(world, i):
        me, pg = reached.instances[i], reached.postgreses[p]
        if above(me.superseded, p) and "the superseded are silent" not in without:
            continue
        if me.shown < 0 and "no writes before the epoch" not in without:
            continue
        if p != me.shown and "the history rides in the write" not in without:
            continue
        left = list(reached.writes)
        left.remove(i)
        version = reached.version + 1
        pg = pg._replace(versions=(*pg.versions, version), undone=(*pg.undone, version))
        after = with_postgres(reached._replace(writes=tuple(left), version=version), p, pg)
        write = Request("invalidate", value=version, history=p)
        yield f"COMMITs {version} on H{p + 1}", with_instance(after, i, write=write)


def _answered(world: World, i: int) -> World:
    write = world.instances[i].write
    pg = world.postgreses[write.history]
    pg = pg._replace(needed=max(pg.needed, write.value))
    return with_instance(with_postgres(world, write.history, pg), i, write=NO_REQUEST)


def reads(world: World, i: int, without: Rules) -> Iterator[Step]:
    me = world.instances[i]
    step = me.read.step
    if step == "":
        if i in world.reads:
            yield from _get(world, i, without)
    elif step == "got":
        yield from _got(world, i, without)
    elif step == "load":
        for reached, p in to_postgres(world, i):
            yield from _load(reached, i, p, without)
    elif step == "loaded":
        trusted = me.trust and not me.read.spoilt and me.token == me.read.token
        if trusted or "a fill needs trust" in without:
            for reached, r in to_redis(world, i, without):
                yield _fill(reached, i, r, without)
        else:
            yield f"answers {me.read.value}, and fills nothing", _read(world, i, me.read.value, me.read.history)


def _get(world: World, i: int, without: Rules) -> Iterator[Step]:
    me = world.instances[i]
    left = list(world.reads)
    left.remove(i)
    needed = tuple(pg.needed for pg in world.postgreses)
    begun = world._replace(reads=tuple(left))
    if me.trust:
        for reached, r in to_redis(begun, i, without):
            one, redis = reached.instances[i], reached.redises[r]
            if redis.run != one.run and "one run" not in without:
                yield "meets another run, and reads nothing", reached
                continue
            read = Request("got", me.token, one.read.spoilt, redis.value, me.history, needed=needed)
            if redis.value >= 0 and (redis.filled == me.token or "values carry the token" in without):
                yield f"GETs {redis.value} on R{r + 1}", with_instance(reached, i, read=read)
            else:
                read = read._replace(value=-1)
                if not redis.lease:
                    lease = len(world.reads)
                    read = read._replace(lease=lease)
                    reached = with_redis(reached, r, redis._replace(lease=lease))
                yield f"GETs a miss on R{r + 1}, lease {read.lease}", with_instance(reached, i, read=read)
        return
    for reached, p in to_postgres(begun, i):
        if above(me.superseded, p) and "the superseded are silent" not in without:
            continue
        if not me.looked and "a look into Redis before a direct read" not in without:
            continue
        if p != me.shown and "the history rides in the read" not in without:
            continue
        version = reached.postgreses[p].versions[-1]
        after = with_instance(reached, i, read=Request("direct", history=p, needed=needed))
        yield f"reads {version} on H{p + 1}", _read(after, i, version, p)


def _got(world: World, i: int, without: Rules) -> Iterator[Step]:
    me = world.instances[i]
    trusted = me.trust and not me.read.spoilt and me.token == me.read.token
    if me.read.value >= 0 and (trusted or "trust after the hit" in without):
        yield f"answers {me.read.value}", _read(world, i, me.read.value, me.read.history)
    else:
        yield "loads", with_instance(world, i, read=me.read._replace(step="load", value=-1))


def _load(world: World, i: int, p: int, without: Rules) -> Iterator[Step]:
    me = world.instances[i]
    silent = above(me.superseded, p) and "the superseded are silent" not in without
    foreign = p != me.read.history and "the history rides in the read" not in without
    if silent or foreign:
        yield "answers 503", with_instance(world, i, read=NO_REQUEST)
    else:
        version = world.postgreses[p].versions[-1]
        read = me.read._replace(value=version, history=p, step="loaded")
        if not read.lease:
            yield f"loads {version} and answers", _read(with_instance(world, i, read=read), i, version, p)
        else:
            yield f"loads {version}", with_instance(world, i, read=read)


def _fill(world: World, i: int, r: int, without: Rules) -> Step:
    me, redis = world.instances[i], world.redises[r]
    if redis.lease == me.read.lease or "a fill needs its lease" in without:
        redis = redis._replace(value=me.read.value, filled=me.read.token, lease=0)
        world = with_redis(world, r, redis)
    return f"fills R{r + 1}, answers {me.read.value}", _read(world, i, me.read.value, me.read.history)


def _read(world: World, i: int, version: int, history: int) -> World:
    """Ends a read. Raises Stale when its answer is stale."""
    needed = world.instances[i].read.needed
    excused = world.excused and world.excused[i]
    for h, pg in enumerate(world.postgreses):
        if excused or not pg.versions:
            continue
        if h == history and version not in pg.versions:
            raise Stale(f"{version}, which was never committed there")
        if (h == history or above(h, history)) and version < needed[h]:
            raise Stale(f"{version} after {needed[h]} was answered")
    return with_instance(world, i, read=NO_REQUEST)
