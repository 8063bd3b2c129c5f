"""The Lua scripts: one job each, sent to Redis once and then run by their digest."""

from importlib.resources import files

from redis.asyncio import Redis
from redis.commands.core import AsyncScript


def script(redis: Redis, name: str) -> AsyncScript:
    """The script `name`.lua, ready to be called with keys and args. redis-py sends it again after a restart."""
    return redis.register_script(files(__name__).joinpath(f"{name}.lua").read_bytes())
