"""Whether a Redis is fit for this library: what it is set to decides what it loses.

    version        6.2 or newer: what the scripts and the stream's commands need
    role           a replica takes no writes, or loses them
    eviction       a Redis that may throw any key away throws the stream of accepted writes away, without an error
    persistence    without an append-only file, a Redis that restarts has lost what was accepted and not flushed yet

That it tells so does not say that it takes anything (its memory or disk is full, it loads, it is a replica): `trial`.

What can go wrong: `CacheUnavailable` when Redis does not answer, or answers with an error.
"""

from datetime import timedelta
from enum import StrEnum

from redis.asyncio import Redis
from redis.exceptions import ResponseError
from redis.utils import str_if_bytes

from .errors import REDIS_DOWN
from .words import unavailable

OLDEST = (6, 2)
FIT = "ok"


async def fitness(redis: Redis) -> dict[str, str]:
    """What is wrong with the Redis in use, by the four names above: "ok", or a sentence. Of what it does not tell,
    nothing is said. Raises CacheUnavailable."""
    try:
        info = await redis.info()
    except REDIS_DOWN as error:
        raise unavailable(error) from error
    parts = dict.fromkeys(("version", "role", "eviction", "persistence"), FIT)
    version, policy = info.get("redis_version"), str(info.get("maxmemory_policy", ""))
    if version is not None and tuple(map(int, str(version).split(".")[:2])) < OLDEST:
        parts["version"] = f"Redis is {version}, and must be 6.2 or newer"
    if info.get("role") == "slave":
        parts["role"] = "Redis is a replica"
    if policy.startswith("allkeys"):
        parts["eviction"] = f"maxmemory-policy is {policy}: when memory is full, accepted writes vanish"
    if not (info.get("aof_enabled", True) or info.get("loading")):  # It writes none while it reads one.
        parts["persistence"] = "appendonly is off: when Redis restarts, accepted writes are lost"
    return parts


async def trial(redis: Redis, key: str) -> None:
    """Raises CacheUnavailable when Redis would not take a write. It is asked to overwrite a `key` that is not there:
    that changes nothing, and is refused as a write is."""
    try:
        await redis.set(key, "", xx=True)
    except REDIS_DOWN as error:
        raise unavailable(error) from error


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
        info = await redis.info("persistence")
        if not info["aof_enabled"]:
            return Fsync.UNKNOWN if info.get("loading") else Fsync.OFF
        policy = (await redis.config_get("appendfsync")).get("appendfsync")
    except ResponseError:  # A hosted Redis may not tell.
        return Fsync.UNKNOWN
    except REDIS_DOWN as error:
        raise unavailable(error) from error
    return Fsync(str_if_bytes(policy or b"unknown"))
