"""Finds the shards whose stream can be read.

    someone sets a string under the name of one stream     one read of all four fails, and nothing is flushed any more

So the types are checked when a read reports a wrong one, and from then on now and then. The other streams are still
flushed.

What can go wrong: the pending entries of an overwritten stream are lost in Redis. The processes that accepted them
still have them (`recovery.py`), and accept them again once the name is free.
"""

import logging
from collections.abc import Sequence
from typing import cast

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from ..errors import CacheError
from ..words import code
from .shard import Shard

logger = logging.getLogger(__name__)


class Streams:
    """The streams of some shards."""

    def __init__(self, redis: Redis, shards: Sequence[Shard]) -> None:
        self._redis, self._all = redis, list(shards)
        self.readable = {shard.stream: shard for shard in shards}
        """The shards whose streams can be read, by the name of the stream."""
        self.trouble: CacheError | None = None
        """Why not all streams can be read."""

    async def look(self) -> bool:
        """Checks the type of each stream, and returns whether the readable ones have changed."""
        readable, wrong = {}, []
        for shard in self._all:
            type_ = cast("bytes", await self._redis.type(shard.stream))
            if type_ in (b"stream", b"none"):
                readable[shard.stream] = shard
            else:
                wrong.append(f"{shard.stream} is a {type_.decode()}")
        changed, self.readable = readable.keys() != self.readable.keys(), readable
        says = f"{', '.join(wrong)} in Redis, not a stream: nothing is flushed from it."
        self.trouble = CacheError(says) if wrong else None
        if changed and self.trouble is not None:
            logger.error("%s", self.trouble)
        return changed


def is_no_stream(error: BaseException | None) -> bool:
    """Returns whether Redis reports that a key is not a stream."""
    return isinstance(error, ResponseError) and code(error) == "WRONGTYPE"
