"""Write-behind's Lua scripts. Each may run again without harm, so a call whose answer was lost is repeated."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from ...errors import REDIS_DOWN, CacheUnavailable
from ...scripts import Script, source
from ...scripts import script as script_of
from ...words import unavailable
from ..life import Life
from ..place import Place

ASKED = "counters"
"""What Redis is asked for, in messages about an answer that did not come."""
ATTEMPTS = 3


def script(redis: Redis, name: str) -> Script:
    """Returns the script `name`.lua of this folder, ready to be called with keys and args."""
    return script_of(redis, name, __name__)


@cache
def sources() -> Mapping[str, bytes]:
    """Returns all scripts of this folder by their digests."""
    names = [file.name for file in files(__name__).iterdir() if file.name.endswith(".lua")]
    return dict(source(name.removesuffix(".lua"), __name__) for name in names)


Question = Callable[[Life], tuple[Sequence[str | bytes], Sequence[Any]]]
"""Returns the keys and the args of a script for one life of Redis."""


async def run(script: Script, question: Question, place: Place, *, drains: bool = False) -> Any:
    """Returns the answer of a script that may run again without harm. The call is repeated if its answer was lost, or
    if it was meant for a life of Redis that is over. With `drains`, it is also sent to a Redis that is no longer the
    one to believe.

    Raises CacheUnavailable after `ATTEMPTS`, or at once if Redis is known not to answer.
    """
    (answer,) = await run_all(script, [question], place, drains=drains)
    if isinstance(answer, CacheUnavailable):
        raise answer
    return answer


async def run_all(
    script: Script, questions: Sequence[Question], place: Place, *, drains: bool = False
) -> Sequence[Any]:
    """Does the same for many questions in one round trip. CacheUnavailable takes the place of a missing answer."""
    answers: list[Any] = [None] * len(questions)
    waiting = list(range(len(questions)))
    why = ""
    for _attempt in range(ATTEMPTS):
        refused = place.refuses(drains=drains)
        if not waiting or refused is not None:
            why = why or refused or ""
            break
        life = place.life
        asked = [questions[number](life) for number in waiting]
        again = []
        for number, answer in zip(waiting, await _ask(script, asked), strict=True):
            answers[number] = answer
            if isinstance(answer, REDIS_DOWN):
                why = str(unavailable(answer, ASKED)).removesuffix(".")
                again.append(number)
            elif isinstance(answer, CacheUnavailable):
                continue  # Nothing was sent, or it was sent again for long enough.
            elif isinstance(answer, BaseException):
                raise answer
            elif life != place.life:
                why = "Redis has restarted, or another one is believed"
                again.append(number)
        waiting = again
    for number in waiting:
        error, answers[number] = answers[number], CacheUnavailable(f"{why}.")
        answers[number].__cause__ = error if isinstance(error, BaseException) else None
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
    except (*REDIS_DOWN, CacheUnavailable) as error:
        return error
