"""The Lua scripts: one job each, sent to Redis once and then run by their digest."""

from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import Any, cast

from redis.asyncio import Redis
from redis.commands.core import AsyncScript
from redis.exceptions import NoScriptError


class Script(AsyncScript):
    """A script that is sent again as often as Redis has forgotten it. redis-py alone sends it once:

    EVALSHA: it does not know it · SCRIPT LOAD · somebody else's SCRIPT FLUSH · EVALSHA: it does not know it
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
    """The script `name`.lua, ready to be called with keys and args. A strategy with scripts of its own has them in a
    package of its own: `folder` is its name."""
    return Script(redis, files(folder).joinpath(f"{name}.lua").read_bytes())
