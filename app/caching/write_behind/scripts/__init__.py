"""Write-behind's Lua scripts. Each may run again without harm, so a call whose answer was lost is repeated."""

from collections.abc import Callable, Sequence
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from ...cache import Cache
from ...errors import REDIS_DOWN, CacheUnavailable
from ...scripts import Script
from ...scripts import script as script_of
from ...words import unavailable

ASKED = "counters"
"""What Redis is asked for, in messages about an answer that did not come."""
ATTEMPTS = 3


def script(redis: Redis, name: str) -> Script:
    """Returns the script `name`.lua of this folder, ready to be called with keys and args."""
    return script_of(redis, name, __name__)


Question = Callable[[str | None], tuple[Sequence[str | bytes], Sequence[Any]]]
"""Returns the keys and the args of a script for one life of Redis."""


async def run(script: Script, question: Question, cache: Cache, *, drains: bool = False) -> Any:
    """Returns the answer of a script that may run again without harm. The call is repeated if its answer was lost, or
    if it was meant for a life of Redis that is over. With `drains`, it is also sent to a Redis that is no longer the
    one to believe.

    Raises CacheUnavailable after `ATTEMPTS`, or at once if Redis is known not to answer.
    """
    (answer,) = await run_all(script, [question], cache, drains=drains)
    if isinstance(answer, CacheUnavailable):
        raise answer
    return answer


async def run_all(
    script: Script, questions: Sequence[Question], cache: Cache, *, drains: bool = False
) -> Sequence[Any]:
    """Does the same for many questions in one round trip. CacheUnavailable takes the place of a missing answer."""
    answers: list[Any] = [None] * len(questions)
    waiting = list(range(len(questions)))
    why = f"Redis is not asked for {ASKED}: {cache.trust.why}"
    for _attempt in range(ATTEMPTS):
        if not waiting or not (cache.breaker.reachable if drains else cache.writable):
            break
        life = cache.identity.life
        asked = [questions[place](life) for place in waiting]
        again = []
        for place, answer in zip(waiting, await _ask(script, asked), strict=True):
            answers[place] = answer
            if isinstance(answer, REDIS_DOWN):
                why = str(unavailable(answer, ASKED)).removesuffix(".")
                again.append(place)
            elif isinstance(answer, BaseException):
                raise answer
            elif life != cache.identity.life:
                why = "Redis has restarted, or another one is believed"
                again.append(place)
        waiting = again
    for place in waiting:
        error, answers[place] = answers[place], CacheUnavailable(f"{why}.")
        answers[place].__cause__ = error if isinstance(error, BaseException) else None
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
