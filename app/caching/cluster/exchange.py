"""Many commands in one write on one connection, and all answers to them.

redis-py's pipelines do this, too, at several times the cost of each command: they pack words one by one, and start a
timer for each answer. And each of its writes is a task, with a timer of its own.

What can go wrong: the connection is lost, or its node is silent. Then nobody knows which of the commands were executed.
None is sent again.
"""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from redis._parsers.hiredis import NOT_ENOUGH_DATA
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError


async def exchange(
    redis: Redis, commands: Sequence[bytes], waits: timedelta = timedelta(0)
) -> list[Any | ResponseError]:
    """Sends commands that are packed, and returns the answers in their order. An error that Redis answers to a command
    stands in the place of its answer. They leave in one write, so no other client's connection is between them. Redis
    may wait for `waits` before it answers."""
    pool = redis.connection_pool
    connection = await pool.get_connection()  # type: ignore[no-untyped-call]
    try:
        async with asyncio.timeout(connection.socket_timeout + waits.total_seconds()):
            connection._writer.write(b"".join(commands))
            await connection._writer.drain()
            return await _answers(connection._get_parser(), len(commands))
    except BaseException:
        # Answers that come later would be taken for those of the next caller.
        await connection.disconnect(nowait=True)
        raise
    finally:
        await pool.release(connection)


async def _answers(parser: Any, many: int) -> list[Any | ResponseError]:
    """Reads some answers: as many as have arrived, without a coroutine for each."""
    answers: list[Any] = []
    while len(answers) < many:
        answers.append(await parser.read_response())
        answers += iter(parser._reader.gets, NOT_ENOUGH_DATA)
    if any(issubclass(kind, RedisConnectionError) for kind in set(map(type, answers))):
        # As `read_response` does: LOADING is no answer to a command.
        raise next(answer for answer in answers if isinstance(answer, RedisConnectionError))
    return answers
