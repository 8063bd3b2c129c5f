"""The Lua scripts: one job each, sent to Redis once and then run by their digest."""

from collections.abc import Callable, Iterable, Sequence
from importlib.resources import files
from typing import Any, cast

from redis.asyncio import Redis
from redis.commands.core import AsyncScript
from redis.exceptions import NoScriptError

from app.caching.breaker import Breaker
from app.caching.errors import REDIS_DOWN, CacheUnavailable

ATTEMPTS = 3


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


def script(redis: Redis, name: str) -> Script:
    """The script `name`.lua, ready to be called with keys and args."""
    return Script(redis, files(__name__).joinpath(f"{name}.lua").read_bytes())


Question = Callable[[str | None], tuple[Sequence[str | bytes], Sequence[Any]]]
"""The keys and the args of a script, for one run of Redis."""


async def run(script: AsyncScript, question: Question, breaker: Breaker) -> Any:
    """The answer of a script that may run again without harm. An answer that got lost tells nothing, so it is repeated;
    so is one to a question that was meant for a run of Redis which is over.

    Raises CacheUnavailable after `ATTEMPTS`, or at once when Redis is known not to answer.
    """
    why = f"Redis is not asked for page views: {breaker.why}"
    for _attempt in range(ATTEMPTS):
        if not breaker.reachable:
            break
        run = breaker.run
        try:
            keys, args = question(run)
            answer = await script(keys=keys, args=args)
        except REDIS_DOWN as error:
            why = f"Redis did not answer for page views: {error}"
            continue
        if run == breaker.run:
            return answer
        why = "Redis has restarted"
    raise CacheUnavailable(f"{why}.")
