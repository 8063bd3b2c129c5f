"""Whether a Redis is fit for this library: what it is set to decides what it loses.

    version        6.2 or newer: what the scripts and the stream's commands need
    eviction       a Redis that may throw any key away throws the stream of accepted writes away, without an error
    persistence    without an append-only file, a Redis that restarts has lost what was accepted and not carried yet

What can go wrong: `CacheUnavailable` when Redis does not answer.
"""

from datetime import timedelta
from enum import StrEnum

from redis.asyncio import Redis
from redis.exceptions import ResponseError
from redis.utils import str_if_bytes

from app.caching.errors import REDIS_DOWN, CacheUnavailable

OLDEST = (6, 2)
FIT = "ok"


async def fitness(redis: Redis) -> dict[str, str]:
    """What is wrong with the Redis in use, by the three names above: "ok", or a sentence."""
    try:
        info = await redis.info()
    except REDIS_DOWN as error:
        raise CacheUnavailable(f"Redis does not answer: {error}") from error
    version, policy = str(info["redis_version"]), str(info["maxmemory_policy"])
    parts = dict.fromkeys(("version", "eviction", "persistence"), FIT)
    if tuple(map(int, version.split(".")[:2])) < OLDEST:
        parts["version"] = f"Redis is {version}, and must be 6.2 or newer"
    if policy.startswith("allkeys"):
        parts["eviction"] = f"maxmemory-policy is {policy}: when memory is full, accepted page views vanish"
    if not info["aof_enabled"]:
        parts["persistence"] = "appendonly is off: when Redis restarts, accepted page views are lost"
    return parts


class Fsync(StrEnum):
    """When Redis has its append-only file written to the disk."""

    ALWAYS = "always"  # Before it answers.
    EVERYSEC = "everysec"
    NO = "no"  # When the system thinks fit.
    OFF = "off"  # There is no such file.
    UNKNOWN = "unknown"  # Redis does not tell.

    @property
    def window(self) -> timedelta | None:
        """So much of what it has confirmed last, Redis may have lost when its machine crashes; None: anything."""
        return {Fsync.ALWAYS: timedelta(0), Fsync.EVERYSEC: timedelta(seconds=1)}.get(self)


async def fsync(redis: Redis) -> Fsync:
    """When Redis has what it confirms on its disk. Raises CacheUnavailable."""
    try:
        if not (await redis.info("persistence"))["aof_enabled"]:
            return Fsync.OFF
        policy = (await redis.config_get("appendfsync")).get("appendfsync")
    except ResponseError:  # A hosted Redis may not tell.
        return Fsync.UNKNOWN
    except REDIS_DOWN as error:
        raise CacheUnavailable(f"Redis does not answer: {error}") from error
    return Fsync(str_if_bytes(policy or b"unknown"))
