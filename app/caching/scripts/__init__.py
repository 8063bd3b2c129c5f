"""The Lua scripts: one job each, sent to Redis once and then run by digest."""

import hashlib
from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import Any, NamedTuple, cast

from redis.asyncio import Redis
from redis.commands.core import AsyncScript
from redis.exceptions import NoScriptError


class Script(AsyncScript):
    """A script that is sent again whenever Redis has forgotten it. redis-py alone sends it again only once:

    EVALSHA: unknown script · SCRIPT LOAD · another client's SCRIPT FLUSH · EVALSHA: unknown script
    """

    async def __call__(
        self, keys: Sequence[Any] | None = None, args: Iterable[Any] | None = None, client: Any = None
    ) -> Any:
        try:
            return await super().__call__(keys, args, client)
        except NoScriptError:
            keys = keys or []
            return await self.registered_client.eval(cast("str", self.script), len(keys), *keys, *(args or []))


def script(redis: Redis, name: str, folder: str = __name__) -> Script:
    """Returns the script `name`.lua, ready to be called with keys and args. A strategy with its own scripts keeps them
    in its own package, whose name is `folder`."""
    return Script(redis, files(folder).joinpath(f"{name}.lua").read_bytes())


class Source(NamedTuple):
    """A script, and the digest by which Redis knows it once it was sent."""

    sha: str
    script: bytes


def source(name: str, folder: str = __name__) -> Source:
    """Returns the script `name`.lua, for a caller that sends it itself."""
    text = files(folder).joinpath(f"{name}.lua").read_bytes()
    return Source(hashlib.sha1(text).hexdigest(), text)  # The digest that Redis uses.
