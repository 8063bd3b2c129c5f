"""How an instance that does not match claims both stores, waits, and promotes."""

from collections.abc import Iterator

from tests.coherence.epochs.reach import SETTLED, end, put, with_poll, with_postgres, with_redis
from tests.coherence.epochs.world import NO_POLL, World, above, unused

Step = tuple[str, World]
Rules = frozenset[str]


def claim(world: World, i: int, both: bool, without: Rules) -> Iterator[Step]:
    """Puts the missing claims, or promotes once they have stood for long enough."""
    me = world.instances[i]
    _, _, _, claim, claimed = me.poll.row
    recorded, _, redis_claim, claimant, _ = me.poll.seen
    aged = True
    if both:
        if not claim:
            yield "does not match", with_poll(put(world, i, me._replace(row_claim=0, row_age=0)), i, step="claim row")
            return
        if claim != me.row_claim:
            me = me._replace(row_claim=claim, row_age=0)
        ripe = me.row_age >= SETTLED or "a claim waits in Postgres" in without
        if claimed != me.poll.run:
            if ripe and "a dead claim is displaced" not in without:
                yield "displaces a claim", with_poll(put(world, i, me), i, step="claim row")
            else:
                yield "waits for a claim", end(put(world, i, me), i)
            return
        aged = ripe
    if recorded:
        if not redis_claim:
            me = me._replace(redis_claim=0, redis_age=0)
            yield "does not match", with_poll(put(world, i, me), i, step="claim redis")
            return
        if redis_claim != me.redis_claim:
            me = me._replace(redis_claim=redis_claim, redis_age=0)
        ripe = me.redis_age >= SETTLED or "a claim waits in Redis" in without
        if claimant != me.poll.postgres:
            if ripe and not above(claimant, me.poll.postgres):
                yield "displaces a claim", with_poll(put(world, i, me), i, step="claim redis")
            else:
                yield "waits for a claim", end(put(world, i, me), i)
            return
        aged = aged and ripe
    if aged:
        yield "may promote", with_poll(put(world, i, me), i, step="promote row" if both else "promote redis")
    else:
        yield "waits", end(put(world, i, me), i)


def claim_row(world: World, i: int, without: Rules) -> Iterator[Step]:
    me = world.instances[i]
    pg = world.postgreses[me.poll.postgres]
    if pg.token != me.poll.row[0] or pg.claim != me.poll.row[3]:
        yield "claims too late", end(world, i)
        return
    claim = unused(world, "claim")
    world = with_postgres(world, me.poll.postgres, pg._replace(claim=claim, claimed=me.poll.run))
    row = (*me.poll.row[:3], claim, me.poll.run)
    yield f"claims H{me.poll.postgres + 1} for run {me.poll.run}", with_poll(world, i, step="row claimed", row=row)


def row_claimed(world: World, i: int, without: Rules) -> Iterator[Step]:
    me = world.instances[i]._replace(row_claim=world.instances[i].poll.row[3], row_age=0)
    recorded, _, claim, _, _ = me.poll.seen
    if recorded and not claim:
        yield "sees that", with_poll(put(world, i, me), i, step="claim redis")
    else:
        yield "sees that", end(put(world, i, me), i)


def claim_redis(world: World, i: int, r: int, without: Rules) -> Iterator[Step]:
    me, redis = world.instances[i], world.redises[r]
    if redis.token != me.poll.seen[0] or redis.claim != me.poll.seen[2]:
        yield "claims too late", end(world, i)
        return
    claim = unused(world, "claim")
    world = with_redis(world, r, redis._replace(claim=claim, claimant=me.poll.postgres))
    seen = (*me.poll.seen[:2], claim, *me.poll.seen[3:])
    yield f"claims R{r + 1}", with_poll(world, i, step="redis claimed", seen=seen)


def redis_claimed(world: World, i: int, without: Rules) -> Iterator[Step]:
    me = world.instances[i]
    yield "sees that", end(put(world, i, me._replace(redis_claim=me.poll.seen[2], redis_age=0)), i)


def promote_row(world: World, i: int, without: Rules) -> Iterator[Step]:
    me = world.instances[i]
    pg = world.postgreses[me.poll.postgres]
    refuted = pg.claim != me.row_claim and "a refuted claim does not promote" not in without
    if pg.token != me.poll.row[0] or refuted:
        yield "promotes too late", end(world, i)
        return
    token = unused(world, "epoch")
    pg = pg._replace(token=token, run=me.poll.run, history=me.poll.postgres, claim=0, claimed=0)
    world = with_postgres(world, me.poll.postgres, pg)
    row = (token, me.poll.run, me.poll.postgres, 0, 0)
    yield f"inserts epoch {token} for run {me.poll.run}", with_poll(world, i, step="promote redis", row=row)


def promote_redis(world: World, i: int, r: int, without: Rules) -> Iterator[Step]:
    me, redis = world.instances[i], world.redises[r]
    token, _, history, _, _ = me.poll.row
    if redis.token and (redis.token != me.poll.seen[0] or redis.claim != me.redis_claim):
        yield "promotes R too late", end(world, i)
        return
    redis = redis._replace(token=token, history=history, claim=0, claimant=-1, beats=(0,) * len(redis.beats))
    yield f"tells R{r + 1} of epoch {token}", with_poll(with_redis(world, r, redis), i, step="promoted")


def promoted(world: World, i: int, without: Rules) -> Iterator[Step]:
    me = world.instances[i]
    token, run, history, _, _ = me.poll.row
    me = me._replace(token=token, run=run, history=history, beat=0, back=0, shown=history, poll=NO_POLL)
    yield "sees that", put(world, i, me._replace(row_claim=0, row_age=0, redis_claim=0, redis_age=0))
