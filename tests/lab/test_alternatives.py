"""The alternatives that are billed for an advice."""

from datetime import timedelta

import pytest
from redis.asyncio import Redis

from app.advice import Choice, Loss, Needs
from app.embedded import Endpoints
from app.lab.alternatives import NO_CACHE, alternatives
from app.lab.comparison.bench import remove_keys
from app.lab.comparison.lab_table import LabTable, add_rows
from app.lab.comparison.pool import Pool

LONG = timedelta(minutes=5)


def test_ours_ttl_only_and_no_cache_are_billed() -> None:
    names = {contestant.name for contestant in alternatives(Needs(None, Loss.NOTHING))}
    assert names == {NO_CACHE, *Choice}


@pytest.mark.parametrize(("stale", "lives"), [(None, 300), (0, 300), (1, 1), (60, 59), (3_600, 300)])
async def test_the_ttl_of_ttl_only_is_no_longer_than_the_needs_allow(
    stale: float | None, lives: int, pool: Pool, redis: Redis, lab_endpoints: Endpoints
) -> None:
    needs = Needs(None if stale is None else timedelta(seconds=stale), Loss.NOTHING)
    (ttl_only,) = (each for each in alternatives(needs) if each.name == Choice.TTL_ONLY)
    assert ttl_only.make is not None
    await add_rows(pool, "ttl/", ["k"], cached=False)
    strategy = ttl_only.make(redis, LabTable(pool, "ttl/", cached=False, count=lambda keys: None), "lab", LONG)
    assert await strategy.read("k") == 0
    assert lives - 1 < await redis.pttl("lab:k") / 1000 <= lives
    await remove_keys(lab_endpoints.redis_url)
