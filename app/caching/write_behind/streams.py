"""Which shards have a stream that can be read.

    somebody sets a string under the name of one stream     one read of all four fails, and nothing is flushed any more

So the type of each is looked at when a read says that one is wrong, and now and then from there on. The others are
flushed meanwhile.

What can go wrong: what was pending in the stream that was overwritten is lost in Redis. The processes that accepted it
still have it (`receipts.py`), and accept it again when the name is free.
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
    """Those of some shards."""

    def __init__(self, redis: Redis, shards: Sequence[Shard]) -> None:
        self._redis, self._all = redis, list(shards)
        self.readable = {shard.stream: shard for shard in shards}
        """The shards by the names of their streams."""
        self.trouble: CacheError | None = None
        """Why not all of them can be read."""

    async def look(self) -> bool:
        """Looks at the type of each, and answers whether it is another one than before."""
        readable, wrong = {}, []
        for shard in self._all:
            type_ = cast("bytes", await self._redis.type(shard.stream))
            if type_ in (b"stream", b"none"):
                readable[shard.stream] = shard
            else:
                wrong.append(f"{shard.stream} is a {type_.decode()}")
        changed, self.readable = readable.keys() != self.readable.keys(), readable
        says = f"{', '.join(wrong)} in Redis, and no stream: nothing is flushed from it."
        self.trouble = CacheError(says) if wrong else None
        if changed and self.trouble is not None:
            logger.error("%s", self.trouble)
        return changed


def is_no_stream(error: BaseException | None) -> bool:
    """Whether Redis says that something else stands where a stream should be."""
    return isinstance(error, ResponseError) and code(error) == "WRONGTYPE"
