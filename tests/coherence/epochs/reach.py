"""How an instance connects to a store, and how it loses its trust."""

from collections.abc import Iterator

from tests.coherence.epochs.world import NO_POLL, Instance, Postgres, Redis, World, new_beat

TRUST, SETTLED = 1, 2
"""In ticks."""


def with_instance(world: World, i: int, **changes: object) -> World:
    return put(world, i, world.instances[i]._replace(**changes))  # type: ignore[arg-type]


def with_poll(world: World, i: int, **changes: object) -> World:
    return with_instance(world, i, poll=world.instances[i].poll._replace(**changes))  # type: ignore[arg-type]


def end(world: World, i: int) -> World:
    """Ends the poll of the instance."""
    return with_instance(world, i, poll=NO_POLL)


def with_redis(world: World, r: int, redis: Redis) -> World:
    return world._replace(redises=(*world.redises[:r], redis, *world.redises[r + 1 :]))


def with_postgres(world: World, p: int, postgres: Postgres) -> World:
    return world._replace(postgreses=(*world.postgreses[:p], postgres, *world.postgreses[p + 1 :]))


def distrusting(one: Instance) -> Instance:
    """Returns the instance after it has noticed a loss of trust."""
    return one._replace(
        trust=0,
        poll=one.poll._replace(spoilt=True) if one.poll.step else one.poll,
        read=one.read._replace(spoilt=True) if one.read.step else one.read,
        write=one.write._replace(spoilt=True) if one.write.step else one.write,
    )


def put(world: World, i: int, one: Instance) -> World:
    return world._replace(instances=(*world.instances[:i], one, *world.instances[i + 1 :]))


def to_redis(world: World, i: int, without: frozenset[str]) -> Iterator[tuple[World, int]]:
    """Yields the world and the Redis for each connection that the instance may take, including a new one."""
    me = world.instances[i]
    for r in me.pool:
        yield world, r
    if me.url not in me.pool:
        yield connected(world, i, without), me.url


def connected(world: World, i: int, without: frozenset[str]) -> World:
    """Makes a new connection to where the URL leads. If it meets another run than the last one, trust ends."""
    me = world.instances[i]
    run = world.redises[me.url].run
    pool = me.pool if "old connections are dropped" in without else ()
    if run != me.met:
        me = distrusting(me)._replace(met=run, pool=tuple(sorted({*pool, me.url})))
    else:
        me = me._replace(pool=tuple(sorted({*me.pool, me.url})))
    return put(world, i, me)


def to_postgres(world: World, i: int) -> Iterator[tuple[World, int]]:
    """Yields the same for each session in Postgres."""
    me = world.instances[i]
    for p in me.sessions:
        yield world, p
    if me.address not in me.sessions:
        yield with_instance(world, i, sessions=tuple(sorted((*me.sessions, me.address)))), me.address


def invalidated(world: World, i: int, r: int, without: frozenset[str]) -> World:
    """Drops the value, voids the lease, and sets the beat, in one script."""
    redis = world.redises[r]._replace(value=-1, filled=0, lease=0)
    if "telling sets the beat" in without:
        return with_redis(world, r, redis)
    return beaten(with_redis(world, r, redis), i, r)


def beaten(world: World, i: int, r: int) -> World:
    beat, redis = new_beat(world, i), world.redises[r]
    redis = redis._replace(beats=(*redis.beats[:i], beat, *redis.beats[i + 1 :]))
    return with_instance(with_redis(world, r, redis), i, beat=beat)
