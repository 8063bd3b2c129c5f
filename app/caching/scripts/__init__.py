"""The Lua scripts: one job each, sent to Redis once and then run by their digest."""

from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from redis.asyncio import Redis
from redis.commands.core import AsyncScript

from app.caching.errors import REDIS_DOWN, CacheUnavailable

ATTEMPTS = 3


def script(redis: Redis, name: str) -> AsyncScript:
    """The script `name`.lua, ready to be called with keys and args. redis-py sends it again after a restart."""
    return redis.register_script(files(__name__).joinpath(f"{name}.lua").read_bytes())


async def run(script: AsyncScript, keys: Sequence[str], args: Sequence[Any]) -> Any:
    """The answer of a script that may run again without harm. An answer that got lost tells nothing, so it is repeated.

    Raises CacheUnavailable after `ATTEMPTS`.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return await script(keys=keys, args=args)
        except REDIS_DOWN as error:
            if attempt == ATTEMPTS:
                raise CacheUnavailable(f"Redis did not answer for page views: {error}") from error
    raise AssertionError("The last attempt has returned or raised.")
