"""The names of write-behind's data in Redis, and the distribution of keys over four streams.

likes:{2}                a stream: {batch: <ULID>, deltas: {"post-7": 3, …}, …: 4}, the only record of what is pending
likes:{2}:backlog        the amount that is pending in it
likes:{2}:bytes          the bytes of the deltas in it
likes:{2}:epoch          the generation: a random word, a new one after each flush
likes:{2}:total:…:post-7 the total of a key, pending included: a cache, which may vanish at any time
likes:{2}:guard:<id>     this batch was accepted: its entry, and its amount
likes:{2}:key:<idempotency key> post-7  the batch with the addition to this key under this idempotency key
likes:{2}:call:<idempotency key>        the same for a call with many keys: for each batch, eight bytes for each key
likes:{2}:keyed          the bytes of such records, by the hour in which they came
"""

import zlib
from dataclasses import dataclass

GROUP = "flushers"
"""The consumer group that reads the streams."""
COUNT = 4
"""The number of shards. It must not change: after an upgrade, an entry must still find its keys in its shard."""


@dataclass(frozen=True, slots=True)
class Shard:
    """The names of one shard. Its hash tag puts them in one slot, so one script can use them all."""

    name: str
    number: int

    @property
    def stream(self) -> str:
        """The stream of pending entries."""
        return f"{self.name}:{{{self.number}}}"

    @property
    def backlog(self) -> str:
        """The counter of the pending amount."""
        return self.stream + ":backlog"

    @property
    def bytes(self) -> str:
        """The counter of the pending bytes."""
        return self.stream + ":bytes"

    @property
    def generation(self) -> str:
        """The generation, which changes with each flush. Its name in Redis is older than this word."""
        return self.stream + ":epoch"

    def total(self, key: str, life: str | None) -> str:
        """Returns the name of a key's total in this `life` of Redis. A Redis that restarted may have lost the last
        additions, so the totals of its earlier life are no longer read, and are built anew."""
        return f"{self.stream}:total:{life}:{key}"

    def guard(self, batch: str) -> str:
        """Returns the name of a batch's guard, which exists if the batch was accepted."""
        return f"{self.stream}:guard:{batch}"

    @property
    def keyed(self) -> str:
        """The bytes of the records of idempotency keys."""
        return self.stream + ":keyed"

    def record(self, key: str, idempotency_key: str) -> str:
        """Returns the name of the record of an accepted addition. An idempotency key has no blank, so the name is
        unambiguous."""
        return f"{self.stream}:key:{idempotency_key} {key}"

    def call(self, idempotency_key: str) -> str:
        """Returns the name of the record of the accepted additions of a call with many keys."""
        return f"{self.stream}:call:{idempotency_key}"


def shards(name: str) -> list[Shard]:
    """Returns all shards."""
    return [Shard(name, number) for number in range(COUNT)]


def number(key: str) -> int:
    """Returns the number of a key's shard."""
    return zlib.crc32(key.encode()) % COUNT
