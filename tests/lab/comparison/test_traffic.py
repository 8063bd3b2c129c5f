"""What is counted of the traffic with Redis."""

from datetime import timedelta

from app.caching import open_redis
from app.embedded import Endpoints
from app.lab.comparison.traffic import Traffic


async def test_a_command_a_pipeline_and_a_script_are_one_round_trip_each(endpoints: Endpoints) -> None:
    traffic = Traffic()
    async with open_redis(endpoints.redis_url, timeout=timedelta(seconds=10), connections=1) as redis:
        traffic.meter(redis)
        await redis.ping()
        traffic.round_trips = traffic.bytes = 0
        await redis.get("key")
        assert traffic.round_trips == 1
        # *2 $3 GET $3 key, each with CRLF, and $-1 with one.
        assert traffic.bytes == 22 + 5
        async with redis.pipeline() as pipeline:
            pipeline.set("key", "value")
            pipeline.get("key")
            await pipeline.execute()
        assert traffic.round_trips == 2
        await redis.eval("return 1", 0)
        assert traffic.round_trips == 3


async def test_answers_count_too(endpoints: Endpoints) -> None:
    traffic = Traffic()
    async with open_redis(endpoints.redis_url, timeout=timedelta(seconds=10), connections=1) as redis:
        traffic.meter(redis)
        await redis.set("large", "x" * 100_000)
        before = traffic.bytes
        await redis.get("large")
        assert traffic.bytes - before > 100_000
