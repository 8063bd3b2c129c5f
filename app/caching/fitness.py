"""Checks whether a Redis is fit for this library: its settings decide what it loses.

    version        6.2 or newer: the scripts and the stream commands need it
    role           a replica refuses writes, or loses them
    eviction       a Redis that may evict any key can evict the stream of accepted writes, without an error; one that
                   may evict keys with a lifetime can evict the records of accepted calls
    persistence    without an append-only file, a restart loses what was accepted and not yet flushed
    sentinels      where the URL names Sentinels: without them, nothing follows a failover

Good settings do not prove that Redis accepts writes (its memory or disk may be full, or it is loading, or it is a
replica). `trial` checks that. `denied` checks what its login may do.

What can go wrong: `CacheUnavailable` if Redis does not answer, or answers with an error.
"""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from enum import StrEnum

from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, ResponseError
from redis.utils import str_if_bytes

from .cache import Cache
from .errors import REDIS_DOWN, CacheUnavailable
from .scripts import script
from .sentinel import Sentinels
from .words import unavailable

OLDEST = (6, 2)
FIT = "ok"


async def fitness(redis: Redis) -> dict[str, str]:
    """Returns what is wrong with the Redis in use, by the names above: "ok", or a sentence. A setting that Redis does
    not report counts as "ok". Raises CacheUnavailable."""
    try:
        info = await redis.info()
    except REDIS_DOWN as error:
        raise unavailable(error) from error
    parts = dict.fromkeys(("version", "role", "eviction", "persistence", "sentinels"), FIT)
    version, policy = info.get("redis_version"), str(info.get("maxmemory_policy", ""))
    if version is not None and tuple(map(int, str(version).split(".")[:2])) < OLDEST:
        parts["version"] = f"Redis is {version}, and must be 6.2 or newer"
    if info.get("role") == "slave":
        parts["role"] = "Redis is a replica"
    if policy.startswith("allkeys"):
        parts["eviction"] = (
            f"maxmemory-policy is {policy}: when memory is full, accepted writes vanish; set it to noeviction"
        )
    elif policy.startswith("volatile"):
        parts["eviction"] = (
            f"maxmemory-policy is {policy}: when memory is full, a repeated write may be added twice; "
            "set it to noeviction"
        )
    if not (info.get("aof_enabled", True) or info.get("loading")):  # Redis reports 0 while it loads the file.
        parts["persistence"] = "appendonly is off: when Redis restarts, accepted writes are lost; set it to yes"
    sentinels: Sentinels | None = getattr(redis.connection_pool, "sentinels", None)
    if sentinels is not None and (silent := await sentinels.silent()):
        parts["sentinels"] = f"of {len(sentinels)} Sentinels, {silent} name{'s' * (silent == 1)} no primary"
    return parts


async def trial(redis: Redis, key: str) -> None:
    """Raises CacheUnavailable if Redis refuses writes. It asks Redis to overwrite a `key` that does not exist: that
    changes nothing, but is refused like any other write."""
    try:
        await redis.set(key, "", xx=True)
    except REDIS_DOWN as error:
        raise unavailable(error) from error


async def denied(redis: Redis, key: str, keys: Sequence[str]) -> list[str]:
    """Returns the commands that this login may not run, and those of the `keys` that it may not use. Nothing changes.
    `key` is one of the `keys`, and does not exist. Raises CacheUnavailable."""
    try:
        pipeline = redis.pipeline(transaction=False)
        for each in keys:
            pipeline.type(each)
        answers = await pipeline.execute(raise_on_error=False)
        # An error that is not about the key is about TYPE, and the script finds that, too.
        names = [
            each
            for each, answer in zip(keys, answers, strict=True)
            if isinstance(answer, NoPermissionError) and "access" in str(answer)
        ]
        commands: list[bytes] = [] if key in names else await script(redis, "permitted")(keys=[key])
    except REDIS_DOWN as error:
        raise unavailable(error) from error
    return [*(command.decode() for command in commands), *names]


class Fsync(StrEnum):
    """When Redis syncs its append-only file to disk."""

    ALWAYS = "always"  # Before it answers.
    EVERYSEC = "everysec"
    NO = "no"  # When the operating system decides.
    OFF = "off"  # There is no such file.
    UNKNOWN = "unknown"  # Redis does not report it.

    @property
    def window(self) -> timedelta | None:
        """The period of confirmed writes that a machine crash may lose, None if it is unlimited."""
        return {Fsync.ALWAYS: timedelta(0), Fsync.EVERYSEC: timedelta(seconds=1)}.get(self)


async def fsync(redis: Redis) -> Fsync:
    """Returns when Redis syncs confirmed writes to disk. Raises CacheUnavailable."""
    try:
        info = await redis.info("persistence")
        if not info["aof_enabled"]:
            return Fsync.UNKNOWN if info.get("loading") else Fsync.OFF
        policy = (await redis.config_get("appendfsync")).get("appendfsync")
    except ResponseError:  # A hosted Redis may not allow these commands.
        return Fsync.UNKNOWN
    except REDIS_DOWN as error:
        raise unavailable(error) from error
    return Fsync(str_if_bytes(policy or b"unknown"))


async def weakest_fsync(caches: Sequence[Cache]) -> Fsync:
    """Returns when the one syncs that promises least. Raises CacheUnavailable if none answers."""
    told = await asyncio.gather(*(fsync(cache.redis) for cache in caches), return_exceptions=True)
    policies = [policy for policy in told if isinstance(policy, Fsync)]
    for error in told:
        if isinstance(error, BaseException) and not (policies and isinstance(error, CacheUnavailable)):
            raise error
    return max(policies, key=list(Fsync).index, default=Fsync.UNKNOWN)
