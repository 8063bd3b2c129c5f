"""The report of what is pending is accurate."""

import json
from datetime import timedelta

from redis.asyncio import Redis

from tests.caching.write_behind.views import HOME, Views, batch_of


async def test_young_views_are_those_within_the_window_by_the_clock_of_redis(views: Views, redis: Redis) -> None:
    """Five views came an hour ago by Redis' own clock, and three just now, when it was a little ahead of our clock."""
    seconds, _microseconds = await redis.time()
    for count, at in {5: seconds - 3600, 3: seconds + 60}.items():
        deltas = json.dumps({"home": count})
        await redis.xadd(HOME.stream, {"batch": batch_of(), "deltas": deltas, "views": count}, id=f"{at * 1000}-0")
        await redis.incrby(HOME.backlog, count)
    young = {
        window: (await views.counters.backlog(window)).young
        for window in (timedelta(0), timedelta(minutes=30), timedelta(hours=2), None)
    }
    assert young == {timedelta(0): 0, timedelta(minutes=30): 3, timedelta(hours=2): 8, None: 8}
    assert (await views.counters.backlog(timedelta(minutes=30))).amount == 8
