"""The poll of an instance, step by step."""

from collections.abc import Iterator

from tests.coherence.epochs import claiming
from tests.coherence.epochs.reach import (
    TRUST,
    beaten,
    connected,
    distrusting,
    end,
    invalidated,
    put,
    to_postgres,
    to_redis,
    with_instance,
    with_poll,
    with_postgres,
    with_redis,
)
from tests.coherence.epochs.world import NO_POLL, Poll, World, above

Step = tuple[str, World]
Rules = frozenset[str]


VOID = -1
"""The token of a record after an instance has seen that Redis went back."""

AT_ONCE = frozenset(("seen", "row", "row claimed", "redis claimed", "promoted", "refuted", "redis refuted"))
"""Steps at which an answer is seen as soon as it is given. Acting on it is a separate step, which may come late; and a
query that changes nothing elsewhere may be late itself."""


def polls(world: World, i: int, without: Rules) -> Iterator[Step]:
    for label, after in _polls(world, i, without):
        while (step := after.instances[i].poll.step) in AT_ONCE:
            ((more, after),) = LOCAL[step](after, i, without)
            if more != "sees that":
                label = f"{label}; {more}"
        yield label, after


def _polls(world: World, i: int, without: Rules) -> Iterator[Step]:
    step = world.instances[i].poll.step
    if step == "":
        if world.instances[i].doubt:
            reached = connected(with_instance(world, i, pool=()), i, without)
            yield from _script(reached, i, reached.instances[i].url, without)
        else:
            for reached, r in to_redis(world, i, without):
                yield from _script(reached, i, r, without)
    elif step in ("tell", "refute redis", "claim redis", "promote redis"):
        for reached, r in to_redis(world, i, without):
            if reached.redises[r].run != reached.instances[i].poll.run and "one poll, one run" not in without:
                yield f"meets another run on R{r + 1}", end(reached, i)
            else:
                yield from REDIS[step](reached, i, r, without)
    elif step == "select":
        if world.instances[i].poll.fresh:
            world = with_instance(world, i, sessions=(world.instances[i].address,))
        for reached, p in to_postgres(world, i):
            pg = reached.postgreses[p]
            row = (pg.token, pg.run, pg.history, pg.claim, pg.claimed)
            yield f"SELECT H{p + 1}: {row}", with_poll(reached, i, step="row", postgres=p, row=row, undone=pg.undone)
    else:
        yield from LOCAL[step](world, i, without)


def _script(world: World, i: int, r: int, without: Rules) -> Iterator[Step]:
    me, redis = world.instances[i], world.redises[r]
    verdict = "other"
    if not redis.token:
        verdict = "gone"
    elif redis.token == me.token:
        if me.beat and redis.beats[i] != me.beat and "beats" not in without:
            verdict = "back"
            if "who sees Redis gone back voids the record" not in without:
                redis = redis._replace(token=VOID, claim=0, claimant=-1)
        else:
            verdict = "ok"
            if redis.claim and above(redis.claimant, me.history) and "an older timeline yields" not in without:
                verdict = "yield"
            elif redis.claim:
                verdict = "claimed"
    seen = (redis.token, redis.history, redis.claim, redis.claimant, verdict)
    world = with_redis(world, r, redis)
    world = with_instance(world, i, poll=Poll("seen", redis=r, run=redis.run, seen=seen, fresh=me.doubt))
    if verdict in ("ok", "claimed"):
        world = beaten(world, i, r)
    if world.excused:
        excused = list(world.excused)
        if excused[i] == 1:
            excused[i] = 2
        elif excused[i] == 3:
            excused[i] = 0
        if all(e == 2 for e, one in zip(excused, world.instances, strict=True) if one.alive):
            excused = [3] * len(excused)
        world = world._replace(excused=tuple(excused) if any(excused) else ())
    yield f"polls R{r + 1}: {verdict}, claim {redis.claim}", world


def _seen(world: World, i: int, without: Rules) -> Iterator[Step]:
    me = world.instances[i]
    _, history, _, claimant, verdict = me.poll.seen
    for shown in (history, claimant if verdict == "yield" else -1):
        if shown >= 0 and not above(me.superseded, shown):
            me = me._replace(superseded=shown)
    me = me._replace(looked=TRUST - me.poll.elapsed)
    if verdict == "yield":
        me = distrusting(me)._replace(token=0, poll=NO_POLL, doubt=True)
        yield "yields", put(world, i, me)
        return
    if verdict == "back":
        me = distrusting(me)._replace(back=me.token)
    elif me.poll.seen[0] == VOID:
        me = distrusting(me)
    yield "sees that", with_poll(put(world, i, me), i, step="select")


