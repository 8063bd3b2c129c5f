"""The Lua scripts: one job each, sent to Redis once and then run by their digest."""

from collections.abc import Callable, Iterable, Sequence
from importlib.resources import files
from typing import Any, cast

from redis.asyncio import Redis
from redis.commands.core import AsyncScript
from redis.exceptions import NoScriptError

from ..breaker import Breaker
from ..errors import REDIS_DOWN, CacheUnavailable
from ..words import unavailable

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
"""The keys and the args of a script, for one life of Redis."""


async def run(script: Script, question: Question, breaker: Breaker, *, drains: bool = False) -> Any:
    """The answer of a script that may run again without harm. An answer that got lost tells nothing, so it is repeated;
    so is one to a question that was meant for a life of Redis which is over. One that only `drains` is also asked of a
    Redis that is not the one any more.

    Raises CacheUnavailable after `ATTEMPTS`, or at once when Redis is known not to answer.
    """
    (answer,) = await run_all(script, [question], breaker, drains=drains)
    if isinstance(answer, CacheUnavailable):
        raise answer
    return answer


async def run_all(
    script: Script, questions: Sequence[Question], breaker: Breaker, *, drains: bool = False
) -> Sequence[Any]:
    """The same for many questions, in one round trip. CacheUnavailable stands where an answer would."""
    answers: list[Any] = [None] * len(questions)
    waiting = list(range(len(questions)))
    why = f"Redis is not asked for page views: {breaker.why}"
    for _attempt in range(ATTEMPTS):
        if not waiting or not (breaker.reachable if drains else breaker.writable):
            break
        life = breaker.life
        asked = [questions[place](life) for place in waiting]
        again = []
        for place, answer in zip(waiting, await _ask(script, asked), strict=True):
            answers[place] = answer
            if isinstance(answer, REDIS_DOWN):
                why = str(unavailable(answer, "page views")).removesuffix(".")
                again.append(place)
            elif isinstance(answer, BaseException):
                raise answer
            elif life != breaker.life:
                why = "Redis has restarted, or another one is believed"
                again.append(place)
        waiting = again
    for place in waiting:
        answers[place] = CacheUnavailable(f"{why}.")
    return answers


async def _ask(script: Script, asked: Sequence[tuple[Sequence[str | bytes], Sequence[Any]]]) -> Sequence[Any]:
    if len(asked) == 1:
        return [await _answer(script, *asked[0])]
    pipeline = script.registered_client.pipeline(transaction=False)
    for keys, args in asked:
        pipeline.evalsha(script.sha, len(keys), *keys, *args)
    try:
        answers = await pipeline.execute(raise_on_error=False)
    except REDIS_DOWN as error:
        return [error] * len(asked)
    return [
        await _answer(script, *question) if isinstance(answer, NoScriptError) else answer
        for question, answer in zip(asked, answers, strict=True)
    ]


async def _answer(script: Script, keys: Sequence[str | bytes], args: Sequence[Any]) -> Any:
    try:
        return await script(keys=keys, args=args)
    except REDIS_DOWN as error:
        return error
