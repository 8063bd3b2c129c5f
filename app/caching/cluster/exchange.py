"""Many commands in one write on one connection, and all answers to them.

redis-py's pipelines do this, too, at several times the cost of each command: they pack words one by one, and start a
timer for each answer.

What can go wrong: the connection is lost, or its node is silent. Then nobody knows which of the commands were executed.
None is sent again.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ResponseError


async def exchange(redis: Redis, commands: Sequence[bytes]) -> list[Any | ResponseError]:
    """Sends commands that are packed, and returns the answers in their order. An error that Redis answers to a command
    stands in the place of its answer. They leave in one write, so no other client's connection is between them."""
    pool = redis.connection_pool
    connection = await pool.get_connection()  # type: ignore[no-untyped-call]
    try:
        async with asyncio.timeout(connection.socket_timeout):
            await connection.send_packed_command(b"".join(commands))
            # Not the connection's own method, which raises errors and bounds each answer by a timer of its own.
            read = connection._get_parser().read_response
            return [await read() for _ in commands]
    except BaseException:
        # Answers that come later would be taken for those of the next caller.
        await connection.disconnect(nowait=True)
        raise
    finally:
        await pool.release(connection)