def _row(world: World, i: int, without: Rules) -> Iterator[Step]:
    me = world.instances[i]
    token, run, history, claim, claimed = me.poll.row
    live = me.poll.postgres
    same_history = history == live or "another history is another epoch" in without
    me = me._replace(shown=live if same_history else -1)
    if above(me.superseded, live) and "the superseded are silent" not in without:
        me = distrusting(me)._replace(token=0, poll=NO_POLL, doubt=True)
        yield "is superseded", put(world, i, me)
        return
    same_run = run == me.poll.run or "another run is another epoch" in without
    match = me.poll.seen[0] != VOID and same_run and same_history and me.back != token
    recorded = me.poll.seen[0]
    doubt = not match or (recorded not in (0, token)) or claim > 0 or me.poll.seen[2] > 0
    if not match or recorded not in (0, token):
        me = distrusting(me)._replace(token=0 if not match else me.token)
    if doubt and not me.poll.fresh and "fresh connections in doubt" not in without:
        yield "doubts", put(world, i, me._replace(doubt=True, poll=NO_POLL))
        return
    me = me._replace(doubt=doubt and "fresh connections in doubt" not in without)
    if match and recorded == 0:
        yield "matches, and the record is gone", with_poll(put(world, i, me), i, step="record")
    elif match and recorded == token and not (claim and claimed == me.poll.run):
        if me.token != token:
            me = me._replace(token=token, run=run, history=live, beat=0)
        me = me._replace(row_claim=0, row_age=0, redis_claim=0, redis_age=0)
        if claim:
            yield "is a member, and refutes", with_poll(put(world, i, me), i, step="refute")
        elif me.poll.seen[2]:
            yield "is a member, and refutes", with_poll(put(world, i, me), i, step="refute redis")
        else:
            yield "is a member", _member(put(world, i, me), i, without)
    elif match and recorded == token:
        yield from claiming.claim(put(world, i, distrusting(me)._replace(token=0)), i, True, without)
    else:
        yield from claiming.claim(put(world, i, me._replace(token=0)), i, not match, without)


def _member(world: World, i: int, without: Rules) -> World:
    """Continues a member's poll once there is no claim."""
    poll = world.instances[i].poll
    if poll.undone and "rows are told before trust" not in without:
        return with_poll(world, i, step="take")
    return with_poll(world, i, step="trust")


def _record(world: World, i: int, without: Rules) -> Iterator[Step]:
    me = world.instances[i]
    redis = world.redises[me.poll.redis]
    if redis.run != me.poll.run or redis.token:
        yield "writes no record", end(world, i)
        return
    token, _, history, _, _ = me.poll.row
    redis = redis._replace(token=token, history=history, claim=0, claimant=-1, beats=(0,) * len(redis.beats))
    yield f"writes the record {token} on R{me.poll.redis + 1}", end(with_redis(world, me.poll.redis, redis), i)


def _refute(world: World, i: int, without: Rules) -> Iterator[Step]:
    me = world.instances[i]
    pg = world.postgreses[me.poll.postgres]
    if pg.token != me.poll.row[0] or pg.claim != me.poll.row[3]:
        if "a refutation that came late gives no trust" in without:
            yield "refutes too late", with_poll(world, i, step="refuted")
        else:
            yield "refutes too late", end(world, i)
    elif "claims are refuted in Postgres" in without:
        yield "does not refute", end(world, i)
    else:
        world = with_postgres(world, me.poll.postgres, pg._replace(claim=0, claimed=0))
        yield f"refutes on H{me.poll.postgres + 1}", with_poll(world, i, step="refuted")


def _refuted(world: World, i: int, without: Rules) -> Iterator[Step]:
    if world.instances[i].poll.seen[2]:
        yield "sees that", with_poll(world, i, step="refute redis")
    else:
        yield "sees that", _member(world, i, without)


def _refute_redis(world: World, i: int, r: int, without: Rules) -> Iterator[Step]:
    me, redis = world.instances[i], world.redises[r]
    if redis.token != me.token or redis.claim != me.poll.seen[2]:
        yield "refutes too late", end(world, i)
    elif "claims are refuted in Redis" in without:
        yield "does not refute", end(world, i)
    else:
        world = with_redis(world, r, redis._replace(claim=0, claimant=-1))
        yield f"refutes on R{r + 1}", with_poll(world, i, step="redis refuted")


def _redis_refuted(world: World, i: int, without: Rules) -> Iterator[Step]:
    yield "sees that", _member(world, i, without)


def _take(world: World, i: int, without: Rules) -> Iterator[Step]:
    undone = world.postgreses[world.instances[i].poll.postgres].undone
    yield f"takes {undone}", with_poll(world, i, step="tell", undone=undone)


def _tell(world: World, i: int, r: int, without: Rules) -> Iterator[Step]:
    yield (
        f"tells R{r + 1} of {world.instances[i].poll.undone}",
        with_poll(invalidated(world, i, r, without), i, step="mark"),
    )


def _mark(world: World, i: int, without: Rules) -> Iterator[Step]:
    me = world.instances[i]
    pg = world.postgreses[me.poll.postgres]
    if pg.token != me.token and "rows are marked under the newest epoch" not in without:
        yield "marks nothing", end(world, i)
        return
    undone = tuple(version for version in pg.undone if version not in me.poll.undone)
    world = with_postgres(world, me.poll.postgres, pg._replace(undone=undone))
    yield "marks them done", with_poll(world, i, step="trust")


def _trust(world: World, i: int, without: Rules) -> Iterator[Step]:
    me = world.instances[i]
    left = TRUST if "trust counts from the beginning" in without else TRUST - me.poll.elapsed
    if me.poll.spoilt and "a spoilt poll gives no trust" not in without:
        yield "gains no trust", end(world, i)
    else:
        yield f"trusts {me.token}", end(with_instance(world, i, trust=max(left, me.trust)), i)


LOCAL = {
    "seen": _seen,
    "row": _row,
    "record": _record,
    "refute": _refute,
    "refuted": _refuted,
    "redis refuted": _redis_refuted,
    "take": _take,
    "mark": _mark,
    "trust": _trust,
    "claim row": claiming.claim_row,
    "row claimed": claiming.row_claimed,
    "redis claimed": claiming.redis_claimed,
    "promote row": claiming.promote_row,
    "promoted": claiming.promoted,
}
REDIS = {
    "tell": _tell,
    "refute redis": _refute_redis,
    "claim redis": claiming.claim_redis,
    "promote redis": claiming.promote_redis,
}
